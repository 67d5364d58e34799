"""The two places where a blob's bytes lie: rows of a mebibyte in the database, or a file in a folder that the API and the workers share."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from db.crashpoint import crashpoint
from db.session import Database, Full, Unavailable
from db.tables import blob, blob_chunk

Place = Literal["database", "directory"]

CHUNK = 1 << 20
_AT_ONCE = 200
_READABLE = 0o444
_PATIENCE = 3.0


class CorruptBlob(Exception):
    """The bytes under a digest are not what their name says."""


class Elsewhere(OSError):
    """The bytes lie in a folder that this process was not told of."""


def write_rows(tx: Connection, id: str, offset: int, data: memoryview) -> None:
    """Put bytes after the `offset` that are there. All rows but the last are whole: the one that was begun is written again."""
    first, begun = divmod(offset, CHUNK)
    pieces: list[bytes | memoryview] = []
    if begun:
        cut = sa.delete(blob_chunk).where(blob_chunk.c.blob_id == id, blob_chunk.c.i == first).returning(blob_chunk.c.data)
        held = tx.execute(cut).scalar_one_or_none() or b""
        if len(held) != begun:
            raise CorruptBlob(f"the blob {id} has {len(held)} bytes where {begun} were kept")
        pieces.append(held + data[: CHUNK - begun])
        data = data[CHUNK - begun :]
    pieces += (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))
    if pieces:
        tx.execute(sa.insert(blob_chunk), [{"blob_id": id, "i": first + k, "data": piece} for k, piece in enumerate(pieces)])


def read_rows(db: Database, id: str, size: int, start: int, stop: int) -> Iterator[bytes]:
    """The bytes from `start` up to `stop` of the `size` that there are, a row a transaction; `CorruptBlob` where a row is not whole."""
    for i in range(start // CHUNK, -(-stop // CHUNK)):
        with db.read() as tx:
            row = sa.select(blob_chunk.c.data).where(blob_chunk.c.blob_id == id, blob_chunk.c.i == i)
            data: bytes | None = tx.execute(row).scalar_one_or_none()
        if data is None or len(data) != min(CHUNK, size - i * CHUNK):
            raise CorruptBlob(f"the blob {id} lacks its chunk {i}, or a part of it")
        yield data[max(0, start - i * CHUNK) : stop - i * CHUNK]


def remove_rows(db: Database, id: str, *, named: bool = False) -> None:
    """Delete the rows, some a transaction, so that nobody waits long behind it; unless `named`, only while the blob has no name."""
    whose = sa.select(blob.c.id).where(blob.c.id == id, sa.true() if named else blob.c.sha256.is_(None))
    some = sa.select(blob_chunk.c.i).where(blob_chunk.c.blob_id.in_(whose)).order_by(blob_chunk.c.i).limit(_AT_ONCE)
    gone = _AT_ONCE
    while gone == _AT_ONCE:
        with db.begin() as tx:
            gone = tx.execute(sa.delete(blob_chunk).where(blob_chunk.c.blob_id == id, blob_chunk.c.i.in_(some))).rowcount
        crashpoint("sweep.middle")


class File:
    """A blob's file. It has the blob's own id, so that no two tenants, and no two writers, ever share one."""

    def __init__(self, db: Database, tenant: str, id: str) -> None:
        if db.directory is None:
            raise Elsewhere(errno.ENOENT, f"the blob {id} lies in a directory: RETORT_BLOBS must name it here too")
        self.path = db.directory / tenant / id

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes after the `offset` that are there, and on the disk itself before this returns; `Full` where it has no room."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._open() as file:
                at = offset
                while data:
                    written = os.pwrite(file, data, at)
                    data, at = data[written:], at + written
                os.fdatasync(file)
            if offset == 0:
                _sync(self.path.parent)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Full(f"the directory of blobs has no room: {error}") from error
            raise

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the file against a writer that was evicted but does not know yet; `Unavailable` where that one does not let go in time."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._open() as file:
            deadline = time.monotonic() + _PATIENCE
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise Unavailable(f"another process still writes {self.path.name}") from None
                    time.sleep(0.01)
            yield

    def read(self, size: int, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop` of the `size` that there are; `CorruptBlob` where the file has another length, or is away."""
        try:
            found = self.path.stat().st_size
        except FileNotFoundError:
            raise CorruptBlob(f"the blob {self.path.name} lacks its file") from None
        if found != size:
            raise CorruptBlob(f"the file of the blob {self.path.name} has {found} bytes, not {size}")
        with self.path.open("rb") as file:
            file.seek(start)
            while chunk := file.read(max(0, min(CHUNK, stop - file.tell()))):
                yield chunk

    def seal(self) -> None:
        """Nobody writes it any more: not even by a mistake, through a link in a job's folder."""
        self.path.chmod(_READABLE)

    def replace(self, other: "File") -> None:
        """Take over the bytes of another file, at once, and share them until one of the two is removed."""
        aside = self.path.with_suffix(".new")
        aside.unlink(missing_ok=True)
        os.link(other.path, aside)
        aside.replace(self.path)
        _sync(self.path.parent)

    def remove(self) -> None:
        """Delete the file, if it is there."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".new").unlink(missing_ok=True)

    @contextmanager
    def _open(self) -> Iterator[int]:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield file
        finally:
            os.close(file)


def _sync(folder: Path) -> None:
    """Put a folder's entries on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
