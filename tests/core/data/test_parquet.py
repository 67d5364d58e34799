"""Datasets as Parquet: the image layout of Hugging Face, and how the rest is refused."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.data import DatasetReport, ingest, open_dataset
from core.errors import Refused
from tests.core.data.pictures import grey, pack, png


def table(labels: Sequence[Any] | None = (0, 1) * 5, *, names: Sequence[str] | None = None, first: int = 0, **columns: Any) -> pa.Table:
    """A table as the datasets library writes it: image i is a grey square of the value `first` + i."""
    count = 10 if labels is None else len(labels)
    images = [{"bytes": grey(first + i), "path": f"{i}.png"} for i in range(count)]
    made = {"image": images, **({} if labels is None else {"label": list(labels)}), **columns}
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if names is not None:
        features["label"] = {"_type": "ClassLabel", "names": list(names)}
    return pa.table(made).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def written(path: Path, made: pa.Table, **options: Any) -> bytes:
    pq.write_table(made, path, **options)
    data = path.read_bytes()
    path.unlink()
    return data


def bring(tmp_path: Path, upload: bytes | pa.Table | Mapping[str, pa.Table], **request: Any) -> DatasetReport:
    """Read a file, a table or a zip of tables."""
    path = tmp_path / "data"
    if isinstance(upload, Mapping):
        pack(path, {name: written(tmp_path / "part", made) for name, made in upload.items()})
    else:
        path.write_bytes(upload if isinstance(upload, bytes) else written(tmp_path / "part", upload))
    return ingest(path, {"format": "parquet", **request}, tmp_path / "out.safetensors")


def values(tmp_path: Path, split: str) -> list[tuple[int, int]]:
    """(first pixel, label) of every sample."""
    rows = open_dataset(tmp_path / "out.safetensors").split(split)
    return list(zip(rows.x[:, 0, 0, 0].tolist(), rows.y.tolist(), strict=True))


def test_one_file_becomes_a_dataset_with_the_names_of_its_classes(tmp_path: Path) -> None:
    report = bring(tmp_path, table(names=("cat", "dog")))
    assert (report.input, report.class_names, report.counts) == ((1, 4, 4), ("cat", "dog"), {"train": 8, "test": 2})
    assert sorted(values(tmp_path, "train") + values(tmp_path, "test")) == [(i, i % 2) for i in range(10)]


def test_small_row_groups_and_dictionaries_change_nothing(tmp_path: Path) -> None:
    made = table(("b", "a", "b", "a"))
    made = made.set_column(1, "label", made.column("label").dictionary_encode())
    plain = bring(tmp_path, made)
    whole = (tmp_path / "out.safetensors").read_bytes()
    assert bring(tmp_path, written(tmp_path / "part", made, row_group_size=1, compression="zstd")) == plain
    assert (tmp_path / "out.safetensors").read_bytes() == whole
    assert plain.class_names == ("a", "b")


def test_a_zip_of_files_is_divided_by_their_names(tmp_path: Path) -> None:
    files = {
        "data/train-00001-of-00002.parquet": table(first=10),
        "data/train-00000-of-00002.parquet": table(),
        "data/test-00000-of-00001.parquet": table((0, 1), first=50),
        "validation/0000.parquet": table((1, 0), first=60),
    }
    assert bring(tmp_path, files).counts == {"train": 20, "validation": 2, "test": 2}
    assert values(tmp_path, "train") == [(i, i % 2) for i in range(20)]
    assert values(tmp_path, "test") == [(50, 0), (51, 1)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data", "out.safetensors"]


def test_a_plain_column_of_bytes_and_another_label_are_read(tmp_path: Path) -> None:
    made = pa.table(
        {"img": [grey(i) for i in range(10)], "fine_label": [i % 5 for i in range(10)], "coarse_label": [i % 2 for i in range(10)]}
    )
    assert bring(tmp_path, made, label="fine_label").classes == 5
    with pytest.raises(Refused, match='no column "label"') as refused:
        bring(tmp_path, made)
    assert (refused.value.where, "fine_label" in refused.value.hint) == ("/label", True)
    assert not bring(tmp_path, made, labelled=False).labelled


def test_images_alone_are_a_set_without_labels(tmp_path: Path) -> None:
    report = bring(tmp_path, table(None))
    assert (report.labelled, report.classes, report.counts) == (False, 0, {"train": 8, "test": 2})


def test_a_broken_image_is_named_by_its_row(tmp_path: Path) -> None:
    made = table()
    images = made.column("image").to_pylist()
    images[3] = {"bytes": b"none", "path": None}
    with pytest.raises(Refused, match=r'"the file row 3" is broken'):
        bring(tmp_path, made.set_column(0, "image", pa.array(images)))


@pytest.mark.parametrize(
    ("labels", "request_", "where", "message"),
    [
        ((0, 1, -1, 0), {}, "/upload", "row 2: the label is '-1'"),
        ((0, 1, None, 0), {}, "/upload", "row 2: the label is 'None'"),
        ((0.5, 1.0), {}, "/upload", "row 0: the label is '0.5'"),
        ((0, 1, 3, 0, 1, 3), {}, "/upload", '"2" has fewer'),
        (((0, 1), (1, 0)), {}, "/upload", 'the column "label" holds no plain values'),
        ((0, 1) * 3, {"classes": 3}, "/classes", "have 2 classes"),
        (("a", "b") * 3, {"class_names": ["a", "c"]}, "/class_names", '"b" is not among them'),
        ((0, 1), {"label": "lable"}, "/label", 'no column "lable"'),
        ((0, 1), {"label": "label", "labelled": False}, "/label", "false"),
    ],
)
def test_labels_that_are_none_are_refused(
    tmp_path: Path, labels: Sequence[Any], request_: dict[str, Any], where: str, message: str
) -> None:
    with pytest.raises(Refused, match=message) as refused:
        bring(tmp_path, table(labels), **request_)
    assert refused.value.where == where


def test_labels_beyond_the_names_of_the_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="have 3 classes, but class_names has 2"):
        bring(tmp_path, table((0, 1, 2) * 2, names=("a", "b")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "no whole Parquet"),
        (lambda data: data[:-30], "no whole Parquet"),
        (lambda data: data[:-8] + struct.pack("<I", 1 << 30) + b"PAR1", "no whole Parquet"),
        (lambda data: data[:-8] + struct.pack("<I", 5) + b"PAR1", "damaged"),
        (lambda data: data[:20] + b"\xff" * 400 + data[420:], "damaged|broken"),
        (lambda data: png(np.zeros((4, 4), np.uint8)), "no whole Parquet"),
    ],
)
def test_a_file_that_is_damaged_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(Refused, match=message):
        bring(tmp_path, change(written(tmp_path / "part", table(), compression="snappy")))
    assert [file.name for file in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("notes.txt", "no Parquet file"), ("part-0.parquet", "tells no split"), ("../train-0.parquet", "out of the archive")],
)
def test_a_zip_of_other_files_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        bring(tmp_path, {"train-0.parquet": table(), name: table()})


def test_a_row_group_that_unpacks_to_far_more_is_refused_unread(tmp_path: Path) -> None:
    images = pa.array([bytes(64 << 20), bytes(64 << 20)], pa.binary())
    bomb = written(tmp_path / "part", pa.table({"image": images, "label": [0, 1]}), compression="zstd", use_dictionary=False)
    assert len(bomb) < 1 << 20
    with pytest.raises(Refused, match="would unpack from"):
        bring(tmp_path, bomb)


def test_a_table_without_images_is_told_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no column of images; its columns are text, label"):
        bring(tmp_path, pa.table({"text": ["a", "b"], "label": [0, 1]}))
    with pytest.raises(Refused, match="no column of images"):
        bring(tmp_path, pa.table({"image": [[b"a"], [b"b"]], "label": [0, 1]}))
