"""Bytes that come in parts: one writer at a time, who loses the right to write to whoever takes the upload over, and a kept offset."""

import hashlib
import secrets
from dataclasses import dataclass, replace
from typing import Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from db.access import Tenant
from db.blobs import Blobs, discard, read
from db.ids import new_id
from db.places import File, write_rows
from db.session import Database, clock
from db.tables import blob, upload

TTL = 7 * 86400.0
"""So long an upload waits after its last byte."""
FAILED_TTL = 86400.0
"""So long bytes with another digest than was declared are kept."""
STALE = 20.0
"""A writer that gave no sign of life for so long is dead."""

Status = Literal["pending", "completed", "cancelled"]


class TooLarge(Exception):
    """The upload is declared larger than is taken here."""


class Busy(Exception):
    """Somebody else is writing."""


class Evicted(Exception):
    """Somebody else has taken the upload over: nothing more of this writer counts."""


class Ended(Exception):
    """The upload takes no bytes any more; `status` says why."""

    def __init__(self, status: str) -> None:
        super().__init__(f"the upload is {status} already")
        self.status = status


class WrongOffset(Exception):
    """The next byte to come is the one at `expected`."""

    def __init__(self, expected: int) -> None:
        super().__init__(f"the next byte is the one at {expected}")
        self.expected = expected


class Mismatch(Exception):
    """The bytes that came are not the ones that were declared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Bytes that were announced (`pending`) or came whole (`completed`). `failed`: all came, with another digest, and may come again."""

    id: str
    purpose: str
    filename: str
    bytes: int
    sha256: str
    status: Status
    received: int
    failed: bool
    created_at: float
    expires_at: float

    @property
    def offset(self) -> int:
        """How many bytes are there."""
        return self.bytes if self.status == "completed" else self.received


def create_upload(
    db: Database, tenant: Tenant, *, purpose: str, filename: str, bytes: int, sha256: str, max_bytes: int, ttl: float = TTL
) -> Upload:
    """Announce bytes; they must begin to come within `ttl` seconds. `TooLarge` above `max_bytes`."""
    if bytes > max_bytes:
        raise TooLarge(f"{bytes} bytes are more than the {max_bytes} that are taken here")
    with db.begin() as tx:
        id = new_id("upl")
        tx.execute(
            sa.insert(upload).values(
                id=id, tenant_id=tenant.id, purpose=purpose, filename=filename, bytes=bytes, sha256=sha256, status="pending",
                created_at=clock(), expires_at=clock() + ttl,
            )
        )  # fmt: skip
        return _one(tx, tenant, id)


def get_upload(db: Database, tenant: Tenant, id: str) -> Upload | None:
    """The upload, if the tenant has it."""
    with db.read() as tx:
        row = tx.execute(_uploads(tenant).where(upload.c.id == id)).mappings().one_or_none()
    return Upload(**row) if row else None


def list_uploads(
    db: Database, tenant: Tenant, *, limit: int, after: str | None = None, sha256: str | None = None, status: Status | None = None
) -> list[Upload]:
    """Newest first, from the one after `after`; only those of a digest, or in a state, where one is given."""
    found = _uploads(tenant).order_by(upload.c.id.desc()).limit(limit)
    for column, wanted in ((upload.c.sha256, sha256), (upload.c.status, status)):
        found = found.where(column == wanted) if wanted else found
    with db.read() as tx:
        rows = tx.execute(found.where(upload.c.id < after) if after else found).mappings().all()
    return [Upload(**row) for row in rows]


def delete_upload(db: Database, tenant: Tenant, id: str, *, stale: float = STALE) -> bool:
    """Forget an upload and what came of it. What was made of it stays. False if the tenant has none such; `Busy` while it is written."""
    own = _own(tenant, id) & (upload.c.status != "cancelled")
    with db.begin() as tx:
        found = tx.execute(sa.select(upload.c.blob_id, _is_written(stale).label("written")).where(own).with_for_update()).one_or_none()
        if found is None:
            return False
        if found.written:
            raise Busy(id)
        tx.execute(sa.update(upload).where(own).values(status="cancelled", writer=None, blob_id=None))
    if found.blob_id is not None:
        discard(db, found.blob_id)
    return True


def evict(db: Database, tenant: Tenant, id: str) -> Upload | None:
    """The upload, which nobody writes from now on: whoever did is told at his next step. What he had not kept yet is lost."""
    with db.begin() as tx:
        tx.execute(sa.update(upload).where(_own(tenant, id), upload.c.writer.is_not(None)).values(writer=None))
        row = tx.execute(_uploads(tenant).where(upload.c.id == id)).mappings().one_or_none()
    return Upload(**row) if row else None


def write(db: Database, tenant: Tenant, id: str, *, offset: int | None, stale: float = STALE) -> "Writer":
    """Become the writer of an upload, from `offset` on; None: from the start anew, and what came before goes.

    KeyError if the tenant has no such upload, `Ended` if it takes no bytes, `Busy` if it has a writer, `WrongOffset` elsewhere.
    """
    token = secrets.token_hex(8)
    with db.begin() as tx:
        columns = (upload, _is_written(stale).label("written"))
        row = tx.execute(sa.select(*columns).where(_own(tenant, id)).with_for_update()).mappings().one_or_none()
        if row is None:
            raise KeyError(id)
        if row["status"] != "pending":
            raise Ended(row["status"])
        if row["written"]:
            raise Busy(id)
        if offset is not None and offset != row["received"]:
            raise WrongOffset(row["received"])
        into, old = row["blob_id"], None
        if not offset:
            into, old = Blobs(db, tenant, large=True).begin(tx), into
        taken = {"writer": token, "written_at": clock(), "blob_id": into, "received": offset or 0}
        tx.execute(sa.update(upload).where(_own(tenant, id)).values(taken))
        place = tx.execute(sa.select(blob.c.place).where(blob.c.id == into)).scalar_one()
        writer = Writer(db, tenant, _one(tx, tenant, id), token, into, is_file=place == "directory")
    if old is not None:
        discard(db, old)
    return writer


class Writer:
    """The right to write an upload. What it does raises `Evicted` once somebody has taken the upload over, and changes nothing."""

    def __init__(self, db: Database, tenant: Tenant, taken: Upload, token: str, blob: str, *, is_file: bool) -> None:
        self._db = db
        self._tenant = tenant
        self._token = token
        self._is_file = is_file
        self.upload = taken
        self.blob = blob

    @property
    def offset(self) -> int:
        """How many bytes are kept."""
        return self.upload.received

    def append(self, data: memoryview) -> None:
        """Keep the next bytes: they are in the store when this returns, together with the offset after them."""
        if self._is_file:
            file = File(self._db, self._tenant.id, self.blob)
            with file.alone():
                self._is_mine()
                file.write(self.offset, data)
                with self._db.begin() as tx:
                    self._advance(tx, len(data))
        else:
            with self._db.begin() as tx:
                self._advance(tx, len(data))
                write_rows(tx, self.blob, self.offset, data)
        self.upload = replace(self.upload, received=self.offset + len(data))

    def live(self) -> None:
        """Say that the sender is still there, however slow."""
        with self._db.begin() as tx:
            self._change(tx, written_at=clock())

    def digest(self) -> str:
        """The sha256 of what is kept, read once more: for a writer that did not see the first bytes come."""
        hasher = hashlib.sha256()
        for chunk in read(self._db, self.blob, self.offset, 0, self.offset):
            hasher.update(chunk)
        return hasher.hexdigest()

    def complete(self, digest: str) -> Upload:
        """The end of an upload whose bytes are all there and have this digest. `Mismatch` if it is not the declared one: the upload then
        begins at 0 again, and its bytes stay for a day.
        """
        declared = self.upload
        if digest != declared.sha256:
            with self._db.begin() as tx:
                self._change(tx, writer=None, received=0, expires_at=clock() + FAILED_TTL)
                tx.execute(sa.update(blob).where(blob.c.id == self.blob, blob.c.sha256.is_(None)).values(size=declared.bytes))
            raise Mismatch(f"the bytes have the sha256 {digest}, declared was {declared.sha256}")
        self.live()
        Blobs(self._db, self._tenant).name(self.blob, digest, declared.bytes)
        with self._db.begin() as tx:
            self._change(tx, writer=None, blob_id=None, status="completed", expires_at=clock() + TTL)
            done = _one(tx, self._tenant, declared.id)
        discard(self._db, self.blob)  # where the tenant had these bytes already
        return done

    def release(self) -> None:
        """Let others write."""
        with self._db.begin() as tx:
            tx.execute(sa.update(upload).where(self._right()).values(writer=None))

    def _advance(self, tx: Connection, by: int) -> None:
        self._change(tx, received=self.offset + by, written_at=clock(), expires_at=clock() + TTL)

    def _change(self, tx: Connection, **values: object) -> None:
        changed = tx.execute(sa.update(upload).where(self._right()).values(values))
        if changed.rowcount == 0:
            raise Evicted(self.upload.id)

    def _is_mine(self) -> None:
        with self._db.read() as tx:
            if tx.execute(sa.select(upload.c.id).where(self._right())).first() is None:
                raise Evicted(self.upload.id)

    def _right(self) -> sa.ColumnElement[bool]:
        return _own(self._tenant, self.upload.id) & (upload.c.status == "pending") & (upload.c.writer == self._token)


def _own(tenant: Tenant, id: str) -> sa.ColumnElement[bool]:
    return (upload.c.id == id) & (upload.c.tenant_id == tenant.id)


def _is_written(stale: float) -> sa.ColumnElement[bool]:
    return upload.c.writer.is_not(None) & (upload.c.written_at > clock() - stale)


def _uploads(tenant: Tenant) -> sa.Select[tuple[object, ...]]:
    # A blob has a size once all its bytes are there; one that got no name then has the wrong ones.
    failed = sa.exists().where(blob.c.id == upload.c.blob_id, blob.c.size > 0) & (upload.c.received == 0)
    columns = (upload.c[name] for name in Upload.__dataclass_fields__ if name != "failed")
    return sa.select(*columns, failed.label("failed")).where(upload.c.tenant_id == tenant.id)


def _one(tx: Connection, tenant: Tenant, id: str) -> Upload:
    return Upload(**tx.execute(_uploads(tenant).where(upload.c.id == id)).mappings().one())
