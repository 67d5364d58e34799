"""Named arrays to a dataset: which are samples and which labels, what their shapes mean, and how they pass by in pieces.

The names are x_train, y_train, x_test, y_test, x_validation, y_validation, or just x and y; without any y the set has no labels. Samples
are (N, D), (N, H, W), (N, H, W, C) or (N, C, H, W), of any type of number: uint8 is kept, all else becomes float32. Labels are integers
(N,). Of the samples only a few megabytes are ever in memory.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from core.data.canonical import Writer
from core.data.labels import MAX_CLASSES, Division, check_count, check_unlabelled, divide
from core.data.report import DatasetReport
from core.errors import Refused

MAX_ROWS = 50_000_000
MAX_SAMPLE = 1 << 24
_PIECE = 4 << 20
_PAIRS = {"train": ("x_train", "y_train"), "validation": ("x_validation", "y_validation"), "test": ("x_test", "y_test")}
NAMES = ("x", "y", *(name for pair in _PAIRS.values() for name in pair))
HINT = "the arrays are x_train, y_train, x_test, y_test, or x and y"

Layout = Literal["NHWC", "NCHW"]


class Request(BaseModel):
    """What the uploader says of the arrays. `layout` is asked for only where the shape can be read both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    classes: int | None = Field(None, ge=2, le=MAX_CLASSES)
    class_names: tuple[str, ...] | None = None
    layout: Layout | None = None
    labelled: bool | None = None


class Bytes(Protocol):
    """The bytes of an array, in order."""

    def exactly(self, size: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Array:
    """One array of an upload, known by its header. `open` gives its bytes from the first number on, in C order; `brain` says that they are
    bfloat16, for which NumPy has no type: the upper halves of float32, told as uint16.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    open: Callable[[], AbstractContextManager[Bytes]]
    brain: bool = False

    @property
    def type(self) -> str:
        """The name of its type, for people."""
        return "bfloat16" if self.brain else self.dtype.newbyteorder("=").name

    def pieces(self) -> Iterator[NDArray[Any]]:
        """Its rows, a few megabytes at a time."""
        width = math.prod(self.shape[1:]) * self.dtype.itemsize
        together = max(1, _PIECE // width)
        with self.open() as data:
            for start in range(0, self.shape[0], together):
                count = min(together, self.shape[0] - start)
                rows = np.frombuffer(data.exactly(count * width), self.dtype).reshape(count, *self.shape[1:])
                yield (rows.astype(np.uint32) << 16).view(np.float32) if self.brain else rows


def known(name: str, what: str) -> str:
    """The name, if it is one of `NAMES`; else Refused, with the nearest."""
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        raise Refused("/upload", f'{what} holds "{name}"', hint=(f'do you mean "{near[0]}"? ' if near else "") + HINT)
    return name


def check_shape(name: str, shape: tuple[int, ...]) -> None:
    """Refuse an array that is empty or larger than any honest one, before anything of it is read."""
    if not shape or any(type(size) is not int or size < 1 for size in shape):
        raise Refused("/upload", f'"{name}" is empty: its shape is {tuple(shape)}')
    if shape[0] > MAX_ROWS or math.prod(shape[1:]) > MAX_SAMPLE:
        raise Refused("/upload", f'"{name}" is too large: {shape}; at most {MAX_ROWS:,} samples of {MAX_SAMPLE:,} values')


def convert(arrays: Mapping[str, Array], request: Request, out: Path, heed: Callable[[], None], *, what: str) -> DatasetReport:
    """Bring arrays, by their names, into canonical form at `out`. `what` holds them. Raises Refused, naming array and row."""
    samples, targets = _pairs(arrays, request.labelled, what)
    layout = _layout(samples["train"], request.layout)
    if targets:
        labels = {split: _labels(y) for split, y in targets.items()}
        names = _class_names(labels, targets, request)
    else:
        check_unlabelled(classes=request.classes, class_names=request.class_names)
        labels, names = {split: np.zeros(x.shape[0], np.int64) for split, x in samples.items()}, ()
    division = divide(labels, names)
    first = samples["train"]
    dtype: Literal["uint8", "float32"] = "uint8" if first.dtype == np.uint8 else "float32"
    notes = (
        *division.notes,
        *(() if first.type in ("uint8", "float32") else (f"The samples are {first.type}; they are kept as float32.",)),
    )
    with Writer(out, sample=_stored(first, layout), dtype=dtype, labels=division.labels, class_names=names) as writer:
        for split, array in samples.items():
            at = 0
            for rows in array.pieces():
                heed()
                spread(writer, division, split, at, _canonical(rows, array, layout))
                at += len(rows)
        return writer.finish(notes=notes)


def spread(writer: Writer, division: Division, split: str, at: int, x: NDArray[Any]) -> None:
    """Append samples of a split as it was given, from row `at` on, to the splits that they go to."""
    aside = division.aside[at : at + len(x)] if split == "train" else np.zeros(len(x), np.bool_)
    writer.append(split, x[~aside])
    if aside.any():
        writer.append("test", x[aside])


def _pairs(arrays: Mapping[str, Array], labelled: bool | None, what: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """(samples, labels) by split; no labels for a set without."""
    pairs = {"train": ("x", "y")} if {"x", "y"} & set(arrays) else {
        split: pair for split, pair in _PAIRS.items() if split == "train" or set(pair) & set(arrays)
    }  # fmt: skip
    if labelled is None:
        labelled = any(name.startswith("y") for name in arrays)
    wanted = [name for x, y in pairs.values() for name in ((x, y) if labelled else (x,))]
    missing = [name for name in wanted if name not in arrays]
    odd = [name for name in arrays if name not in wanted and (labelled or name.startswith("x"))]
    if missing or odd:
        fault = f"lacks {', '.join(missing)}" if missing else f"holds {', '.join(odd)} beside x and y"
        raise Refused("/upload", f"{what} {fault}", hint=HINT + ("" if labelled else '; without labels, "labelled" is false'))
    samples = {split: arrays[x] for split, (x, _) in pairs.items()}
    targets = {split: arrays[y] for split, (_, y) in pairs.items()} if labelled else {}
    _check_samples(samples)
    for split, y in targets.items():
        if y.dtype.kind not in "iu" or y.brain:
            raise Refused("/upload", f'"{y.name}" has the dtype {y.type}', hint="labels are integers: y.astype(numpy.int64)")
        if len(y.shape) != 1 and not (len(y.shape) == 2 and y.shape[1] == 1):
            raise Refused("/upload", f'"{y.name}" has the shape {y.shape}', hint="labels are (N,); one-hot labels: y.argmax(1)")
        if y.shape[0] != samples[split].shape[0]:
            raise Refused("/upload", f'"{samples[split].name}" has {samples[split].shape[0]:,} samples, "{y.name}" {y.shape[0]:,} labels')
    return samples, targets


def _check_samples(samples: Mapping[str, Array]) -> None:
    first = samples["train"]
    for x in samples.values():
        if x.dtype.kind not in "biuf" or x.dtype.itemsize > 8:
            raise Refused(
                "/upload", f'"{x.name}" has the dtype {x.type}', hint="samples are numbers: uint8 (0 to 255), float32 and the like"
            )
        if len(x.shape) not in (2, 3, 4):
            raise Refused(
                "/upload",
                f'"{x.name}" has the shape {x.shape}: networks take images and vectors',
                hint="samples are (N, H, W), (N, H, W, C), (N, C, H, W) or (N, D); x.reshape(len(x), -1) makes vectors of anything else",
            )
        if (x.shape[1:], x.type) != (first.shape[1:], first.type):
            raise Refused("/upload", f'"{x.name}" is {x.type} {x.shape[1:]} a sample, "{first.name}" {first.type} {first.shape[1:]}')


def _layout(array: Array, asked: Layout | None) -> Layout:
    shape = array.shape
    if len(shape) != 4 or asked is not None:
        return asked or "NHWC"
    last, first = shape[3] in (1, 3, 4), shape[1] in (1, 3, 4)
    if last == first:
        raise Refused("/layout", f"samples of the shape {shape[1:]} can be read both ways", hint='say "layout": "NHWC" or "NCHW"')
    return "NHWC" if last else "NCHW"


def _stored(array: Array, layout: Layout) -> tuple[int, ...]:
    """The shape of one sample in canonical form: (H, W, C) or (D,)."""
    channels, *rest = sample = list(array.shape[1:])
    if len(sample) == 2:
        return (*sample, 1)
    return (*rest, channels) if len(sample) == 3 and layout == "NCHW" else tuple(sample)


def _canonical(rows: NDArray[Any], array: Array, layout: Layout) -> NDArray[Any]:
    """Samples as they are read in canonical layout and dtype."""
    if rows.ndim == 4 and layout == "NCHW":
        rows = rows.transpose(0, 2, 3, 1)
    if rows.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and the writer refuses that with its row
            rows = rows.astype(np.float32)
    return rows.reshape(len(rows), *_stored(array, layout))


def _labels(array: Array) -> NDArray[np.int64]:
    parts, at = [], 0
    for rows in array.pieces():
        part = rows.reshape(-1)
        wrong = np.flatnonzero((part < 0) | (part >= MAX_CLASSES))
        if wrong.size:
            row = int(wrong[0])
            raise Refused(
                "/upload",
                f"label {part[row]} at row {at + row} of {array.name} is out of range",
                hint=f"labels are 0 to classes - 1, below {MAX_CLASSES:,}",
            )
        parts.append(part.astype(np.int64))
        at += len(part)
    return np.concatenate(parts)


def _class_names(labels: Mapping[str, NDArray[np.int64]], arrays: Mapping[str, Array], request: Request) -> tuple[str, ...]:
    """The names of the classes, once there are as many as the request declares; without names they are called by their numbers."""
    declared = request.classes or (len(request.class_names) if request.class_names else None)
    found = 1 + max(int(y.max()) for y in labels.values())
    for split, y in labels.items():
        wrong = np.flatnonzero(y >= (declared or MAX_CLASSES))
        if wrong.size:
            row = int(wrong[0])
            raise Refused(
                "/classes" if request.classes else "/class_names",
                f"label {y[row]} at row {row} of {arrays[split].name} is out of range for {declared} classes; the labels need {found}",
            )
    check_count(found, "the labels have", classes=request.classes, class_names=request.class_names)
    return request.class_names or tuple(str(label) for label in range(found))
