"""Datasets as safetensors: the rules of .npz, the types of tensors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.data import DatasetReport, ingest, open_dataset
from core.errors import Refused
from tests.core.data.pictures import arrays

Y = torch.tensor([0, 1, 0, 1])
X = torch.arange(4 * 12, dtype=torch.float32).reshape(4, 2, 2, 3) / 4


def bring(tmp_path: Path, request: Any = None, **named: Tensor) -> DatasetReport:
    save_file({name: tensor.contiguous().clone() for name, tensor in named.items()}, tmp_path / "data")
    return ingest(tmp_path / "data", {"format": "safetensors", **(request or {})}, tmp_path / "out.safetensors")


def test_the_same_arrays_make_the_same_dataset_as_an_npz(tmp_path: Path) -> None:
    tensors = {"x_train": X, "y_train": Y, "x_test": X[:2] + 1, "y_test": Y[:2].to(torch.int32)}
    report = bring(tmp_path, **tensors)
    whole = (tmp_path / "out.safetensors").read_bytes()
    path = arrays(tmp_path / "data.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
    assert ingest(path, {"format": "npz"}, tmp_path / "out.safetensors") == report
    assert (tmp_path / "out.safetensors").read_bytes() == whole


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int16, torch.int8, torch.bool])
def test_every_type_of_number_becomes_float32_and_is_said(tmp_path: Path, dtype: torch.dtype) -> None:
    x = X.to(dtype)
    report = bring(tmp_path, x_train=x, y_train=Y, x_test=x[:2], y_test=Y[:2])
    assert f"The samples are {str(dtype).removeprefix('torch.')}; they are kept as float32." in report.notes
    assert np.array_equal(open_dataset(tmp_path / "out.safetensors").split("train").x, x.to(torch.float32).numpy())


def test_bytes_are_kept(tmp_path: Path) -> None:
    report = bring(tmp_path, x_train=X.to(torch.uint8), y_train=Y, x_test=X[:2].to(torch.uint8), y_test=Y[:2])
    assert (report.dtype, report.range) == ("uint8", (0.0, 1.0))


def test_samples_alone_are_a_set_without_labels(tmp_path: Path) -> None:
    report = bring(tmp_path, x=torch.arange(40.0).reshape(10, 4))
    assert (report.labelled, report.input, report.counts) == (False, (4,), {"train": 8, "test": 2})
    report = bring(tmp_path, {"labelled": False}, x_train=X, y_train=Y, x_test=X[:2])
    assert (report.labelled, report.counts) == (False, {"train": 4, "test": 2})


@pytest.mark.parametrize(
    ("named", "request_", "message"),
    [
        ({"x": X, "labels": Y}, {}, 'holds "labels"'),
        ({"x_train": X, "y_train": Y, "x_test": X}, {}, "lacks y_test"),
        ({"x": X}, {"labelled": True}, "lacks y"),
        ({"x": X[:, None, None], "y": Y}, {}, "networks take images and vectors"),
        ({"x": X.flatten()[:4], "y": Y}, {}, "networks take images and vectors"),
        ({"x": X, "y": Y.to(torch.bfloat16)}, {}, '"y" has the dtype bfloat16'),
        ({"x": X / 0, "y": Y}, {}, "not finite"),
        ({"x": X[:0], "y": Y[:0]}, {}, "empty"),
    ],
)
def test_tensors_that_are_no_dataset_are_refused_by_name(
    tmp_path: Path, named: dict[str, Tensor], request_: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refused, match=message):
        bring(tmp_path, request_, **named)
    assert [file.name for file in tmp_path.iterdir()] == ["data"]


def test_a_truncated_file_is_refused_by_its_header(tmp_path: Path) -> None:
    save_file({"x": X, "y": Y}, tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-8])
    with pytest.raises(Refused, match="truncated"):
        ingest(tmp_path / "cut", {"format": "safetensors"}, tmp_path / "out.safetensors")


def test_an_npz_by_the_wrong_name_is_told_its_format(tmp_path: Path) -> None:
    path = arrays(tmp_path / "data.npz", x=X.numpy(), y=Y.numpy())
    with pytest.raises(Refused, match="zip archive") as refused:
        ingest(path, {"format": "safetensors"}, tmp_path / "out.safetensors")
    assert "npz" in refused.value.hint
