"""Datasets as .npz archives of NumPy arrays: x_train, y_train, x_test, y_test, or just x and y.

Samples are (N, H, W), (N, H, W, C), (N, C, H, W) or (N, D), uint8 or float32 or float64 (kept as float32); labels are integers (N,).
Arrays pass by in pieces: of the samples, only a few megabytes are ever in memory.
"""

import io
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from core.data.archive import Archive, Stream
from core.data.canonical import Writer
from core.data.labels import MAX_CLASSES, check_count, check_present, divide
from core.data.report import DatasetReport
from core.errors import Refused

MAX_ROWS = 50_000_000
MAX_SAMPLE = 1 << 24
_PIECE = 4 << 20
_PAIRS = {"train": ("x_train", "y_train"), "validation": ("x_validation", "y_validation"), "test": ("x_test", "y_test")}
_NAMES = ("x", "y", *(name for pair in _PAIRS.values() for name in pair))


class Request(BaseModel):
    """What the uploader says of the arrays. `layout` is asked for only where the shape can be read both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    classes: int | None = Field(None, ge=2, le=MAX_CLASSES)
    class_names: tuple[str, ...] | None = None
    layout: Literal["NHWC", "NCHW"] | None = None


@dataclass(frozen=True, slots=True)
class Array:
    """One .npy member, known by its header; `offset` is where its data begins, in unpacked bytes."""

    name: str
    member: zipfile.ZipInfo
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


def ingest(path: Path, request: Request, out: Path, heed: Callable[[], None]) -> DatasetReport:
    """Bring an .npz into canonical form at `out`. Raises Refused, naming array and row."""
    with Archive(path, max_members=32) as archive:
        pairs = _pairs(_headers(archive))
        samples = {split: x for split, (x, _) in pairs.items()}
        layout = _layout(samples, request.layout)
        labels = {split: _labels(archive, x, y) for split, (x, y) in pairs.items()}
        _check_labels(labels, {split: y.name for split, (_, y) in pairs.items()}, request)
        names = request.class_names or tuple(str(label) for label in range(1 + max(int(y.max()) for y in labels.values())))
        notes: list[str] = []
        aside = np.zeros(len(labels["train"]), np.bool_)
        if "test" not in labels:
            check_present(labels, names, least=2)
            division = divide(labels, names)
            aside, labels = division.aside, division.labels
            notes.extend(division.notes)
        check_present(labels, names, least=1)
        if samples["train"].dtype.itemsize == 8:
            notes.append("The samples are float64; they are kept as float32.")
        dtype: Literal["uint8", "float32"] = "uint8" if samples["train"].dtype == np.uint8 else "float32"
        with Writer(out, sample=_stored(samples["train"], layout), dtype=dtype, labels=labels, class_names=names) as writer:
            for split, array in samples.items():
                at = 0
                for piece in _pieces(archive, array, layout):
                    heed()
                    mask = aside[at : at + len(piece)] if split == "train" else np.zeros(len(piece), np.bool_)
                    writer.append(split, piece[~mask])
                    if mask.any():
                        writer.append("test", piece[mask])
                    at += len(piece)
            return writer.finish(notes=tuple(notes))


def _headers(archive: Archive) -> dict[str, Array]:
    arrays = {}
    for member in archive.members:
        name = member.filename.removesuffix(".npy")
        if name not in _NAMES or not member.filename.endswith(".npy"):
            near = get_close_matches(name, _NAMES, n=1)
            raise Refused(
                "/upload",
                f'the .npz holds "{member.filename}"',
                hint=(f'do you mean "{near[0]}"? ' if near else "") + "an .npz holds x_train, y_train, x_test, y_test, or x and y",
            )
        with archive.stream(member) as stream:
            arrays[name] = _header(name, member, stream)
    return arrays


def _header(name: str, member: zipfile.ZipInfo, stream: Stream) -> Array:
    """Parse the header of a .npy member, itself of bounded length, and check it against the bytes that follow."""
    start = stream.exactly(8)
    if start[:6] != b"\x93NUMPY" or start[6] not in (1, 2, 3):
        raise Refused("/upload", f'"{name}" is not a NumPy array', hint="write the file with numpy.savez")
    width = 2 if start[6] == 1 else 4
    raw_length = stream.exactly(width)
    length = int.from_bytes(raw_length, "little")
    if length > 1 << 16:
        raise Refused("/upload", f'the header of "{name}" would have {length:,} bytes')
    raw = io.BytesIO(raw_length + stream.exactly(length))
    try:
        shape, fortran, dtype = npy.read_array_header_1_0(raw) if start[6] == 1 else npy.read_array_header_2_0(raw)
    except (ValueError, TypeError, SyntaxError, LookupError, RecursionError, MemoryError, OverflowError, TokenError, Warning) as wrong:
        raise Refused("/upload", f'the header of "{name}" is damaged', hint="write the file with numpy.savez") from wrong
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise Refused(
            "/upload", f'"{name}" holds Python objects or records, not numbers', hint="pickled objects are never opened; save plain arrays"
        )
    if not shape or any(type(size) is not int or size < 1 for size in shape):
        raise Refused("/upload", f'"{name}" is empty: its shape is {tuple(shape)}')
    if fortran and len(shape) > 1:
        raise Refused("/upload", f'"{name}" is stored column by column', hint="save numpy.ascontiguousarray of it")
    offset = 8 + width + length
    if math.prod(shape) * dtype.itemsize != member.file_size - offset:
        raise Refused(
            "/upload",
            f'"{name}" should have {math.prod(shape) * dtype.itemsize:,} bytes for its shape {shape}, {member.file_size - offset:,} follow',
        )
    if shape[0] > MAX_ROWS or math.prod(shape[1:]) > MAX_SAMPLE:
        raise Refused("/upload", f'"{name}" is too large: {shape}; at most {MAX_ROWS:,} samples of {MAX_SAMPLE:,} values')
    return Array(name, member, dtype, shape, offset)


def _pairs(arrays: dict[str, Array]) -> dict[str, tuple[Array, Array]]:
    expected = {"train": ("x", "y")} if "x" in arrays or "y" in arrays else {
        split: pair for split, pair in _PAIRS.items() if split == "train" or set(pair) & set(arrays)
    }  # fmt: skip
    wanted = [name for pair in expected.values() for name in pair]
    missing, odd = [name for name in wanted if name not in arrays], [name for name in arrays if name not in wanted]
    if missing or odd:
        fault = f"lacks {', '.join(missing)}" if missing else f"holds {', '.join(odd)} beside x and y"
        raise Refused("/upload", f"the .npz {fault}", hint="it holds x_train, y_train, x_test, y_test, or x and y")
    pairs = {split: (arrays[x], arrays[y]) for split, (x, y) in expected.items()}
    first, _ = pairs["train"]
    for x, y in pairs.values():
        if x.dtype.newbyteorder("=") not in (np.uint8, np.float32, np.float64):
            raise Refused("/upload", f'"{x.name}" has the dtype {x.dtype}', hint="samples are uint8 (0 to 255), float32 or float64")
        if len(x.shape) not in (2, 3, 4):
            raise Refused(
                "/upload", f'"{x.name}" has the shape {x.shape}', hint="samples are (N, H, W), (N, H, W, C), (N, C, H, W) or (N, D)"
            )
        if (x.shape[1:], x.dtype.newbyteorder("=")) != (first.shape[1:], first.dtype.newbyteorder("=")):
            raise Refused("/upload", f'"{x.name}" is {x.dtype} {x.shape[1:]} a sample, "{first.name}" {first.dtype} {first.shape[1:]}')
        if y.dtype.kind not in "iu":
            raise Refused("/upload", f'"{y.name}" has the dtype {y.dtype}', hint="labels are integers: y.astype(numpy.int64)")
        if len(y.shape) != 1 and not (len(y.shape) == 2 and y.shape[1] == 1):
            raise Refused("/upload", f'"{y.name}" has the shape {y.shape}', hint="labels are (N,); one-hot labels: y.argmax(1)")
        if y.shape[0] != x.shape[0]:
            raise Refused("/upload", f'"{x.name}" has {x.shape[0]:,} samples, "{y.name}" {y.shape[0]:,} labels')
    return pairs


def _layout(samples: dict[str, Array], asked: Literal["NHWC", "NCHW"] | None) -> Literal["NHWC", "NCHW"]:
    shape = samples["train"].shape
    if len(shape) != 4 or asked is not None:
        return asked or "NHWC"
    last, first = shape[3] in (1, 3, 4), shape[1] in (1, 3, 4)
    if last == first:
        raise Refused("/layout", f"samples of the shape {shape[1:]} can be read both ways", hint='say "layout": "NHWC" or "NCHW"')
    return "NHWC" if last else "NCHW"


def _stored(array: Array, layout: str) -> tuple[int, ...]:
    """The shape of one sample in canonical form: (H, W, C) or (D,)."""
    channels, *rest = sample = list(array.shape[1:])
    if len(sample) == 2:
        return (*sample, 1)
    return (*rest, channels) if len(sample) == 3 and layout == "NCHW" else tuple(sample)


def _labels(archive: Archive, x: Array, y: Array) -> NDArray[np.int64]:
    with archive.stream(y.member) as stream:
        stream.exactly(y.offset)
        raw = np.frombuffer(stream.exactly(y.shape[0] * y.dtype.itemsize), y.dtype)
    limit = MAX_CLASSES
    wrong = np.flatnonzero((raw < 0) | (raw >= limit))
    if wrong.size:
        row = int(wrong[0])
        raise Refused(
            "/upload", f"label {raw[row]} at row {row} of {y.name} is out of range", hint=f"labels are 0 to classes - 1, below {limit:,}"
        )
    return raw.astype(np.int64)


def _check_labels(labels: dict[str, NDArray[np.int64]], arrays: dict[str, str], request: Request) -> None:
    declared = request.classes or (len(request.class_names) if request.class_names else None)
    for split, y in labels.items():
        wrong = np.flatnonzero(y >= (declared or MAX_CLASSES))
        if wrong.size:
            row = int(wrong[0])
            found = 1 + max(int(y.max()) for y in labels.values())
            raise Refused(
                "/classes" if request.classes else "/class_names",
                f"label {y[row]} at row {row} of {arrays[split]} is out of range for {declared} classes; the labels need {found}",
            )
    found = 1 + max(int(y.max()) for y in labels.values())
    check_count(found, "the labels have", classes=request.classes, class_names=request.class_names)


def _pieces(archive: Archive, array: Array, layout: str) -> Iterator[NDArray[Any]]:
    """The samples in canonical layout and dtype, a few megabytes at a time."""
    row = math.prod(array.shape[1:]) * array.dtype.itemsize
    stored = _stored(array, layout)
    per_piece = max(1, _PIECE // row)
    with archive.stream(array.member) as stream:
        stream.exactly(array.offset)
        for start in range(0, array.shape[0], per_piece):
            count = min(per_piece, array.shape[0] - start)
            x = np.frombuffer(stream.exactly(count * row), array.dtype).reshape(count, *array.shape[1:])
            if len(array.shape) == 4 and layout == "NCHW":
                x = x.transpose(0, 2, 3, 1)
            if x.dtype != np.uint8:
                with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and the writer refuses that with its row
                    x = x.astype(np.float32)
            yield x.reshape(count, *stored)
