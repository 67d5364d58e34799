"""Content-addressed bytes: the protocol of every blob store, and the store that is a directory.

This module imports no torch: the worker reads it.
"""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from core.errors import Corrupt

Digest = str
"""The sha256 of the content, in lower-case hexadecimal: the content is the name."""

CHUNK = 1 << 20
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""How the system says that a disk, or somebody's share of it, is full."""


class BlobStore(Protocol):
    """Bytes by their digest."""

    def put(self, chunks: Iterable[bytes]) -> Digest:
        """Keep the bytes; nothing is visible until all of them are."""

    def get(self, digest: Digest, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes in order, or those of a slice; KeyError if absent. The whole is verified while it streams: `Corrupt` at the end if it
        is not what its name says. A part has no name to be checked by: only that it is all there is known of it.
        """


def read_chunks(path: Path, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The bytes of a file from `start` up to `stop` or its end, a mebibyte at a time."""
    with path.open("rb") as file:
        file.seek(start)
        if stop is None:
            while chunk := file.read(CHUNK):
                yield chunk
        else:
            while chunk := file.read(max(0, min(CHUNK, stop - file.tell()))):
                yield chunk


def digest_of(path: Path) -> Digest:
    """The digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Directory:
    """A blob store in one directory, for data of many gigabytes on shared storage and for a worker's cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: Digest) -> Path:
        """Where the bytes of this digest lie, if they do."""
        return self.folder / digest[:2] / digest

    def put(self, chunks: Iterable[bytes]) -> Digest:
        """See `BlobStore.put`: written aside, synced, then renamed into place."""
        hasher = hashlib.sha256()
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".part-")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in chunks:
                    hasher.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            digest = hasher.hexdigest()
            target = self.path(digest)
            target.parent.mkdir(exist_ok=True)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return digest

    def get(self, digest: Digest, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See `BlobStore.get`."""
        path = self.path(digest)
        if not path.is_file():
            raise KeyError(digest)
        if start > 0 or (stop is not None and stop < path.stat().st_size):
            yield from read_chunks(path, start, stop)
            return
        hasher = hashlib.sha256()
        for chunk in read_chunks(path):
            hasher.update(chunk)
            yield chunk
        if hasher.hexdigest() != digest:
            raise Corrupt(f"the blob {digest} holds other bytes than its name says")
