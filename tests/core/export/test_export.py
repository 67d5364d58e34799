"""The formats by their place, and what every one of them refuses."""

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
