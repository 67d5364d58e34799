"""Presets: published settings as job specs without the ids, with a `note` that says where they come from; the YAML files of this folder.

A file with `tables` holds published tables (see `core.presets.table`), any other file is one preset.
"""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from core.presets.table import Table


@cache
def presets() -> dict[str, dict[str, Any]]:
    """Every preset by its name, sorted: fields of a job spec, and `note`.

    A preset that is a cell of a published table also has `networks` ({"teacher", "student"}: the architectures) and `published`
    ({"error_percent", "source"}).
    """
    single = {name: fields for name, fields in _files().items() if "tables" not in fields}
    cells = [table.presets() for table in tables().values()]
    found = {name: preset for part in (single, *cells) for name, preset in part.items()}
    return {name: found[name] for name in sorted(found)}


@cache
def tables() -> dict[str, Table]:
    """Every published table by its name, sorted."""
    found: dict[str, Table] = {}
    for fields in _files().values():
        shared = {name: value for name, value in fields.items() if name != "tables"}
        found |= {name: Table.model_validate({**shared, **own}) for name, own in fields.get("tables", {}).items()}
    return {name: found[name] for name in sorted(found)}


@cache
def _files() -> dict[str, dict[str, Any]]:
    found = sorted((file for file in files(__name__).iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return {file.name.removesuffix(".yaml"): yaml.safe_load(file.read_text(encoding="utf-8")) for file in found}
