"""Zip archives read with suspicion: the central directory first, then members as bounded streams; nothing is extracted to disk."""

import errno
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from core.errors import Refused

MAX_MEMBERS = 200_000  # ImageNet's subsets and CIFAR fit; a member costs about half a kilobyte of memory
MAX_UNPACKED = 64 << 30
MAX_RATIO = 200
_SMALL = 1 << 20
_DIRECTORY_BYTES_PER_MEMBER = 400
_LITTER = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")


class Archive:
    """The regular files of an uploaded zip, checked before any of them is opened. A context manager.

    Raises Refused at `where` for what is no zip, for a member that climbs out, is a link or is encrypted, for too many members, and for
    what would unpack to more than `MAX_RATIO` times its size or to more than `MAX_UNPACKED` bytes in all. What operating systems drop
    into folders (.DS_Store and the like) is left out.
    """

    def __init__(self, path: Path, *, where: str = "/upload", max_members: int = MAX_MEMBERS) -> None:
        self._where = where
        self._unpacked = 0
        self._max_members = max_members
        with path.open("rb") as file:
            _check_end(file, path.stat().st_size, max_members, where)
        with _damaged(where, "the archive"):
            self._zip = zipfile.ZipFile(path)
        try:
            self.members = self._checked(path.stat().st_size)
        except Refused:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._zip.close()

    @contextmanager
    def stream(self, member: zipfile.ZipInfo) -> Iterator["Stream"]:
        """The unpacked bytes of a member, counted as they come. What zip or zlib dislike meanwhile is a Refused that names the member."""
        with _damaged(self._where, f'the member "{member.filename}"'), self._zip.open(member) as file:
            yield Stream(file, self, member)

    def read(self, member: zipfile.ZipInfo, at_most: int) -> bytes:
        """A whole member of at most `at_most` bytes, its checksum verified."""
        if member.file_size > at_most:
            raise Refused(
                self._where, f'the member "{member.filename}" unpacks to {member.file_size:,} bytes; at most {at_most:,} are read'
            )
        with self.stream(member) as stream:
            return stream.exactly(member.file_size)

    def count(self, size: int) -> None:
        """Count unpacked bytes against the quota: what the directory declares is the uploader's word, this is ours."""
        self._unpacked += size
        if self._unpacked > 2 * MAX_UNPACKED:  # twice: a reader may look at headers first and at contents later
            raise Refused(self._where, f"the archive unpacks to more than {MAX_UNPACKED:,} bytes")

    def _checked(self, size: int) -> list[zipfile.ZipInfo]:
        entries = self._zip.infolist()
        if len(entries) > self._max_members:
            raise Refused(self._where, f"the archive has {len(entries):,} members; at most {self._max_members:,} are read")
        seen: set[str] = set()
        for entry in entries:
            fault = _fault(entry) or ("it is there twice" if entry.filename in seen else "")
            if fault:
                raise Refused(
                    self._where, f'the member "{entry.orig_filename[:200]}" is refused: {fault}', hint="make a plain zip of plain files"
                )
            seen.add(entry.filename)
        total = sum(entry.file_size for entry in entries)
        if total > MAX_UNPACKED or (total > 64 * _SMALL and total > MAX_RATIO * size):
            raise Refused(self._where, f"the archive of {size:,} bytes would unpack to {total:,} bytes, more than can be honest data")
        return [entry for entry in entries if not entry.is_dir() and not _is_litter(entry.filename)]


class Stream:
    """The bytes of one member, read in pieces of a size that the reader chooses."""

    def __init__(self, file: IO[bytes], archive: Archive, member: zipfile.ZipInfo) -> None:
        self._file, self._archive, self._member = file, archive, member

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes; EOFError, which `Archive.stream` turns into a Refused, where there are fewer."""
        pieces, left = [], size
        while left:
            piece = self._file.read(min(left, 1 << 20))
            if not piece:
                raise EOFError(f"it ends {left} bytes early")
            self._archive.count(len(piece))
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)


def _fault(entry: zipfile.ZipInfo) -> str:
    """What makes one entry of the directory unacceptable, or nothing."""
    name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
    climbs = name.startswith(("/", "\\")) or name[1:2] == ":" or ".." in name.replace("\\", "/").split("/")
    bomb = entry.file_size > _SMALL and entry.file_size > MAX_RATIO * entry.compress_size
    faults = {
        "it has no name": not entry.filename,
        "its path leads out of the archive": climbs,
        "its name holds a backslash or a character that does not print": "\\" in name or not name.isprintable(),
        "it is a link or a device, not a file": kind not in (0, stat.S_IFREG, stat.S_IFDIR),
        "it is encrypted": bool(entry.flag_bits & 1),
        "it is compressed by another method than deflate": entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
        f"it would unpack to {entry.file_size:,} bytes, more than {MAX_RATIO} times its size": bomb,
    }
    return next((reason for reason, there in faults.items() if there), "")


def _is_litter(name: str) -> bool:
    return name.startswith(_LITTER[0]) or name.rsplit("/", 1)[-1] in _LITTER


def _check_end(file: IO[bytes], size: int, max_members: int, where: str) -> None:
    """Read the record at a zip's end before `zipfile` loads the whole directory that it announces."""
    first = file.read(4)
    if first[:2] != b"PK":
        raise Refused(
            where,
            "this is not a zip archive" if first else "the file is empty",
            hint="a zip of folders of images, a zip of Parquet, or an .npz; is the format right?",
        )
    file.seek(max(0, size - 65_557))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise Refused(where, "the archive is truncated: its directory, at the end, is missing", hint="upload the file again")
    entries, directory = struct.unpack("<HI", tail[at + 10 : at + 16])
    if tail[at - 20 : at - 16] == b"PK\x06\x07" and at >= 20:
        file.seek(min(struct.unpack("<Q", tail[at - 12 : at - 4])[0], size))
        record = file.read(56)
        if len(record) == 56 and record[:4] == b"PK\x06\x06":
            entries, directory = struct.unpack("<QQ", record[32:48])
    if entries > max_members or directory > max_members * _DIRECTORY_BYTES_PER_MEMBER:
        raise Refused(
            where,
            f"the archive announces {entries:,} members in a directory of {directory:,} bytes; at most {max_members:,} members are read",
        )


@contextmanager
def _damaged(where: str, what: str) -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        struct.error,
        NotImplementedError,
        RuntimeError,
        UnicodeError,
        OverflowError,
    ) as wrong:
        raise Refused(where, f"{what} is damaged: {wrong}", hint="make the archive again, or upload it again") from wrong
    except OSError as wrong:
        if wrong.errno not in (None, errno.EINVAL):  # EINVAL: a seek to an offset that the directory made up
            raise
        raise Refused(where, f"{what} is damaged: {wrong}", hint="make the archive again, or upload it again") from wrong
