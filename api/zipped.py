"""A zip whose every byte is known before it is written: files are stored as they are, so any part of it can be made alone.

Sizes follow from the names and sizes of the files. Only their CRC-32 must be known before a header is written: a header in front of the
data that holds it can be read by every reader, also by one that reads a stream. Format: PKWARE APPNOTE 6.3.10, with ZIP64 where needed.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

_LONG = 0xFFFFFFFF
_MANY = 0xFFFF
_UTF8 = 1 << 11
_MIDNIGHT_1980 = (0, 1 << 5 | 1)
"""Time and date of every file, in DOS's form: the same files are the same zip."""
_UNIX, _REGULAR = 3 << 8, 0o100644 << 16


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the zip: `read(start, stop)` gives its bytes, `crc()` their CRC-32, which is asked for when a header is written."""

    path: str
    size: int
    crc: Callable[[], int]
    read: Callable[[int, int], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class _Piece:
    size: int
    read: Callable[[int, int], Iterator[bytes]]


class Zip:
    """The files in their order; `size` bytes in all."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._pieces: list[_Piece] = []
        self._offsets: list[int] = []
        self.size = 0
        for member in members:
            self._offsets.append(self.size)
            self._add(len(_local(member, 0)), partial(_header, member))
            self._pieces.append(_Piece(member.size, member.read))
            self.size += member.size
        self._start = self.size
        self._add(len(self._directory(known=False)), self._directory)

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`: what lies before is not read, but for the sums of files that a header in range needs."""
        at = 0
        for piece in self._pieces:
            first, last = max(0, start - at), min(stop - at, piece.size)
            if first < last:
                yield from piece.read(first, last)
            at += piece.size

    def _add(self, size: int, make: Callable[[], bytes]) -> None:
        self._pieces.append(_Piece(size, lambda start, stop: iter([make()[start:stop]])))
        self.size += size

    def _directory(self, *, known: bool = True) -> bytes:
        """The central directory and the end of the zip; its length is the same when the sums are not `known`."""
        entries = b"".join(
            _central(member, member.crc() if known else 0, offset) for member, offset in zip(self._members, self._offsets, strict=True)
        )
        count, length, start = len(self._members), len(entries), self._start
        end = b""
        if count >= _MANY or start >= _LONG or length >= _LONG:
            end += struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, _UNIX | 45, 45, 0, 0, count, count, length, start)
            end += struct.pack("<4sIQI", b"PK\6\7", 0, start + length, 1)
        count, length, start = min(count, _MANY), min(length, _LONG), min(start, _LONG)
        return entries + end + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, length, start, 0)


def _header(member: Member) -> bytes:
    return _local(member, member.crc())


def _local(member: Member, crc: int) -> bytes:
    name, size = member.path.encode(), min(member.size, _LONG)
    extra = struct.pack("<HHQQ", 1, 16, member.size, member.size) if size == _LONG else b""
    needed = 45 if extra else 20
    head = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", needed, _UTF8, 0, *_MIDNIGHT_1980, crc, size, size, len(name), len(extra))
    return head + name + extra


def _central(member: Member, crc: int, offset: int) -> bytes:
    name, size = member.path.encode(), min(member.size, _LONG)
    long = [member.size, member.size] if size == _LONG else []
    if offset >= _LONG:
        long.append(offset)
    extra = struct.pack(f"<HH{len(long)}Q", 1, 8 * len(long), *long) if long else b""
    needed = 45 if extra else 20
    head = struct.pack(
        "<4sHHHHHHIIIHHHHHII", b"PK\1\2", _UNIX | needed, needed, _UTF8, 0, *_MIDNIGHT_1980, crc, size, size, len(name), len(extra),
        0, 0, 0, _REGULAR, min(offset, _LONG),
    )  # fmt: skip
    return head + name + extra
