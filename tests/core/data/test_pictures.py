"""Many images in one pass: which are left out, and that nothing depends on the threads."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.data import DatasetReport, ingest, open_dataset
from core.errors import Refused
from tests.core.data.pictures import folders, grey, pack, png


def bring(tmp_path: Path, members: Mapping[str, bytes], **request: Any) -> DatasetReport:
    return ingest(pack(tmp_path / "data.zip", members), {"format": "imagefolder", **request}, tmp_path / "out.safetensors")


def hundreds(**more: bytes) -> dict[str, bytes]:
    """200 training and 40 test images of two classes; image i of a class has the value i."""
    members = {f"train/{name}/{i:03}.png": grey(i) for name in ("cat", "dog") for i in range(100)}
    return members | {f"test/{name}/{i:03}.png": grey(i) for name in ("cat", "dog") for i in range(20)} | more


def values(tmp_path: Path, split: str) -> list[tuple[int, int]]:
    """(first pixel, label) of every sample."""
    rows = open_dataset(tmp_path / "out.safetensors").split(split)
    return list(zip(rows.x[:, 0, 0, 0].tolist(), rows.y.tolist(), strict=True))


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts the number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_one_broken_image_in_a_hundred_is_left_out_and_named(tmp_path: Path) -> None:
    members = hundreds() | {"test/cat/000.png": b"no image", "train/dog/007.png": grey(7)[:-20]}
    report = bring(tmp_path, members)
    assert report.counts == {"train": 199, "test": 39}
    assert report.per_class == {"train": (100, 99), "test": (19, 20)}
    assert report.broken == 2
    assert [file.name for file in report.first_broken] == ["test/cat/000.png", "train/dog/007.png"]
    assert report.first_broken[0].reason == "it is no whole PNG, JPEG or WEBP"
    assert "2 of 240 images are broken and were left out." in report.notes
    assert values(tmp_path, "train") == [(i, 0) for i in range(100)] + [(i, 1) for i in range(100) if i != 7]
    assert values(tmp_path, "test") == [(i, 0) for i in range(1, 20)] + [(i, 1) for i in range(20)]
    assert open_dataset(tmp_path / "out.safetensors").report == report
    rest = [i / 255 for i in range(100)] * 2
    rest.remove(7 / 255)
    assert report.mean[0] == pytest.approx(np.mean(rest))


def test_more_than_one_in_a_hundred_are_refused(tmp_path: Path) -> None:
    broken = {f"train/dog/{i:03}.png": b"no image" for i in (1, 2, 3)}
    with pytest.raises(Refused, match=r'"train/dog/001.png" is broken: .*; with it more than 2 of 240 images are'):
        bring(tmp_path, hundreds() | broken)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_class_of_broken_images_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match='every image of the class "owl" in the test split is broken'):
        bring(tmp_path, hundreds() | {"train/owl/0.png": grey(1), "test/owl/0.png": b"no image"})


def test_an_image_beyond_the_limits_is_refused_however_many_are_sound(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="pixel format"):
        bring(tmp_path, hundreds() | {"train/dog/007.png": png(np.full((4, 4), 40_000, np.uint16))})


def test_the_file_is_the_same_for_any_number_of_threads(tmp_path: Path, threads: None) -> None:
    files = []
    for many in (1, 3):
        torch.set_num_threads(many)
        bring(tmp_path, hundreds() | {"train/dog/007.png": b"no image"})
        files.append((tmp_path / "out.safetensors").read_bytes())
    assert files[0] == files[1]


def test_the_first_image_in_colour_makes_colour_of_the_grey_ones_before_it(tmp_path: Path) -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 9
    report = bring(tmp_path, hundreds() | {"train/dog/099.png": png(red)})
    assert report.input == (3, 4, 4)
    x = open_dataset(tmp_path / "out.safetensors").split("train").x
    assert x[5, 0, 0].tolist() == [5, 5, 5]
    assert x[199, 0, 0].tolist() == [9, 0, 0]
    assert "239 of 240 images are grey; all were made RGB." in report.notes


def test_equal_images_are_counted_and_named_those_of_test_in_train_with_a_warning(tmp_path: Path) -> None:
    members = {f"{name}/{i}.png": grey(i + 20 * (name == "b")) for name in "ab" for i in range(5)}
    members = {f"train/{name}": data for name, data in members.items()}
    members |= {"test/a/0.png": grey(3), "test/b/0.png": grey(99), "train/b/9.png": grey(20)}
    report = bring(tmp_path, members)
    assert report.duplicates is not None
    assert report.duplicates.within == {"train": 1, "test": 0}
    assert report.duplicates.across == {"train/test": 1}
    assert report.duplicates.pairs == (("train/a/3.png", "test/a/0.png"), ("train/b/0.png", "train/b/9.png"))
    assert report.notes == ("1 of 2 samples of the test split are in the train split too: figures on them flatter the student.",)


@pytest.mark.parametrize(
    ("members", "request_"),
    [
        ({f"{i:02}.png": grey(i) for i in range(10)}, {}),
        ({f"train/{i:02}.png": grey(i) for i in range(8)} | {f"test/{i}.png": grey(8 + i) for i in range(2)}, {}),
        (folders(train=5), {"labelled": False}),
        ({f"photos/{i:02}.png": grey(i) for i in range(10)}, {"labelled": False}),
    ],
)
def test_images_without_classes_are_a_set_without_labels(tmp_path: Path, members: dict[str, bytes], request_: dict[str, Any]) -> None:
    report = bring(tmp_path, members, **request_)
    assert (report.labelled, report.classes, report.counts) == (False, 0, {"train": 8, "test": 2})
    with pytest.raises(Refused, match="has no labels") as refused:
        bring(tmp_path, members, **{**request_, "classes": 2})
    assert refused.value.where == "/classes"
