"""Bytes by their digest: invisible until all are there, in the database in short transactions, or, where they are large, in a directory."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from db.access import Tenant
from db.ids import new_id
from db.places import CHUNK, CorruptBlob, File, Place, read_rows, remove_rows, write_rows
from db.session import Database, Full, Unavailable, clock
from db.tables import artifact, asset, blob, blob_chunk, checkpoint, upload

log = logging.getLogger(__name__)

BATCH = 4 * CHUNK
"""What one transaction writes: long enough that its own cost does not count, short enough that nobody waits long behind it."""
_AT_ONCE = 200


class Blobs:
    """The blobs of one tenant. The same bytes are kept once a tenant, and never shared between two: a hash must not tell who has what.

    What is `large` goes to the directory of large blobs, where there is one; all are found wherever they lie.
    """

    def __init__(self, db: Database, tenant: Tenant, *, large: bool = False) -> None:
        self._db = db
        self._tenant = tenant
        self._place: Place = "directory" if large and db.directory is not None else "database"
        self._left: set[str] = set()

    def put(self, chunks: Iterable[bytes]) -> str:
        """Keep the bytes and return their sha256. At most `BATCH` of them beside the caller's own chunk are in memory.

        Bytes that are there already are read before the new ones go: where they went bad meanwhile, the new ones mend them.
        """
        for left in tuple(self._left):
            self._discard(left)
        with self._db.begin() as tx:
            id = self.begin(tx)
        hasher, size = hashlib.sha256(), 0
        try:
            for data in _batches(chunks):
                hasher.update(data)
                if self._place == "directory":
                    File(self._db, self._tenant.id, id).write(size, data)
                with self._db.begin() as tx:
                    tx.execute(sa.update(blob).where(blob.c.id == id).values(touched_at=clock()))
                    if self._place == "database":
                        write_rows(tx, id, size, data)
                size += len(data)
            self.name(id, hasher.hexdigest(), size)
        finally:
            self._discard(id)
        return hasher.hexdigest()

    def begin(self, tx: Connection) -> str:
        """A new blob without bytes and without a name; its id."""
        id = new_id("blob")
        tx.execute(sa.insert(blob).values(id=id, tenant_id=self._tenant.id, touched_at=clock(), place=self._place))
        return id

    def name(self, id: str, digest: str, size: int) -> None:
        """Give a blob whose bytes are all there its name. Where the tenant has these bytes already, the new ones mend them if they went
        bad, and stay unnamed: for the caller to `discard`.
        """
        if self._publish(id, digest, size) != id and not self._is_whole(digest):
            self._mend(id, digest, size)

    def _publish(self, id: str, digest: str, size: int) -> str:
        """The id of the blob that has the name from now on: another one if it was there before, and that counts as touched just now."""
        with self._db.read() as tx:
            place = tx.execute(sa.select(blob.c.place).where(blob.c.id == id)).scalar_one()
        if place == "directory":
            file = File(self._db, self._tenant.id, id)
            if size == 0:
                file.write(0, memoryview(b""))
            file.seal()
        touched = sa.update(blob).where(self._named(digest)).values(touched_at=clock()).returning(blob.c.id)
        try:
            with self._db.begin() as tx:
                known: str | None = tx.execute(touched).scalar_one_or_none()
                if known is None:
                    tx.execute(sa.update(blob).where(blob.c.id == id).values(sha256=digest, size=size, touched_at=clock()))
        except IntegrityError:  # somebody else gave the same bytes their name between our two statements
            with self._db.begin() as tx:
                known = tx.execute(touched).scalar_one()
        return known or id

    def _discard(self, id: str) -> None:
        """Take a blob without a name apart; where the database does not let us, before the next is written, or leave it to `sweep`."""
        self._left.add(id)
        try:
            discard(self._db, id)
        except Unavailable as error:
            log.warning("the half-written %s stays for now: %s", id, error)
        else:
            self._left.discard(id)

    def _is_whole(self, digest: str) -> bool:
        try:
            for _ in self.get(digest):
                pass
        except CorruptBlob as corrupt:
            log.warning("%s: it is mended with the bytes that came now", corrupt)
            return False
        return True

    def _mend(self, id: str, digest: str, size: int) -> None:
        """Copy a blob that was just written over the one that has its name; wherever a crash comes, the new one is still whole."""
        with self._db.read() as tx:
            bad, was = tx.execute(sa.select(blob.c.id, blob.c.place).where(self._named(digest))).one()
            place: Place = tx.execute(sa.select(blob.c.place).where(blob.c.id == id)).scalar_one()
        if place == "directory":
            File(self._db, self._tenant.id, bad).replace(File(self._db, self._tenant.id, id))
        for i in range(-(-size // CHUNK) if place == "database" else 0):
            with self._db.begin() as tx:
                tx.execute(sa.delete(blob_chunk).where(blob_chunk.c.blob_id == bad, blob_chunk.c.i == i))
                good = sa.select(sa.literal(bad), blob_chunk.c.i, blob_chunk.c.data).where(blob_chunk.c.blob_id == id, blob_chunk.c.i == i)
                tx.execute(sa.insert(blob_chunk).from_select(["blob_id", "i", "data"], good))
        with self._db.begin() as tx:
            tx.execute(sa.update(blob).where(blob.c.id == bad).values(size=size, place=place))
        if place == "directory" and was == "database":
            remove_rows(self._db, bad, named=True)
        elif place == "database" and was == "directory" and self._db.directory is not None:
            File(self._db, self._tenant.id, bad).remove()

    def get(self, digest: str, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes in order, or those of a slice, of which only the chunks that hold them are read; KeyError if absent.

        The whole is verified while it streams: `CorruptBlob` at the end if it is not what its name says. A part has no digest to be
        checked by: `CorruptBlob` says only that some of it is missing.
        """
        with self._db.read() as tx:
            found = tx.execute(sa.select(blob.c.id, blob.c.size).where(self._named(digest))).one_or_none()
        if found is None:
            raise KeyError(digest)
        stop = found.size if stop is None else min(stop, found.size)
        is_whole = start == 0 and stop == found.size
        hasher = hashlib.sha256()
        for chunk in read(self._db, found.id, found.size, start, stop):
            if is_whole:
                hasher.update(chunk)
            yield chunk
        if is_whole and hasher.hexdigest() != digest:
            raise CorruptBlob(f"the blob {digest} holds other bytes than its name says")

    def file(self, digest: str) -> Path | None:
        """The file that the bytes are, unverified; None where they lie in the database."""
        with self._db.read() as tx:
            found = tx.execute(sa.select(blob.c.id, blob.c.place).where(self._named(digest))).one_or_none()
        return File(self._db, self._tenant.id, found.id).path if found and found.place == "directory" else None

    def has(self, digest: str) -> bool:
        """Whether the tenant has these bytes."""
        return self._size(digest) is not None

    def size(self, digest: str) -> int:
        """Their number; KeyError if absent."""
        size = self._size(digest)
        if size is None:
            raise KeyError(digest)
        return size

    def _size(self, digest: str) -> int | None:
        with self._db.read() as tx:
            return tx.execute(sa.select(blob.c.size).where(self._named(digest))).scalar_one_or_none()

    def _named(self, digest: str) -> sa.ColumnElement[bool]:
        return (blob.c.tenant_id == self._tenant.id) & (blob.c.sha256 == digest)


def read(db: Database, id: str, size: int, start: int, stop: int) -> Iterator[bytes]:
    """A slice of the `size` bytes of a blob, wherever they lie, not verified; `CorruptBlob` where some are missing."""
    with db.read() as tx:
        tenant, place = tx.execute(sa.select(blob.c.tenant_id, blob.c.place).where(blob.c.id == id)).one()
    return File(db, tenant, id).read(size, start, stop) if place == "directory" else read_rows(db, id, size, start, stop)


def discard(db: Database, id: str) -> None:
    """Take an unnamed blob apart; what lies in a directory that this process was not told of is left to one that was."""
    with db.read() as tx:
        found = tx.execute(sa.select(blob.c.tenant_id, blob.c.place).where(blob.c.id == id, blob.c.sha256.is_(None))).one_or_none()
    if found is None:
        return
    if db.directory is not None:
        File(db, found.tenant_id, id).remove()
    elif found.place == "directory":
        log.warning("the blob %s stays: RETORT_BLOBS does not name its directory here", id)
        return
    remove_rows(db, id)
    with db.begin() as tx:
        tx.execute(sa.delete(blob).where(blob.c.id == id, blob.c.sha256.is_(None)))


def forget(tx: Connection, tenant_id: str, digest: str, *, older: float = 0.0) -> list[str]:
    """Take the name from a blob that no row names and nobody touched for `older` seconds; `discard` what is returned after the commit, or
    leave it to `sweep`.
    """
    unused = (blob.c.tenant_id == tenant_id) & (blob.c.sha256 == digest) & (blob.c.touched_at <= clock() - older) & ~named()
    try:
        with tx.begin_nested():
            return list(tx.execute(sa.update(blob).where(unused).values(sha256=None).returning(blob.c.id)).scalars())
    except IntegrityError:  # somebody has named it between our look and our write: the reference itself says no
        return []


def named() -> sa.ColumnElement[bool]:
    """Whether some row names the blob of an enclosing statement. The inputs of jobs do too, and are not looked at here."""
    return sa.or_(
        sa.exists().where(asset.c.tenant_id == blob.c.tenant_id, asset.c.blob == blob.c.sha256),
        sa.exists().where(artifact.c.tenant_id == blob.c.tenant_id, artifact.c.sha256 == blob.c.sha256),
        sa.exists().where(checkpoint.c.tenant_id == blob.c.tenant_id, checkpoint.c.blob == blob.c.sha256),
        sa.exists().where(upload.c.tenant_id == blob.c.tenant_id, upload.c.sha256 == blob.c.sha256, upload.c.status != "cancelled"),
    )


def has_room(db: Database, tenant_id: str) -> bool:
    """Whether a mebibyte can be written: it is tried, and taken away again."""
    id = new_id("blob")
    try:
        with db.begin() as tx:
            tx.execute(sa.insert(blob).values(id=id, tenant_id=tenant_id, touched_at=clock()))
            tx.execute(sa.insert(blob_chunk).values(blob_id=id, i=0, data=bytes(CHUNK)))
    except Full:
        return False
    discard(db, id)
    return True


def _batches(chunks: Iterable[bytes]) -> Iterator[memoryview]:
    """The same bytes, `BATCH` at a time, whatever pieces they come in; each is good until the next is asked for."""
    batch, held = memoryview(bytearray(BATCH)), 0
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            taken = min(len(rest), BATCH - held)
            batch[held : held + taken] = rest[:taken]
            held, rest = held + taken, rest[taken:]
            if held == BATCH:
                yield batch
                held = 0
    if held:
        yield batch[:held]
