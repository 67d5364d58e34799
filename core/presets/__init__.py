"""Presets: published settings as job specs without the ids, one YAML file each, with a `note` that says where they come from."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def presets() -> dict[str, dict[str, Any]]:
    """Every preset of this folder by its name, sorted: fields of a job spec, and `note`."""
    found = sorted((file for file in files(__name__).iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return {file.name.removesuffix(".yaml"): yaml.safe_load(file.read_text(encoding="utf-8")) for file in found}
