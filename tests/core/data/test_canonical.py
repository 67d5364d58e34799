"""The canonical form on disk."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from core.artifacts import read_header
from core.data import Batches, open_dataset
from core.data.canonical import Writer, open_canonical
from core.errors import Refused
from core.source import Live

Y = {"train": np.array([0, 1, 1]), "test": np.array([1, 0])}
X = {"train": np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1), "test": np.zeros((2, 2, 2, 1), np.uint8)}


def write(path: Path, dtype: Literal["uint8", "float32"] = "uint8", names: tuple[str, ...] = ("no", "yes")) -> Path:
    with Writer(path, sample=(2, 2, 1), dtype=dtype, labels=Y, class_names=names) as writer:
        for split in ("test", "train"):
            for row in X[split]:
                writer.append(split, row[None].astype(dtype))
        writer.finish()
    return path


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_file_is_aligned_and_the_reference_library_reads_it(tmp_path: Path, dtype: Literal["uint8", "float32"]) -> None:
    path = write(tmp_path / "d.safetensors", dtype)
    header = read_header(path)
    assert header.start % 64 == 0
    assert all(entry.begin % {"I64": 8, "F32": 4, "U8": 1}[entry.dtype] == 0 for entry in header.tensors.values())
    whole = load_file(path)
    assert whole["train.x"].tolist() == X["train"].tolist()
    assert whole["test.y"].tolist() == [1, 0]


def test_what_was_written_is_mapped_and_never_written_to(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path / "d.safetensors"))
    train, test = dataset.split("train"), dataset.split("test")
    assert (train.x.tolist(), train.y.tolist(), train.index.tolist()) == (X["train"].tolist(), [0, 1, 1], [0, 1, 2])
    assert test.index.tolist() == [3, 4]
    assert not train.bank.flags.writeable
    with pytest.raises(KeyError):
        dataset.split("validation")


def test_a_part_of_a_split_and_its_batches_know_where_the_whole_dataset_lies(tmp_path: Path) -> None:
    spans: dict[Literal["uint8", "float32"], tuple[float, float]] = {"uint8": (0.0, 1.0), "float32": (0.0, 11.0)}
    for dtype, span in spans.items():
        rows = open_dataset(write(tmp_path / dtype, dtype)).split("test").only(np.array([1]))
        assert (rows.domain.least, rows.domain.greatest) == span
        assert Live(Batches(rows, 2, seed=0), None).domain == rows.domain


@pytest.mark.parametrize("names", [("a", "b"), ('"' * 200, "é🙂" * 100)])
def test_the_reserved_header_holds_any_report(tmp_path: Path, names: tuple[str, str]) -> None:
    assert open_dataset(write(tmp_path / "d.safetensors", "float32", names)).report.class_names == names


def test_a_writer_that_is_left_by_an_error_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="expected uint8"),
        Writer(tmp_path / "d", sample=(2,), dtype="uint8", labels=Y, class_names=("a", "b")) as writer,
    ):
        writer.append("train", np.zeros((1, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_of_terabytes_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    labels = {"train": np.broadcast_to(np.int64(0), 1 << 30), "test": Y["test"]}
    with pytest.raises(Refused, match="canonical form"):
        Writer(tmp_path / "d", sample=(1024, 1024, 3), dtype="float32", labels=labels, class_names=("a", "b"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train.y": np.array([0, 1, 2])}, "a label of the train split is not in 0 to 1"),
        ({"train.y": np.array([0, -1, 1])}, "a label of the train split is not in 0 to 1"),
        ({"train.y": np.array([0, 1])}, "not those of its report"),
        ({"train.x": X["train"].astype(np.float32)}, "not those of its report"),
        ({"extra": np.zeros(1)}, "not those of its report"),
    ],
)
def test_arrays_that_are_not_those_of_the_report_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "d.safetensors")
    metadata = dict(read_header(path).metadata)
    save_file({**load_file(path), **change}, path, metadata)
    with pytest.raises(Refused, match=message):
        open_dataset(path)


def test_a_file_of_weights_is_no_dataset(tmp_path: Path) -> None:
    save_file({"w": np.zeros(2)}, tmp_path / "w")
    with pytest.raises(Refused, match="no report"):
        open_dataset(tmp_path / "w")


def test_a_set_without_labels_has_samples_only(tmp_path: Path) -> None:
    path = write(tmp_path / "d.safetensors", names=())
    assert sorted(load_file(path)) == ["test.x", "train.x"]
    report, arrays = open_canonical(path)
    assert (report.labelled, report.classes, report.class_names) == (False, 0, ())
    assert report.per_class == {"train": (), "test": ()}
    assert report.counts == {"train": 3, "test": 2}
    assert arrays["train.x"].tolist() == X["train"].tolist()


def test_what_is_omitted_leaves_no_hole_in_any_split(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    labels = {"train": np.array([0, 1, 0, 1]), "validation": np.array([0, 1]), "test": np.array([0, 1, 0])}
    with Writer(path, sample=(1,), dtype="float32", labels=labels, class_names=("a", "b")) as writer:
        writer.append("test", np.array([[1], [2]], np.float32))
        writer.omit("train")
        writer.append("train", np.array([[3], [4], [5]], np.float32))
        writer.omit("test")
        writer.append("validation", np.array([[6], [7]], np.float32))
        report = writer.finish()
    whole = load_file(path)
    assert {name: value.ravel().tolist() for name, value in whole.items()} == {
        "train.x": [3, 4, 5], "train.y": [1, 0, 1], "validation.x": [6, 7], "validation.y": [0, 1], "test.x": [1, 2], "test.y": [0, 1],
    }  # fmt: skip
    assert (report.counts, report.broken) == ({"train": 3, "validation": 2, "test": 2}, 2)
    assert open_canonical(path)[0] == report


def test_equal_rows_are_told_by_split_and_place(tmp_path: Path) -> None:
    labels = {"train": np.array([0, 1, 0, 1]), "validation": np.array([0, 1]), "test": np.array([0, 1])}
    rows = {"train": [1, 2, 1, 1], "validation": [2, 5], "test": [5, 1]}
    with Writer(tmp_path / "d", sample=(1,), dtype="uint8", labels=labels, class_names=("a", "b")) as writer:
        for split, values in rows.items():
            writer.append(split, np.array(values, np.uint8)[:, None])
        found = writer.finish().duplicates
    assert found is not None
    assert found.within == {"train": 2, "validation": 0, "test": 0}
    assert found.across == {"train/validation": 1, "train/test": 1, "validation/test": 1}
    assert found.pairs[:3] == (("train[1]", "validation[0]"), ("validation[1]", "test[0]"), ("train[0]", "test[1]"))
    assert found.pairs[3:] == (("train[0]", "train[2]"), ("train[0]", "train[3]"))
