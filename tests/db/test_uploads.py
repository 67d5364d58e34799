"""Uploads: bytes that come in parts, from one writer at a time, who writes nothing more once somebody else has taken over."""

import hashlib
import random
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from db import uploads
from db.access import Tenant
from db.blobs import Blobs
from db.garbage import expire_uploads, sweep
from db.places import CHUNK
from db.session import Database, clock
from db.tables import blob, blob_chunk, upload
from db.uploads import Busy, Ended, Evicted, Mismatch, Upload, Writer, WrongOffset
from tests.db.given import sent

BYTES = random.Random(2).randbytes(3 * CHUNK + 777)
SHA = hashlib.sha256(BYTES).hexdigest()


def announced(db: Database, tenant: Tenant, **changes: object) -> Upload:
    request = {"purpose": "teacher", "filename": "t", "bytes": len(BYTES), "sha256": SHA, "max_bytes": 1 << 30} | changes
    return uploads.create_upload(db, tenant, **request)  # type: ignore[arg-type]


def reread(db: Database, tenant: Tenant, id: str) -> Upload:
    found = uploads.get_upload(db, tenant, id)
    assert found is not None
    return found


def append(writer: Writer, stop: int) -> None:
    writer.append(memoryview(BYTES)[writer.offset : stop])


def kept(db: Database) -> int:
    """How many bytes of blobs there are, wherever they lie."""
    with db.read() as tx:
        rows = tx.execute(sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(blob_chunk.c.data)), 0))).scalar_one()
    files = [] if db.directory is None else [path for path in db.directory.rglob("*") if path.is_file()]
    return int(rows) + sum(path.stat().st_size for path in files)


def test_bytes_that_came_in_parts_are_the_bytes(placed: Database, tenant: Tenant) -> None:
    new = announced(placed, tenant)
    assert (new.status, new.offset, new.failed) == ("pending", 0, False)
    offset = 0
    for stop in (1, 5, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, len(BYTES)):
        writer = uploads.write(placed, tenant, new.id, offset=offset)
        append(writer, stop)
        offset = writer.offset
        assert reread(placed, tenant, new.id).offset == offset == stop
        writer.release()
    assert not Blobs(placed, tenant).has(SHA)
    writer = uploads.write(placed, tenant, new.id, offset=len(BYTES))
    assert writer.digest() == SHA
    done = writer.complete(SHA)
    assert (done.status, done.offset) == ("completed", len(BYTES))
    assert b"".join(Blobs(placed, tenant).get(SHA)) == BYTES
    assert (Blobs(placed, tenant).file(SHA) is not None) == (placed.directory is not None)
    assert kept(placed) == len(BYTES)


def test_all_rows_but_the_last_are_whole_mebibytes(database: Database, tenant: Tenant) -> None:
    writer = uploads.write(database, tenant, announced(database, tenant).id, offset=0)
    for stop in (10, CHUNK + 10, CHUNK + 20, len(BYTES)):
        append(writer, stop)
    with database.read() as tx:
        lengths = tx.execute(sa.select(sa.func.length(blob_chunk.c.data)).order_by(blob_chunk.c.i)).scalars().all()
    assert lengths == [CHUNK, CHUNK, CHUNK, 777]


def test_there_is_one_writer_until_it_lets_go(placed: Database, tenant: Tenant) -> None:
    id = announced(placed, tenant).id
    writer = uploads.write(placed, tenant, id, offset=0)
    with pytest.raises(Busy):
        uploads.write(placed, tenant, id, offset=0)
    with pytest.raises(Busy):
        uploads.delete_upload(placed, tenant, id)
    append(writer, 9)
    writer.release()
    append(uploads.write(placed, tenant, id, offset=9), 10)


def test_a_writer_that_gives_no_sign_of_life_is_dead(placed: Database, tenant: Tenant) -> None:
    id = announced(placed, tenant).id
    old = uploads.write(placed, tenant, id, offset=0)
    append(old, 9)
    time.sleep(0.05)
    new = uploads.write(placed, tenant, id, offset=9, stale=0.04)
    with pytest.raises(Evicted):
        append(old, 12)
    append(new, 12)


def test_signs_of_life_keep_a_writer(placed: Database, tenant: Tenant) -> None:
    id = announced(placed, tenant).id
    writer = uploads.write(placed, tenant, id, offset=0)
    time.sleep(0.05)
    writer.live()
    with pytest.raises(Busy):
        uploads.write(placed, tenant, id, offset=0, stale=0.04)


def test_an_evicted_writer_changes_nothing_whatever_it_tries(placed: Database, tenant: Tenant) -> None:
    id = announced(placed, tenant).id
    old = uploads.write(placed, tenant, id, offset=0)
    append(old, CHUNK + 5)
    evicted = uploads.evict(placed, tenant, id)
    assert evicted is not None
    assert evicted.offset == CHUNK + 5
    new = uploads.write(placed, tenant, id, offset=CHUNK + 5)
    append(new, CHUNK + 9)
    for attempt in (lambda: old.append(memoryview(bytes(100))), old.live, lambda: old.complete(SHA), lambda: old.complete("0" * 64)):
        with pytest.raises(Evicted):
            attempt()
    old.release()
    append(new, len(BYTES))
    assert new.digest() == SHA
    assert new.complete(SHA).status == "completed"
    assert b"".join(Blobs(placed, tenant).get(SHA)) == BYTES


def test_another_offset_than_the_kept_one_is_told(placed: Database, tenant: Tenant) -> None:
    id = announced(placed, tenant).id
    writer = uploads.write(placed, tenant, id, offset=0)
    append(writer, 9)
    writer.release()
    for offset in (0, 8, 10):
        with pytest.raises(WrongOffset) as wrong:
            uploads.write(placed, tenant, id, offset=offset)
        assert wrong.value.expected == 9


def test_a_start_anew_takes_what_came_before_away(placed: Database, tenant: Tenant) -> None:
    id = announced(placed, tenant).id
    writer = uploads.write(placed, tenant, id, offset=0)
    writer.append(memoryview(b"other bytes"))
    writer.release()
    again = uploads.write(placed, tenant, id, offset=None)
    assert kept(placed) == 0
    append(again, len(BYTES))
    assert again.complete(again.digest()).status == "completed"
    assert kept(placed) == len(BYTES)


def test_bytes_with_another_digest_wait_a_day_and_may_come_again_from_the_start(placed: Database, tenant: Tenant) -> None:
    id = announced(placed, tenant).id
    writer = uploads.write(placed, tenant, id, offset=0)
    writer.append(memoryview(bytes(len(BYTES))))
    with pytest.raises(Mismatch, match=SHA):
        writer.complete(writer.digest())
    failed = reread(placed, tenant, id)
    assert (failed.status, failed.offset, failed.failed) == ("pending", 0, True)
    assert failed.expires_at - failed.created_at == pytest.approx(86400, abs=5)
    assert kept(placed) == len(BYTES)
    assert sweep(placed, older=0) == 0
    again = uploads.write(placed, tenant, id, offset=0)
    assert (kept(placed), reread(placed, tenant, id).failed) == (0, False)
    append(again, len(BYTES))
    assert again.complete(again.digest()).status == "completed"


def test_bytes_that_the_tenant_has_already_are_kept_once_and_mended(placed: Database, tenant: Tenant) -> None:
    sent(placed, tenant, BYTES)
    sent(placed, tenant, BYTES)
    assert kept(placed) == len(BYTES)
    if placed.directory is None:
        with placed.begin() as tx:
            tx.execute(sa.delete(blob_chunk).where(blob_chunk.c.i == 1))
    else:
        Blobs(placed, tenant).file(SHA).unlink()  # type: ignore[union-attr]
    sent(placed, tenant, BYTES)
    assert b"".join(Blobs(placed, tenant).get(SHA)) == BYTES


def test_an_upload_waits_a_week_after_its_last_byte_and_then_goes_with_all_that_came(placed: Database, tenant: Tenant) -> None:
    new = announced(placed, tenant, ttl=0.0)
    writer = uploads.write(placed, tenant, new.id, offset=0)
    append(writer, 9)
    found = reread(placed, tenant, new.id)
    assert found.expires_at - found.created_at == pytest.approx(7 * 86400, abs=5)
    assert (expire_uploads(placed), sweep(placed, older=0), kept(placed)) == (0, 0, 9)
    with placed.begin() as tx:
        tx.execute(sa.update(upload).values(expires_at=clock() - 1))
    assert (expire_uploads(placed), kept(placed)) == (1, 0)
    with pytest.raises(Evicted):
        append(writer, 12)


def test_a_deleted_upload_takes_nothing_and_leaves_nothing(placed: Database, tenant: Tenant) -> None:
    id = announced(placed, tenant).id
    writer = uploads.write(placed, tenant, id, offset=0)
    append(writer, 9)
    writer.release()
    assert uploads.delete_upload(placed, tenant, id)
    assert not uploads.delete_upload(placed, tenant, id)
    assert kept(placed) == 0
    with pytest.raises(Ended, match="cancelled"):
        uploads.write(placed, tenant, id, offset=9)


def test_a_completed_upload_takes_nothing_more(placed: Database, tenant: Tenant) -> None:
    id = sent(placed, tenant, BYTES).id
    with pytest.raises(Ended, match="completed"):
        uploads.write(placed, tenant, id, offset=None)
    with pytest.raises(KeyError):
        uploads.write(placed, tenant, "upl_0", offset=0)


def test_what_a_file_holds_beyond_the_kept_offset_is_written_over(beside: Database, tenant: Tenant, tmp_path: Path) -> None:
    """A crash between the file's write and the row's: the bytes were never acknowledged, and another sender brings others."""
    id = announced(beside, tenant).id
    writer = uploads.write(beside, tenant, id, offset=0)
    append(writer, 9)
    (file,) = (path for path in (tmp_path / "blobs").rglob("*") if path.is_file())
    with file.open("ab") as torn:
        torn.write(b"never acknowledged")
    writer.release()
    again = uploads.write(beside, tenant, id, offset=9)
    append(again, len(BYTES))
    again.complete(again.digest())
    assert b"".join(Blobs(beside, tenant).get(SHA)) == BYTES


def test_uploads_are_found_by_digest_and_state_newest_first(database: Database, tenant: Tenant) -> None:
    first, second = announced(database, tenant), announced(database, tenant)
    other, done = announced(database, tenant, sha256="0" * 64), sent(database, tenant, BYTES)
    found = uploads.list_uploads(database, tenant, limit=9)
    assert [one.id for one in found] == [done.id, other.id, second.id, first.id]
    pending = uploads.list_uploads(database, tenant, limit=9, sha256=SHA, status="pending")
    assert [one.id for one in pending] == [second.id, first.id]
    assert [one.id for one in uploads.list_uploads(database, tenant, limit=1, after=second.id)] == [first.id]


def test_an_upload_larger_than_is_taken_is_refused(database: Database, tenant: Tenant) -> None:
    with pytest.raises(uploads.TooLarge, match="101"):
        announced(database, tenant, bytes=101, max_bytes=100)


def test_a_crash_after_the_bytes_got_their_name_loses_nothing(placed: Database, tenant: Tenant) -> None:
    id = announced(placed, tenant).id
    writer = uploads.write(placed, tenant, id, offset=0)
    append(writer, len(BYTES))
    Blobs(placed, tenant).name(writer.blob, SHA, len(BYTES))  # and then the process dies
    uploads.evict(placed, tenant, id)
    again = uploads.write(placed, tenant, id, offset=len(BYTES))
    assert again.complete(again.digest()).status == "completed"
    assert b"".join(Blobs(placed, tenant).get(SHA)) == BYTES
    with placed.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(blob)).scalar_one() == 1
