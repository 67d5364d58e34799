"""The job folder, and how a claim's blobs get into it: from the database into a verified local cache, from there by hard link."""

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from core.blobs import NO_ROOM, BlobStore, Digest, Directory, read_chunks
from core.errors import Corrupt
from db.session import Full

log = logging.getLogger(__name__)

TAIL = 64 << 10
LOG_LIMIT = 16 << 20
_ABANDONED = 86400.0

Tick = Callable[[], None]
"""The supervisor's look around, taken between two chunks of any long copy; it may raise to end the copy."""


class NoRoom(Exception):
    """A disk or the database is full; the words say which."""


@contextmanager
def room() -> Iterator[None]:
    """`NoRoom` instead of an error of the worker's disk or of the database that says there is none."""
    try:
        yield
    except Full as full:
        raise NoRoom(f"the database is full: {full}") from full
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise NoRoom(f"the worker's disk is full: {error}") from error


def is_roomy(folder: Path, min_free: int) -> bool:
    """Whether the folder's disk has `min_free` bytes, or a twentieth of it where that is less."""
    disk = shutil.disk_usage(folder)
    return disk.free >= min(min_free, disk.total // 20)


class JobFolder:
    """The one folder that a child may read and write; `core/job.py` says what lies in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for each in (path, path / "in", path / "out", path / "checkpoint", path / "tmp"):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write_job(self, task: Mapping[str, Any], runtime: Mapping[str, Any]) -> None:
        """What the child is to do, and with what."""
        (self.path / "job.json").write_text(json.dumps({**task, "runtime": runtime}))

    def file(self, relative: str) -> Path:
        """A file that the child says it wrote; `Corrupt` where it is none, or lies elsewhere."""
        path = self.path / relative
        if path.is_symlink() or not path.resolve().is_relative_to(self.path.resolve()) or not path.is_file():
            raise Corrupt(f"the child told of {relative}, which is no file in its folder")
        return path

    def tail(self) -> str:
        """The last 64 KiB of what the child wrote to its standard error, as text that every database can hold."""
        path = self.path / "child.log"
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            return file.read(TAIL).decode("utf-8", "replace").replace("\x00", "")

    def bound_log(self) -> None:
        """Cut child.log back to its tail where a child floods it: the disk belongs to everybody."""
        path = self.path / "child.log"
        if path.is_file() and path.stat().st_size > LOG_LIMIT:
            kept = self.tail()
            path.write_text(f"[cut back after {LOG_LIMIT >> 20} MiB]\n{kept}")

    def remove(self) -> None:
        """Delete the folder and all in it."""
        remove(self.path)


def remove(folder: Path) -> None:
    """Delete a folder; what cannot be deleted is logged and left, for it is nobody's work any more."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        log.warning("could not delete %s: %s", folder, error)


class Filed(BlobStore, Protocol):
    """A store that may have a blob as a file of its own."""

    def file(self, digest: Digest) -> Path | None:
        """The file that the bytes are, unverified; None where they are none."""


def stage(blobs: Mapping[str, Digest], store: Filed, cache: Directory, folder: JobFolder, *, tick: Tick) -> None:
    """Put every blob at its path in the folder; KeyError where the store lacks one, `Corrupt` or `CorruptBlob` where it is not what its
    name says, `NoRoom` where the disk is full also without what the cache held for other jobs.

    A cached blob, and one that is a file of the store on the same disk, is read again before it is used: a disk may rot, and a child
    could have written through a link.
    """
    try:
        _fetch(blobs, store, cache, folder, tick)
    except NoRoom:
        log.warning("the disk is full: the cache is emptied")
        prune(cache, 0)
        _fetch(blobs, store, cache, folder, tick)


def _fetch(blobs: Mapping[str, Digest], store: Filed, cache: Directory, folder: JobFolder, tick: Tick) -> None:
    with room():
        for relative, digest in blobs.items():
            if _link_stored(digest, store, folder.path / relative, tick):
                continue
            if not _intact(cache, digest, tick):
                cache.put(watched(store.get(digest), tick))
            _link(cache.path(digest), folder.path / relative)


def keep(path: Path, promised: Digest, store: BlobStore, *, tick: Tick) -> Digest:
    """Put a file into the store; `Corrupt` where its bytes are not the promised ones, `NoRoom` where the store is full."""
    with room():
        digest = store.put(watched(read_chunks(path), tick))
    if digest != promised:
        raise Corrupt(f"{path.name} holds other bytes than the child said: {digest}, not {promised}")
    return digest


def watched(chunks: Iterable[bytes], tick: Tick) -> Iterator[bytes]:
    """The same chunks, with a tick before each."""
    for chunk in chunks:
        tick()
        yield chunk


def prune(cache: Directory, limit: int) -> None:
    """Delete the blobs that were used longest ago until the cache holds at most `limit` bytes. Links in job folders stay whole.

    What a killed worker left half written goes after a day.
    """
    for part in cache.folder.glob(".part-*"):
        if time.time() - part.stat().st_mtime > _ABANDONED:
            part.unlink(missing_ok=True)
    kept = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in cache.folder.glob("??/*"))
    held = sum(size for _, size, _ in kept)
    for _, size, path in kept:
        if held <= limit:
            return
        held -= size
        path.unlink(missing_ok=True)


def _intact(cache: Directory, digest: Digest, tick: Tick) -> bool:
    path = cache.path(digest)
    try:
        os.utime(path)
        for _ in watched(cache.get(digest), tick):
            pass
    except (FileNotFoundError, KeyError):
        return False
    except Corrupt:
        log.warning("the cached blob %s has gone bad: it is fetched again", digest)
        path.unlink(missing_ok=True)
        return False
    return True


def _link_stored(digest: Digest, store: Filed, target: Path, tick: Tick) -> bool:
    """Whether the store has the blob as a file that can be linked; it is one with the verified bytes then."""
    source = store.file(digest)
    if source is None or not source.is_file() or not _could_link(source, target):
        return False
    for _ in watched(store.get(digest), tick):
        pass
    return True


def _link(source: Path, target: Path) -> None:
    if not _could_link(source, target):
        shutil.copyfile(source, target)


def _could_link(source: Path, target: Path) -> bool:
    """Link where the file system lets us: not from one disk to another."""
    target.unlink(missing_ok=True)  # staging may begin again where a database went away in the middle
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        return False
    return True
