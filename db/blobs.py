"""Bytes in the database, by their digest: a mebibyte a row, each in a short transaction of its own, invisible until all are there."""

import hashlib
import logging
from collections.abc import Iterable, Iterator

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from db.access import Tenant
from db.crashpoint import crashpoint
from db.ids import new_id
from db.session import Database, Full, Unavailable, clock
from db.tables import artifact, asset, blob, blob_chunk, checkpoint, upload

log = logging.getLogger(__name__)

CHUNK = 1 << 20
_AT_ONCE = 200


class CorruptBlob(Exception):
    """The bytes under a digest are not what their name says."""


class Blobs:
    """The blobs of one tenant. The same bytes are kept once a tenant, and never shared between two: a hash must not tell who has what."""

    def __init__(self, db: Database, tenant: Tenant) -> None:
        self._db = db
        self._tenant = tenant
        self._left: set[str] = set()

    def put(self, chunks: Iterable[bytes]) -> str:
        """Keep the bytes and return their sha256. At most two mebibytes beside the caller's own chunk are in memory.

        Bytes that are there already are read before the new ones go: where they went bad meanwhile, the new ones mend them.
        """
        for left in tuple(self._left):
            self._discard(left)
        id = new_id("blob")
        with self._db.begin() as tx:
            tx.execute(sa.insert(blob).values(id=id, tenant_id=self._tenant.id, touched_at=clock()))
        hasher, size = hashlib.sha256(), 0
        try:
            for i, data in enumerate(_even(chunks)):
                hasher.update(data)
                size += len(data)
                with self._db.begin() as tx:
                    tx.execute(sa.insert(blob_chunk).values(blob_id=id, i=i, data=data))
                    tx.execute(sa.update(blob).where(blob.c.id == id).values(touched_at=clock()))
            if not self._publish(id, hasher.hexdigest(), size):
                if not self._is_whole(hasher.hexdigest()):
                    self._mend(id, hasher.hexdigest(), size)
                self._discard(id)
        except BaseException:
            self._discard(id)
            raise
        return hasher.hexdigest()

    def _discard(self, id: str) -> None:
        """Take an unnamed blob apart now; where the database does not let us, before the next is written, or leave it to `sweep`."""
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
        """Give the chunks of a blob that was just written to the one that has its name, each in a short transaction."""
        with self._db.begin() as tx:
            bad = tx.execute(sa.update(blob).where(self._named(digest)).values(size=size).returning(blob.c.id)).scalar_one()
        for i in range(-(-size // CHUNK)):
            with self._db.begin() as tx:
                tx.execute(sa.delete(blob_chunk).where(blob_chunk.c.blob_id == bad, blob_chunk.c.i == i))
                tx.execute(sa.update(blob_chunk).where(blob_chunk.c.blob_id == id, blob_chunk.c.i == i).values(blob_id=bad))

    def _publish(self, id: str, digest: str, size: int) -> bool:
        """Give the written blob its name. False: the tenant has these bytes already, and they count as touched just now."""
        try:
            with self._db.begin() as tx:
                known = tx.execute(sa.update(blob).where(self._named(digest)).values(touched_at=clock()).returning(blob.c.id)).first()
                if known is None:
                    tx.execute(sa.update(blob).where(blob.c.id == id).values(sha256=digest, size=size, touched_at=clock()))
                return known is None
        except IntegrityError:  # somebody else gave the same bytes their name between our two statements
            return False

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
        for i in range(start // CHUNK, -(-stop // CHUNK)):
            with self._db.read() as tx:
                data = tx.execute(
                    sa.select(blob_chunk.c.data).where(blob_chunk.c.blob_id == found.id, blob_chunk.c.i == i)
                ).scalar_one_or_none()
            if data is None or len(data) != min(CHUNK, found.size - i * CHUNK):
                raise CorruptBlob(f"the blob {digest} lacks its chunk {i}, or a part of it")
            if is_whole:
                hasher.update(data)
            yield data[max(0, start - i * CHUNK) : stop - i * CHUNK]
        if is_whole and hasher.hexdigest() != digest:
            raise CorruptBlob(f"the blob {digest} holds other bytes than its name says")

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


def discard(db: Database, id: str) -> None:
    """Take an unnamed blob apart, some chunks a transaction, so that nobody waits long behind it."""
    unnamed = sa.select(blob.c.id).where(blob.c.id == id, blob.c.sha256.is_(None))
    some = sa.select(blob_chunk.c.i).where(blob_chunk.c.blob_id.in_(unnamed)).order_by(blob_chunk.c.i).limit(_AT_ONCE)
    gone = _AT_ONCE
    while gone == _AT_ONCE:
        with db.begin() as tx:
            gone = tx.execute(sa.delete(blob_chunk).where(blob_chunk.c.blob_id == id, blob_chunk.c.i.in_(some))).rowcount
        crashpoint("sweep.middle")
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


def sweep(db: Database, *, older: float, most: int = _AT_ONCE) -> int:
    """Take apart what was never finished, or never taken apart to the end, and was not touched for `older` seconds; how many blobs."""
    with db.read() as tx:
        left = sa.select(blob.c.id).where(blob.c.sha256.is_(None), blob.c.touched_at < clock() - older).limit(most)
        ids = tx.execute(left).scalars().all()
    for id in ids:
        discard(db, id)
    return len(ids)


def _even(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of one mebibyte, whatever pieces they come in."""
    rest = bytearray()
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            room = CHUNK - len(rest)
            rest += view[:room]
            view = view[room:]
            if len(rest) == CHUNK:
                yield bytes(rest)
                rest.clear()
    if rest:
        yield bytes(rest)
