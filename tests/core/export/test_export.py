"""The formats by their place, and what every one of them refuses."""

from importlib import metadata, util
from typing import get_args

import pytest
import torch

from core.errors import Refused
from core.export import formats, require, versions
from core.spec import ExportFormat


def test_a_format_is_a_file_with_a_format_and_a_spec_may_ask_for_each() -> None:
    assert set(formats()) == set(get_args(ExportFormat))


def test_no_two_formats_write_a_file_of_one_name() -> None:
    names = [name for form in formats().values() for name in form.files]
    assert len(names) == len(set(names))


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Refused, match="'pickle'") as refused:
        require(["safetensors", "pickle"])
    assert refused.value.where == "/exports/1"
    assert "onnx_int8" in refused.value.hint


def test_a_format_whose_package_is_not_installed_is_refused_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name in ("onnxruntime", "torchao") else found(name))
    require(["safetensors", "torch_export"])  # these need nothing beside torch
    for name, lacks in (("onnx", "onnxruntime"), ("onnx_int8", "onnxruntime"), ("int8", "torchao")):
        with pytest.raises(Refused, match=f"lacks {lacks}") as refused:
            require([name])
        assert (refused.value.where, "[export]" in refused.value.hint) == ("/exports/0", True)


def test_the_versions_name_what_computes() -> None:
    assert {"retort", "python", "torch", "safetensors", "numpy", "onnxruntime"} <= versions().keys()
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
