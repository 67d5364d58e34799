"""The formats by their place, and what every one of them refuses."""

from importlib import metadata
from pathlib import Path

import pytest
import torch

from core.errors import Refused
from core.export import export, formats, versions
from tests.core.export.test_safetensors import facts_of, student_of


def test_a_format_is_a_file_with_a_write_and_nothing_else_is_one() -> None:
    assert "safetensors" in formats()
    assert "card" not in formats()


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    facts = facts_of()
    with pytest.raises(Refused, match="'pickle'") as refused:
        export("pickle", student_of(facts), facts=facts, out=tmp_path, sample=torch.rand(2, 1, 8, 8))
    assert refused.value.where == "/exports"
    assert "safetensors" in refused.value.hint


def test_the_versions_name_what_computes() -> None:
    assert {"retort", "python", "torch", "safetensors", "numpy"} <= versions().keys()
    assert versions()["torch"] == torch.__version__


def test_an_engine_that_is_only_a_folder_on_a_machine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    known = metadata.version

    def found(name: str) -> str:
        if name == "retort-service":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", found)
    assert versions()["retort"] == "not installed"
    assert versions()["torch"] == known("torch")
