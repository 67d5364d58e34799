"""The contact sheet of a dataset: the right samples in the right rows."""

from pathlib import Path

import numpy as np
from PIL import Image

from core.data import ingest
from core.data.preview import SAMPLES, write_preview
from tests.core.data.pictures import arrays, folders, grey, pack

LEFT, TOP, STEP, HALF = 132, 4, 60, 28


def pixel(sheet: Path, row: int, column: int, left: int = LEFT) -> tuple[int, ...]:
    """The colour in the middle of a thumb."""
    with Image.open(sheet) as image:
        found = image.convert("RGB").getpixel((left + column * STEP + HALF, TOP + row * STEP + HALF))
    assert isinstance(found, tuple)
    return found


def test_each_class_has_its_row_of_samples_beside_its_name(tmp_path: Path) -> None:
    ingest(pack(tmp_path / "zip", folders(train=20, test=1)), {"format": "imagefolder"}, tmp_path / "dataset")
    sheet = tmp_path / "sheet.png"
    assert write_preview(tmp_path / "dataset", sheet)
    assert [pixel(sheet, 0, column) for column in (0, SAMPLES - 1)] == [(0,) * 3, (9,) * 3]
    assert [pixel(sheet, 1, column) for column in (0, SAMPLES - 1)] == [(100,) * 3, (109,) * 3]
    with Image.open(sheet) as image:
        name = np.asarray(image.convert("L"))[TOP : TOP + 56, : LEFT - 4]
    assert name.min() < 100
    assert name[:, -8:].min() == 255


def test_of_many_classes_ten_are_shown(tmp_path: Path) -> None:
    x = np.arange(25, dtype=np.float32).repeat(2)[:, None, None] * np.ones((1, 3, 5), np.float32)
    ingest(arrays(tmp_path / "x.npz", x=x, y=np.arange(25).repeat(2)), {"format": "npz"}, tmp_path / "dataset")
    sheet = tmp_path / "sheet.png"
    assert write_preview(tmp_path / "dataset", sheet)
    with Image.open(sheet) as image:
        assert image.height == TOP + 10 * STEP
    assert [pixel(sheet, row, 0) for row in (0, 9)] == [(0,) * 3, (255,) * 3]  # the range of the data, from black to white


def test_a_set_without_labels_fills_the_sheet(tmp_path: Path) -> None:
    members = {f"train/{i:03}.png": grey(i) for i in range(200)} | {"test/0.png": grey(1)}
    ingest(pack(tmp_path / "zip", members), {"format": "imagefolder"}, tmp_path / "dataset")
    sheet = tmp_path / "sheet.png"
    assert write_preview(tmp_path / "dataset", sheet)
    assert pixel(sheet, 0, 0, left=TOP) == (0,) * 3
    assert pixel(sheet, 9, 9, left=TOP) == (199,) * 3


def test_vectors_are_no_pictures(tmp_path: Path) -> None:
    x = np.eye(4, dtype=np.float32)
    ingest(arrays(tmp_path / "x.npz", x=x, y=np.array([0, 1, 0, 1])), {"format": "npz"}, tmp_path / "dataset")
    assert not write_preview(tmp_path / "dataset", tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
