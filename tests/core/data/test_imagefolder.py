"""Datasets as zips of image folders: what is read, and how the rest is refused."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.data import DatasetReport, ingest, open_dataset
from core.errors import Refused
from tests.core.data.pictures import folders, grey, pack, png


def bring(tmp_path: Path, members: dict[str, bytes], **request: Any) -> DatasetReport:
    return ingest(pack(tmp_path / "data.zip", members), {"format": "imagefolder", **request}, tmp_path / "out.safetensors")


def values(tmp_path: Path, split: str) -> list[int]:
    """The first pixel of every image."""
    return [int(value) for value in open_dataset(tmp_path / "out.safetensors").split(split).x[:, 0, 0, 0]]


def test_folders_of_splits_become_splits_with_sorted_classes(tmp_path: Path) -> None:
    report = bring(tmp_path, folders(train=3, test=2, classes=("dog", "cat")))
    assert (report.input, report.class_names, report.counts) == ((1, 4, 4), ("cat", "dog"), {"train": 6, "test": 4})
    assert values(tmp_path, "train") == [100, 101, 102, 0, 1, 2]
    assert values(tmp_path, "test") == [150, 151, 50, 51]
    assert open_dataset(tmp_path / "out.safetensors").split("train").y.tolist() == [0, 0, 0, 1, 1, 1]
    assert report.mean[0] == pytest.approx(51 / 255)


def test_without_splits_a_stratified_fifth_becomes_test(tmp_path: Path) -> None:
    report = bring(tmp_path, folders(train=10))
    assert report.per_class == {"train": (8, 8), "test": (2, 2)}
    assert "stratified fifth" in report.notes[0]
    assert sorted(values(tmp_path, "train") + values(tmp_path, "test")) == [*range(10), *range(100, 110)]
    assert all((value >= 100) == bool(y) for value, y in zip(values(tmp_path, "test"), [0, 0, 1, 1], strict=True))


def test_a_folder_around_everything_is_looked_through(tmp_path: Path) -> None:
    inner = folders(train=2, test=1)
    assert bring(tmp_path, {f"my-data/{name}": data for name, data in inner.items()}).counts == {"train": 4, "test": 2}


def test_a_validation_folder_is_kept(tmp_path: Path) -> None:
    members = folders(train=2, test=1) | {"val/cat/0.png": grey(9), "val/dog/0.png": grey(8)}
    assert bring(tmp_path, members).counts == {"train": 4, "validation": 2, "test": 2}


def test_declared_names_order_the_classes(tmp_path: Path) -> None:
    assert bring(tmp_path, folders(train=2, test=1), class_names=["dog", "cat"]).class_names == ("dog", "cat")
    assert values(tmp_path, "train") == [0, 1, 100, 101]
    assert open_dataset(tmp_path / "out.safetensors").split("train").y.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_every_format_is_read_in_colour(tmp_path: Path, form: str) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    suffix = {"PNG": "png", "JPEG": "JPG", "WEBP": "webp"}[form]
    report = bring(tmp_path, {f"{split}/{name}/0.{suffix}": png(red, form) for split in ("train", "test") for name in "ab"})
    assert report.input == (3, 8, 8)
    pixel = open_dataset(tmp_path / "out.safetensors").split("train").x[0, 4, 4].astype(int)
    assert np.abs(pixel - [200, 0, 0]).max() <= 6


def test_grey_beside_colour_becomes_colour_and_is_said(tmp_path: Path) -> None:
    colour = png(np.full((4, 4, 3), 7, np.uint8))
    report = bring(tmp_path, folders(train=2, test=1) | {"train/cat/9.png": colour})
    assert report.input == (3, 4, 4)
    assert report.notes == ("6 of 7 images are grey; all were made RGB.",)


def test_images_of_different_sizes_are_named_and_scaled_on_request(tmp_path: Path) -> None:
    members = folders(train=2, test=1) | {"train/cat/9.png": grey(7, side=6)}
    with pytest.raises(Refused, match=r'"test/cat/0.png" is 4×4 pixels, "train/cat/9.png" 6×6') as refused:
        bring(tmp_path, members)
    assert "size" in refused.value.hint
    assert bring(tmp_path, members, size=[3, 5]).input == (1, 3, 5)


@pytest.mark.parametrize(
    ("request_", "where", "message"),
    [
        ({"classes": 3}, "/classes", "folders for 2 classes, but classes says 3"),
        ({"class_names": ["cat"]}, "/class_names", "class_names has 1 names"),
        ({"class_names": ["cat", "cow"]}, "/class_names", 'no folder for "cow"'),
        ({"size": [0, 5]}, "/size", "out of range"),
        ({"size": [5]}, "/size/1", "required"),
        ({"layout": "NCHW"}, "/layout", "takes no such field"),
        ({"classes": "two"}, "/classes", "integer"),
        ({"format": "tar"}, "/format", "no format 'tar'"),
        ({"format": None}, "/format", "missing"),
    ],
)
def test_a_wrong_request_is_refused_at_its_field(tmp_path: Path, request_: dict[str, Any], where: str, message: str) -> None:
    with pytest.raises(Refused, match=message) as refused:
        bring(tmp_path, folders(train=2, test=1), **request_)
    assert refused.value.where == where


def truncated(data: bytes) -> bytes:
    return data[: len(data) - 20]


def huge(width: int, height: int) -> bytes:
    """A PNG that says it has these sizes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def animated() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def deep() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train/dog/1.png": b"not an image"}, '"train/dog/1.png" is broken'),
        ({"train/dog/1.png": b""}, '"train/dog/1.png" is broken'),
        ({"train/dog/1.png": truncated(grey(3))}, '"train/dog/1.png" is broken'),
        ({"train/dog/1.png": b"GIF89a" + b"\0" * 50}, '"train/dog/1.png" is broken'),
        ({"train/dog/1.png": huge(100_000, 100_000)}, '"train/dog/1.png" is too large'),
        ({"train/dog/1.png": huge(5_000, 5_000)}, "has 5000×5000 pixels"),
        ({"train/dog/1.png": animated()}, "animation"),
        ({"train/dog/1.png": deep()}, "pixel format"),
        ({"train/dog/readme.txt": b"hello"}, "which is no image"),
        ({"train/dog/more.zip": b"PK"}, "which is no image"),
        ({"stray.png": grey(1)}, '"stray.png" does not lie at train/<class>/<image>'),
        ({"other/dog/1.png": grey(1)}, "does not lie at"),
        ({"train/dog/deep/1.png": grey(1)}, "does not lie at"),
        ({"train/cow/1.png": grey(1)}, 'the test split lacks classes that train has: "cow"'),
        ({"test/cow/1.png": grey(1)}, 'the test split has classes that train has not: "cow"'),
        ({"../climb.png": grey(1)}, "leads out of the archive"),
    ],
)
def test_an_archive_that_is_no_dataset_is_refused_by_member(tmp_path: Path, change: dict[str, bytes], message: str) -> None:
    with pytest.raises(Refused, match=message) as refused:
        bring(tmp_path, folders(train=2, test=1) | change)
    assert refused.value.where == "/upload"
    assert [file.name for file in tmp_path.iterdir()] == ["data.zip"]


def test_a_class_with_too_few_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match='"dog" has fewer than 2'):
        bring(tmp_path, {"cat/0.png": grey(1), "cat/1.png": grey(1), "dog/0.png": grey(1)})


@pytest.mark.parametrize(
    "members", [{}, {"test/cat/0.png": grey(1), "test/dog/0.png": grey(1)}, {"cat/0.png": grey(1), "cat/1.png": grey(1)}]
)
def test_an_archive_without_enough_of_anything_is_refused(tmp_path: Path, members: dict[str, bytes]) -> None:
    with pytest.raises(Refused, match=r"no image|no train folder|1 class"):
        bring(tmp_path, members)


@pytest.mark.parametrize(("side", "request_"), [(4000, {}), (1, {"size": [1024, 1024]})], ids=["flat", "scaled"])
def test_images_that_are_a_bomb_only_once_they_are_unpacked_are_refused(tmp_path: Path, side: int, request_: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG", optimize=True)
    members = {f"{name}/{i}.png": buffer.getvalue() for name in ("cat", "dog") for i in range(9 if side > 1 else 200)}
    with pytest.raises(Refused, match="more than can be honest data"):
        bring(tmp_path, members, **request_)
    assert not (tmp_path / "out.safetensors").exists()


def test_the_reason_for_a_broken_image_is_for_people(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r'"cat/0.png" is broken: it is no whole PNG') as refused:
        bring(tmp_path, folders() | {"cat/0.png": b"hello"})
    assert "object at 0x" not in refused.value.reason
