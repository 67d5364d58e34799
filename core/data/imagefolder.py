"""Datasets as zip archives of images in folders: train/<class>/*.png and test/<class>/*.png, or <class>/*.png without splits.

PNG, JPEG and WEBP are read. A validation split may be there too (validation/ or val/). Images without folders of classes, in train/ and
test/ or at the top, are a set without labels.
"""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from core.data.archive import Archive
from core.data.image import MAX_BYTES, check_size
from core.data.labels import MAX_CLASSES, check_count, check_unlabelled, divide
from core.data.pictures import convert
from core.data.report import DatasetReport
from core.errors import Refused

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_SPLITS = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}
_LAYOUT = "train/<class>/*.png and test/<class>/*.png, or <class>/*.png"


class Request(BaseModel):
    """What the uploader says of the images. `class_names` orders the classes, else they are sorted; `size` is (height, width)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    classes: int | None = Field(None, ge=2, le=MAX_CLASSES)
    class_names: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    labelled: bool | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of the archive: its split and its class, by name."""

    member: zipfile.ZipInfo
    split: str
    label: str


class Folders:
    """The images of an archive, as an album."""

    def __init__(self, archive: Archive, pictures: Sequence[Picture]) -> None:
        self._archive, self._members = archive, [picture.member for picture in pictures]
        self.splits = [picture.split for picture in pictures]

    def name(self, i: int) -> str:
        return self._members[i].filename

    def read(self) -> Iterator[bytes]:
        return (self._archive.read(member, MAX_BYTES) for member in self._members)


def ingest(path: Path, request: Request, out: Path, heed: Callable[[], None]) -> DatasetReport:
    """Bring a zip of image folders into canonical form at `out`. Raises Refused, naming the member."""
    check_size(request.size)
    with Archive(path) as archive:
        pictures, labelled = _pictures(archive, request.labelled)
        if not labelled:
            check_unlabelled(classes=request.classes, class_names=request.class_names)
        names = _class_names(pictures, request) if labelled else ()
        number = {name: label for label, name in enumerate(names)}
        labels = {
            split: np.array([number.get(picture.label, 0) for picture in pictures if picture.split == split], np.int64)
            for split in sorted({picture.split for picture in pictures})
        }
        division = divide(labels, names)
        if division.aside.any():
            aside = iter(division.aside.tolist())
            pictures = [replace(picture, split="test") if picture.split == "train" and next(aside) else picture for picture in pictures]
        album = Folders(archive, pictures)
        return convert(album, division, out, heed, class_names=names, size=request.size, packed=path.stat().st_size)


def _pictures(archive: Archive, labelled: bool | None) -> tuple[list[Picture], bool]:
    """The images in the order of their names, and whether their folders are classes: `labelled` where that was said."""
    paths = {member.filename: PurePosixPath(member.filename).parts for member in archive.members}
    for name in paths:
        if not name.lower().endswith(_SUFFIXES):
            raise Refused(
                "/upload", f'the archive holds "{name}", which is no image', hint="only .png, .jpg, .jpeg and .webp files belong into it"
            )
    if not paths:
        raise Refused("/upload", "the archive holds no image", hint=_LAYOUT)
    tops = {parts[0] for parts in paths.values()}
    if len(tops) == 1 and not tops & set(_SPLITS) and all(len(parts) > 2 for parts in paths.values()):
        paths = {name: parts[1:] for name, parts in paths.items()}  # the whole folder was zipped, not its contents
        tops = {parts[0] for parts in paths.values()}
    divided = bool(tops & set(_SPLITS))
    depth = 3 if divided else 2
    if labelled is None:
        labelled = not all(len(parts) == depth - 1 and (not divided or parts[0] in _SPLITS) for parts in paths.values())
    for name, parts in paths.items():
        if (len(parts) != depth and labelled) or (divided and parts[0] not in _SPLITS):
            form = "train/<class>/<image>" if divided else "<class>/<image>"
            raise Refused("/upload", f'"{name}" does not lie at {form}', hint=_LAYOUT)
    members = {member.filename: member for member in archive.members}
    pictures = [
        Picture(members[name], _SPLITS[parts[0]] if divided else "train", parts[-2] if labelled else "")
        for name, parts in sorted(paths.items())
    ]
    if not any(picture.split == "train" for picture in pictures):
        raise Refused("/upload", "the archive has no train folder", hint=_LAYOUT)
    return pictures, labelled


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
