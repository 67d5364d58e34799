"""One image file to pixels, with suspicion: PNG, JPEG and WEBP of bounded size, one frame, eight bits a channel."""

import io
import struct
import threading
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from core.errors import Refused

MAX_PIXELS = 20_000_000
MAX_BYTES = 64 << 20
MAX_SIDE = 1024
"""The longest side to which images may be scaled."""
_FORMATS = ("PNG", "JPEG", "WEBP")
_GREY = frozenset({"1", "L", "LA"})
_COLOUR = frozenset({"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr"})
_LARGE = 2_000_000
_one_large = threading.Lock()
"""Held while more than `_LARGE` pixels are decoded: however many threads there are, one large image at a time is in memory."""


class Broken(Exception):
    """The bytes are no whole image; the words are for people."""


@dataclass(frozen=True, slots=True)
class Model:
    """An image whose size the others must have."""

    name: str
    height: int
    width: int


def check_size(size: tuple[int, int] | None) -> None:
    """Refuse a (height, width) that images cannot be brought to."""
    if size is not None and not all(1 <= side <= MAX_SIDE for side in size):
        raise Refused("/size", f"the size {list(size)} is out of range", hint=f"height and width, 1 to {MAX_SIDE} pixels each")


def pixels(data: bytes, name: str, size: tuple[int, int] | None, like: Model | None = None) -> NDArray[np.uint8]:
    """The pixels (H, W, C) of an image file, scaled to `size` (height, width) where one is given; C is 1 for grey images, else 3.

    Transparency is dropped. Raises Broken for bytes that cannot be decoded, and Refused, naming the image, for one that is too large, that
    moves, that has more than eight bits a channel, or, where no size is given, another one than `like`. Pillow's warnings are the caller's
    to silence, for all threads at once.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check(image, name, like if size is None else None)
            with _one_large if image.width * image.height > _LARGE else nullcontext():
                plain = image.convert("L" if image.mode in _GREY else "RGB")
                if size is not None and (plain.height, plain.width) != size:
                    plain = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
                array: NDArray[Any] = np.asarray(plain, np.uint8)
            return array.reshape(*array.shape[:2], -1)
    except Image.DecompressionBombError:
        raise Refused("/upload", f'the image "{name}" is too large; at most {MAX_PIXELS:,} pixels are read') from None
    except UnidentifiedImageError as wrong:  # its own words hold an address in memory
        raise Broken("it is no whole PNG, JPEG or WEBP") from wrong
    except (
        OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, MemoryError, struct.error, zlib.error,
    ) as wrong:  # fmt: skip
        raise Broken(str(wrong)) from wrong


def _check(image: Image.Image, name: str, like: Model | None) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Refused("/upload", f'the image "{name}" has {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are read')
    if getattr(image, "n_frames", 1) != 1:
        raise Refused("/upload", f'the image "{name}" is an animation', hint="one frame an image")
    if image.mode not in _GREY | _COLOUR:
        raise Refused("/upload", f'the image "{name}" has the pixel format {image.mode}', hint="8 bits a channel, please")
    if like is not None and (image.height, image.width) != (like.height, like.width):
        sizes = f'"{like.name}" is {like.width}×{like.height} pixels, "{name}" {image.width}×{image.height}'
        raise Refused("/upload", f"the images have different sizes: {sizes}", hint='say "size": [height, width], and all are scaled to it')
