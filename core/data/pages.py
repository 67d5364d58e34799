"""The pages of a Parquet column, known by their own headers: a page unpacks to what its header says, whatever the file's metadata say.

A header is a struct in Thrift's compact protocol (parquet-format, PageHeader): field 2 is the size of the page unpacked, field 3 packed.
"""

from collections.abc import Iterator
from typing import BinaryIO

MAX_HEADER = 64 << 10
_DEPTH = 8
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12


def page_sizes(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """(packed, unpacked) bytes of every page that begins in [begin, end) of a file. Raises ValueError for what is no page."""
    while begin < end:
        if not 0 <= begin < 1 << 62:
            raise ValueError("a page lies outside the file")
        file.seek(begin)
        data = file.read(MAX_HEADER)
        fields: dict[int, int] = {}
        length = _struct(data, 0, _DEPTH, fields)
        unpacked, packed = fields.get(2, -1), fields.get(3, -1)
        if unpacked < 0 or packed < 0:
            raise ValueError("a page has no size")
        yield packed, unpacked
        begin += length + packed


def _struct(data: bytes, at: int, depth: int, fields: dict[int, int] | None = None) -> int:
    """Where the struct at `at` ends; its own integers go into `fields`."""
    last = 0
    while head := _byte(data, at):
        at += 1
        if head >> 4:
            last += head >> 4
        else:
            last, at = _integer(data, at)
        kind = head & 15
        if kind in _INTEGERS and fields is not None:
            fields[last], at = _integer(data, at)
        elif kind not in _BOOLEANS:  # whose value is in the head
            at = _value(data, at, kind, depth)
    return at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> int:
    """Where the value at `at` ends."""
    if kind in (*_BOOLEANS, _BYTE):
        return at + 1
    if kind in _INTEGERS:
        return _integer(data, at)[1]
    if kind == _DOUBLE:
        return at + 8
    if kind == _BINARY:
        length, at = _varint(data, at)
        return at + length
    if depth == 0:
        raise ValueError("a page's header nests too deep")
    if kind == _STRUCT:
        return _struct(data, at, depth - 1)
    if kind not in _LISTS:
        raise ValueError("a page's header is damaged")
    head = _byte(data, at)
    count, at = (head >> 4, at + 1) if head >> 4 < 15 else _varint(data, at + 1)
    for _ in range(min(count, MAX_HEADER)):
        at = _value(data, at, head & 15, depth - 1)
    return at


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise ValueError("a page's header is cut off, or too long")
    return data[at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(data, at)
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number in a page's header does not end")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """A signed number, as zigzag folds it."""
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
