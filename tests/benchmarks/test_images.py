"""Archives of images in canonical form."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.images import canonical
from core.data import open_dataset


def pack(path: Path, images: dict[str, int]) -> Path:
    """A .tar.xz of flat grey 2x2 pictures, by name."""
    with tarfile.open(path, "w:xz") as archive:
        for name, value in images.items():
            stream = io.BytesIO()
            Image.fromarray(np.full((2, 2), value, np.uint8)).save(stream, "PNG")
            member = tarfile.TarInfo(name)
            member.size = stream.tell()
            archive.addfile(member, io.BytesIO(stream.getvalue()))
    return path


def test_a_tar_of_folders_becomes_a_dataset_in_the_order_of_its_names(tmp_path: Path) -> None:
    images = {"set/test/b/0.png": 9, "set/train/b/1.png": 4, "set/train/a/1.png": 2, "set/train/b/0.png": 3, "set/train/a/0.png": 1}
    out, report = canonical(pack(tmp_path / "set.tar.xz", {**images, "set/test/a/0.png": 8}), tmp_path / "data")
    dataset = open_dataset(out)
    assert report.class_names == ("a", "b")
    assert report.input == (1, 2, 2)
    for split, values, labels in (("train", [1, 2, 3, 4], [0, 0, 1, 1]), ("test", [8, 9], [0, 1])):
        rows = dataset.split(split)
        assert rows.x[:, 0, 0, 0].tolist() == values
        assert rows.y.tolist() == labels
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [out.name]


def test_another_file_of_the_same_name_is_another_dataset(tmp_path: Path) -> None:
    images = {f"set/{split}/{label}/0.png": value for value, (split, label) in enumerate((s, c) for s in ("train", "test") for c in "ab")}
    first, _ = canonical(pack(tmp_path / "set.tar.xz", images), tmp_path / "data")
    second, _ = canonical(pack(tmp_path / "set.tar.xz", {**images, "set/train/a/1.png": 7}), tmp_path / "data")
    assert first != second
    assert canonical(first, tmp_path / "copy")[1] == open_dataset(first).report


def test_an_archive_without_the_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images under"):
        canonical(pack(tmp_path / "set.tar.xz", {"a/0.png": 1}), tmp_path / "data")
