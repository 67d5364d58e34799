"""Datasets as safetensors files of arrays."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from core.artifacts import Entry, read_header
from core.data.arrays import Array, Bytes, Request, check_shape, convert, known
from core.data.canonical import MAX_BYTES
from core.data.report import DatasetReport
from core.errors import Refused

__all__ = ["Request", "ingest"]

_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def ingest(path: Path, request: Request, out: Path, heed: Callable[[], None]) -> DatasetReport:
    """Bring a safetensors file of arrays into canonical form at `out`. Raises Refused, naming array and row."""
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise Refused("/upload", "this is a zip archive, not a safetensors file", hint='"format": "npz" reads the arrays of an .npz')
    header = read_header(path, max_bytes=2 * MAX_BYTES)  # twice: float64 is kept as float32
    with path.open("rb") as file:
        arrays = {known(name, "the file"): _array(file, header.start, name, entry) for name, entry in header.tensors.items()}
        return convert(arrays, request, out, heed, what="the file")


class _Numbers:
    """The bytes of one tensor."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise Refused("/upload", "the file is truncated", hint="upload the file again")
        return data


def _array(file: BinaryIO, start: int, name: str, entry: Entry) -> Array:
    check_shape(name, entry.shape)

    @contextmanager
    def numbers() -> Iterator[Bytes]:
        file.seek(start + entry.begin)
        yield _Numbers(file)

    return Array(name, np.dtype(_TYPES[entry.dtype]), entry.shape, numbers, brain=entry.dtype == "BF16")
