"""Datasets as .npz archives of NumPy arrays."""

import io
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

from numpy.lib import format as npy

from core.data.archive import Archive, Stream
from core.data.arrays import HINT, Array, Bytes, Request, check_shape, convert, known
from core.data.report import DatasetReport
from core.errors import Refused

__all__ = ["Request", "ingest"]


def ingest(path: Path, request: Request, out: Path, heed: Callable[[], None]) -> DatasetReport:
    """Bring an .npz into canonical form at `out`. Raises Refused, naming array and row."""
    with Archive(path, max_members=32) as archive:
        arrays = {}
        for member in archive.members:
            if not member.filename.endswith(".npy"):
                raise Refused("/upload", f'the .npz holds "{member.filename}"', hint=HINT)
            name = known(member.filename.removesuffix(".npy"), "the .npz")
            with archive.stream(member) as stream:
                arrays[name] = _header(archive, name, member, stream)
        return convert(arrays, request, out, heed, what="the .npz")


def _header(archive: Archive, name: str, member: zipfile.ZipInfo, stream: Stream) -> Array:
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
    check_shape(name, shape)
    if fortran and len(shape) > 1:
        raise Refused("/upload", f'"{name}" is stored column by column', hint="save numpy.ascontiguousarray of it")
    offset = 8 + width + length
    if math.prod(shape) * dtype.itemsize != member.file_size - offset:
        raise Refused(
            "/upload",
            f'"{name}" should have {math.prod(shape) * dtype.itemsize:,} bytes for its shape {shape}, {member.file_size - offset:,} follow',
        )

    @contextmanager
    def numbers() -> Iterator[Bytes]:
        with archive.stream(member) as data:
            data.exactly(offset)
            yield data

    return Array(name, dtype, shape, numbers)
