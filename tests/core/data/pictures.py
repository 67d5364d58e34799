"""Small datasets for tests, as the files that people upload."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def png(pixels: NDArray[np.uint8], form: str = "PNG") -> bytes:
    """The bytes of an image, (H, W) grey or (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def grey(value: int, side: int = 4) -> bytes:
    """A grey square of one value."""
    return png(np.full((side, side), value, np.uint8))


def pack(path: Path, members: Mapping[str, bytes]) -> Path:
    """A deflated zip of these members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def folders(*, train: int = 5, test: int = 0, classes: tuple[str, ...] = ("cat", "dog")) -> dict[str, bytes]:
    """Members of an image folder whose pixel value says class and number: 100 × class + number."""
    members = {}
    for label, name in enumerate(classes):
        for split, count in (("train", train), ("test", test)):
            for i in range(count):
                members[f"{split}/{name}/{i}.png" if test else f"{name}/{i}.png"] = grey(100 * label + i + (50 if split == "test" else 0))
    return members


def arrays(path: Path, **named: NDArray[Any]) -> Path:
    """An .npz of these arrays."""
    np.savez_compressed(path, allow_pickle=True, **named)
    return path.with_suffix(".npz") if path.suffix != ".npz" else path
