"""Bytes: whole or invisible, once a tenant, verified while they are read."""

import hashlib
import random
import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from db.access import Tenant
from db.blobs import BATCH, Blobs
from db.garbage import sweep
from db.places import CHUNK, CorruptBlob
from db.session import Database
from db.tables import blob, blob_chunk

BYTES = random.Random(0).randbytes(2 * CHUNK + 12345)


def _rows(db: Database) -> tuple[int, int]:
    """How many blobs and chunks there are."""
    with db.read() as tx:
        count = sa.select(sa.func.count())
        return tx.execute(count.select_from(blob)).scalar_one(), tx.execute(count.select_from(blob_chunk)).scalar_one()


@pytest.mark.parametrize("piece", [len(BYTES), 700_000, CHUNK, 3 * CHUNK])
def test_bytes_come_back_as_they_went_in_whatever_pieces_they_came_in(database: Database, tenant: Tenant, piece: int) -> None:
    blobs = Blobs(database, tenant)
    digest = blobs.put(BYTES[start : start + piece] for start in range(0, len(BYTES), piece))
    assert digest == hashlib.sha256(BYTES).hexdigest()
    assert [len(chunk) for chunk in blobs.get(digest)] == [CHUNK, CHUNK, 12345]
    assert b"".join(blobs.get(digest)) == BYTES
    assert (blobs.has(digest), blobs.size(digest)) == (True, len(BYTES))


def test_nothing_is_a_blob_too(database: Database, tenant: Tenant) -> None:
    digest = Blobs(database, tenant).put([])
    assert list(Blobs(database, tenant).get(digest)) == []
    assert Blobs(database, tenant).size(digest) == 0


def test_the_same_bytes_are_kept_once_a_tenant(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    digest = Blobs(database, tenant).put([BYTES])
    assert Blobs(database, tenant).put([BYTES]) == digest
    assert _rows(database) == (1, 3)
    assert not Blobs(database, stranger).has(digest)
    assert Blobs(database, stranger).put([BYTES]) == digest
    assert _rows(database) == (2, 6)


def test_another_tenants_bytes_are_absent(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    digest = Blobs(database, tenant).put([b"x"])
    theirs = Blobs(database, stranger)
    with pytest.raises(KeyError):
        list(theirs.get(digest))
    with pytest.raises(KeyError):
        theirs.size(digest)


def test_bytes_on_their_way_are_invisible_and_gone_if_the_way_ends(database: Database, tenant: Tenant) -> None:
    def breaking() -> Iterator[bytes]:
        yield 2 * BYTES
        assert _rows(database) == (1, BATCH // CHUNK)
        assert not Blobs(database, tenant).has(hashlib.sha256(BYTES).hexdigest())
        raise ConnectionError("the client left")

    with pytest.raises(ConnectionError):
        Blobs(database, tenant).put(breaking())
    assert _rows(database) == (0, 0)


def test_what_a_dead_process_left_half_written_is_swept_and_nothing_else(database: Database, tenant: Tenant) -> None:
    digest = Blobs(database, tenant).put([b"whole"])
    with database.begin() as tx:
        tx.execute(sa.insert(blob).values(id="blob_half", tenant_id=tenant.id, touched_at=0))
        tx.execute(sa.insert(blob_chunk), [{"blob_id": "blob_half", "i": i, "data": b"x"} for i in range(450)])
    assert sweep(database, older=60) == 1
    assert _rows(database) == (1, 1)
    assert list(Blobs(database, tenant).get(digest)) == [b"whole"]


@pytest.mark.parametrize(
    "harm",
    [sa.delete(blob_chunk).where(blob_chunk.c.i == 1), sa.update(blob_chunk).where(blob_chunk.c.i == 0).values(data=b"others")],
    ids=["lost", "changed"],
)
def test_bytes_that_changed_are_noticed_while_reading(database: Database, tenant: Tenant, harm: sa.Executable) -> None:
    digest = Blobs(database, tenant).put([BYTES])
    with database.begin() as tx:
        tx.execute(harm)
    with pytest.raises(CorruptBlob):
        list(Blobs(database, tenant).get(digest))


def test_two_who_bring_the_same_bytes_at_once_keep_them_once(connected: Callable[[], Database], database: Database, tenant: Tenant) -> None:
    for turn in range(5):
        gate = threading.Barrier(2)
        digests: list[str] = []

        def bring(db: Database, gate: threading.Barrier = gate, turn: int = turn, digests: list[str] = digests) -> None:
            def chunks() -> Iterator[bytes]:
                yield bytes([turn])
                gate.wait(10)

            digests.append(Blobs(db, tenant).put(chunks()))

        both = [threading.Thread(target=bring, args=(connected(),)) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join(30)
        assert digests == [hashlib.sha256(bytes([turn])).hexdigest()] * 2
    assert _rows(database) == (5, 5)


@pytest.mark.parametrize("dialect", [pytest.param("postgresql", marks=pytest.mark.servers)])
def test_postgresql_does_not_try_to_compress_chunks(database: Database) -> None:
    with database.read() as tx:
        stored = tx.execute(sa.text("SELECT attstorage FROM pg_attribute WHERE attrelid = 'blob_chunk'::regclass AND attname = 'data'"))
        assert stored.scalar_one() in ("e", b"e")


@pytest.mark.parametrize(
    "harm",
    [
        sa.delete(blob_chunk).where(blob_chunk.c.i == 1),
        sa.update(blob_chunk).where(blob_chunk.c.i == 0).values(data=b"others"),
        sa.update(blob).values(size=CHUNK),
    ],
    ids=["lost", "changed", "shortened"],
)
def test_bytes_that_come_again_mend_those_that_went_bad(database: Database, tenant: Tenant, harm: sa.Executable) -> None:
    digest = Blobs(database, tenant).put([BYTES])
    with database.begin() as tx:
        tx.execute(harm)
    assert Blobs(database, tenant).put([BYTES]) == digest
    assert b"".join(Blobs(database, tenant).get(digest)) == BYTES
    assert _rows(database) == (1, 3)
