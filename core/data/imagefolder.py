"""Datasets as zip archives of images in folders: train/<class>/*.png and test/<class>/*.png, or <class>/*.png without splits.

PNG, JPEG and WEBP are read. A validation split may be there too (validation/ or val/). Grey images stay one channel where all are
grey; else all become RGB, and transparency is dropped. Every image is read twice, its header first: one image at a time is in memory.
"""

import io
import math
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from core.data.archive import Archive
from core.data.canonical import Writer
from core.data.labels import MAX_CLASSES, aside_for_test, check_count, check_present
from core.data.report import DatasetReport
from core.errors import Refused

MAX_PIXELS = 20_000_000
MAX_IMAGE_BYTES = 64 << 20
MAX_GROWTH = 1000
"""A dataset that takes this many times the bytes of its archive, and more than `_HONEST`, is a bomb: flat images pack without end."""
_HONEST = 256 << 20
_FORMATS = ("PNG", "JPEG", "WEBP")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_SPLITS = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}
_GREY = frozenset({"1", "L", "LA"})
_COLOUR = frozenset({"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr"})


class Request(BaseModel):
    """What the uploader says of the images. `class_names` orders the classes, else they are sorted; `size` is (height, width)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    classes: int | None = Field(None, ge=2, le=MAX_CLASSES)
    class_names: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of the archive: its split and its class, by name."""

    member: zipfile.ZipInfo
    split: str
    label: str


def ingest(path: Path, request: Request, out: Path, heed: Callable[[], None]) -> DatasetReport:
    """Bring a zip of image folders into canonical form at `out`. Raises Refused, naming the member."""
    if request.size is not None and not all(1 <= side <= 1024 for side in request.size):
        raise Refused("/size", f"the size {list(request.size)} is out of range", hint="height and width, 1 to 1024 pixels each")
    with Archive(path) as archive:
        pictures = _pictures(archive)
        names = _class_names(pictures, request)
        number = {name: label for label, name in enumerate(names)}
        labels = {
            split: np.array([number[picture.label] for picture in pictures if picture.split == split], np.int64)
            for split in sorted({picture.split for picture in pictures})
        }
        notes: list[str] = []
        if "test" not in labels:
            check_present(labels, names, least=2)
            aside, note = aside_for_test(labels["train"])
            notes.append(note)
            training = iter(aside.tolist())
            pictures = [Picture(p.member, "test", p.label) if p.split == "train" and next(training) else p for p in pictures]
            labels = {**labels, "train": labels["train"][~aside], "test": labels["train"][aside]}
        check_present(labels, names, least=1)
        (height, width), mode, remark = _survey(archive, pictures, request.size, heed)
        notes.extend(remark)
        sample = (height, width, 1 if mode == "L" else 3)
        unpacked, packed = len(pictures) * math.prod(sample), path.stat().st_size
        if unpacked > _HONEST and unpacked > MAX_GROWTH * packed:
            raise Refused(
                "/upload",
                f"{len(pictures):,} images in {packed:,} bytes would unpack to {unpacked:,} bytes, more than can be honest data",
                hint='smaller images, or a smaller "size"',
            )
        with Writer(out, sample=sample, dtype="uint8", labels=labels, class_names=names, notes=tuple(notes)) as writer:
            for picture in pictures:
                heed()
                writer.append(picture.split, _pixels(archive, picture.member, mode, (height, width)).reshape(1, *sample))
            return writer.finish()


def _pictures(archive: Archive) -> list[Picture]:
    paths = {member.filename: PurePosixPath(member.filename).parts for member in archive.members}
    for name in paths:
        if not name.lower().endswith(_SUFFIXES):
            raise Refused(
                "/upload", f'the archive holds "{name}", which is no image', hint="only .png, .jpg, .jpeg and .webp files belong into it"
            )
    if not paths:
        raise Refused("/upload", "the archive holds no image", hint="train/<class>/*.png and test/<class>/*.png, or <class>/*.png")
    tops = {parts[0] for parts in paths.values()}
    if len(tops) == 1 and not tops & set(_SPLITS) and all(len(parts) > 2 for parts in paths.values()):
        paths = {name: parts[1:] for name, parts in paths.items()}  # the whole folder was zipped, not its contents
        tops = {parts[0] for parts in paths.values()}
    divided = bool(tops & set(_SPLITS))
    depth = 3 if divided else 2
    for name, parts in paths.items():
        if len(parts) != depth or (divided and parts[0] not in _SPLITS):
            form = "train/<class>/<image>" if divided else "<class>/<image>"
            raise Refused(
                "/upload", f'"{name}" does not lie at {form}', hint="train/<class>/*.png and test/<class>/*.png, or <class>/*.png"
            )
    members = {member.filename: member for member in archive.members}
    pictures = [Picture(members[name], _SPLITS[parts[0]] if divided else "train", parts[-2]) for name, parts in sorted(paths.items())]
    if not any(picture.split == "train" for picture in pictures):
        raise Refused("/upload", "the archive has no train folder", hint="train/<class>/*.png and test/<class>/*.png, or <class>/*.png")
    return pictures


def _class_names(pictures: list[Picture], request: Request) -> tuple[str, ...]:
    """The classes in label order; refuses splits that differ and names that are not the declared ones."""
    by_split: dict[str, set[str]] = {}
    for picture in pictures:
        by_split.setdefault(picture.split, set()).add(picture.label)
    found = by_split["train"]
    for split, own in by_split.items():
        if own - found:
            raise Refused("/upload", f"the {split} split has classes that train has not: {_quoted(own - found)}")
        if found - own:
            raise Refused("/upload", f"the {split} split lacks classes that train has: {_quoted(found - own)}")
    check_count(len(found), "the archive has folders for", classes=request.classes, class_names=request.class_names)
    if request.class_names is None:
        return tuple(sorted(found))
    if set(request.class_names) != found:
        raise Refused(
            "/class_names", f"there is no folder for {_quoted(set(request.class_names) - found)}", hint=f"the folders are {_quoted(found)}"
        )
    return request.class_names


def _quoted(names: set[str], most: int = 10) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names)[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _survey(
    archive: Archive, pictures: list[Picture], asked: tuple[int, int] | None, heed: Callable[[], None]
) -> tuple[tuple[int, int], str, list[str]]:
    """((height, width), "L" or "RGB", notes) of all images, from their headers."""
    first: tuple[tuple[int, int], str] | None = None
    modes: Counter[bool] = Counter()
    for picture in pictures:
        heed()
        with _opened(archive, picture.member) as image:
            size = (image.height, image.width)
            modes[image.mode in _GREY] += 1
        first = first or (size, picture.member.filename)
        if asked is None and size != first[0]:
            sizes = f'"{first[1]}" is {first[0][1]}×{first[0][0]} pixels, "{picture.member.filename}" {size[1]}×{size[0]}'
            raise Refused(
                "/upload", f"the images have different sizes: {sizes}", hint='say "size": [height, width], and all are scaled to it'
            )
    assert first is not None
    size = asked or first[0]
    notes = [] if asked is None else [f"Images were scaled to {size[1]}×{size[0]} pixels where they had another size."]
    if modes[True] and modes[False]:
        notes.append(f"{modes[True]} of {len(pictures)} images are grey; all were made RGB.")
    return size, "RGB" if modes[False] else "L", notes


def _pixels(archive: Archive, member: zipfile.ZipInfo, mode: str, size: tuple[int, int]) -> NDArray[Any]:
    with _opened(archive, member) as image:
        plain = image.convert(mode)
        if (plain.height, plain.width) != size:
            plain = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(plain, np.uint8)


@contextmanager
def _opened(archive: Archive, member: zipfile.ZipInfo) -> Iterator[Image.Image]:
    """One image, its header read and found acceptable. Whatever Pillow dislikes while it is open is a Refused that names the member."""
    data = archive.read(member, MAX_IMAGE_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Refused(
                        "/upload", f'the image "{member.filename}" has {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are read'
                    )
                if getattr(image, "n_frames", 1) != 1:
                    raise Refused("/upload", f'the image "{member.filename}" is an animation', hint="one frame an image")
                if image.mode not in _GREY | _COLOUR:
                    raise Refused(
                        "/upload", f'the image "{member.filename}" has the pixel format {image.mode}', hint="8 bits a channel, please"
                    )
                yield image
    except UnidentifiedImageError as wrong:  # its own words hold an address in memory
        raise Refused(
            "/upload", f'the image "{member.filename}" is broken: it is no whole PNG, JPEG or WEBP', hint="replace it or leave it out"
        ) from wrong
    except (
        OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, MemoryError,
        struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
    ) as wrong:  # fmt: skip
        raise Refused("/upload", f'the image "{member.filename}" is broken: {wrong}', hint="replace it or leave it out") from wrong
