"""Large blobs in a directory: a file for each, of one tenant, whole before its row says so, and gone with it."""

import os
import random
import stat
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from db.access import Tenant
from db.blobs import Blobs, discard, forget
from db.garbage import collect, sweep
from db.places import CHUNK, CorruptBlob, Elsewhere, File
from db.session import Database
from db.tables import blob, blob_chunk

BYTES = random.Random(1).randbytes(CHUNK + 99)


def _files(db: Database) -> list[Path]:
    assert db.directory is not None
    return sorted(path for path in db.directory.rglob("*") if path.is_file())


def _rows(db: Database) -> int:
    with db.read() as tx:
        return tx.execute(sa.select(sa.func.count()).select_from(blob_chunk)).scalar_one()


def test_what_is_large_lies_in_the_directory_and_all_else_in_the_database(beside: Database, tenant: Tenant) -> None:
    large, small = Blobs(beside, tenant, large=True), Blobs(beside, tenant)
    kept, written = large.put([BYTES]), small.put([BYTES[1:]])
    assert ([path.read_bytes() for path in _files(beside)], _rows(beside)) == ([BYTES], 2)
    assert large.file(kept) == small.file(kept) == _files(beside)[0]
    assert small.file(written) is None
    assert b"".join(large.get(written)) == BYTES[1:]
    assert b"".join(small.get(kept)) == BYTES


def test_a_kept_file_is_for_reading_only(beside: Database, tenant: Tenant) -> None:
    digest = Blobs(beside, tenant, large=True).put([BYTES])
    path = Blobs(beside, tenant).file(digest)
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_two_tenants_with_the_same_bytes_share_no_file(beside: Database, tenant: Tenant, stranger: Tenant) -> None:
    digest = Blobs(beside, tenant, large=True).put([BYTES])
    assert Blobs(beside, stranger).file(digest) is None
    assert Blobs(beside, stranger, large=True).put([BYTES]) == digest
    assert len({os.stat(path).st_ino for path in _files(beside)}) == 2
    assert len(_files(beside)) == 2


@pytest.mark.parametrize("harm", ["lost", "changed", "shortened"])
@pytest.mark.parametrize(("was", "comes"), [(True, True), (True, False), (False, True)], ids=["file-file", "file-rows", "rows-file"])
def test_bytes_that_come_again_mend_those_that_went_bad(beside: Database, tenant: Tenant, harm: str, *, was: bool, comes: bool) -> None:
    digest = Blobs(beside, tenant, large=was).put([BYTES])
    if was:
        (file,) = _files(beside)
        file.chmod(0o600)
        file.write_bytes(bytes(len(BYTES) if harm == "changed" else 5))
        if harm == "lost":
            file.unlink()
    else:
        with beside.begin() as tx:
            if harm == "lost":
                tx.execute(sa.delete(blob_chunk).where(blob_chunk.c.i == 1))
            else:
                tx.execute(sa.update(blob_chunk).where(blob_chunk.c.i == 0).values(data=bytes(CHUNK if harm == "changed" else 5)))
    with pytest.raises(CorruptBlob):
        list(Blobs(beside, tenant).get(digest))
    assert Blobs(beside, tenant, large=comes).put([BYTES]) == digest
    assert b"".join(Blobs(beside, tenant).get(digest)) == BYTES
    assert (len(_files(beside)), _rows(beside)) == ((1, 0) if comes else (0, 2))


def test_a_file_goes_with_its_blob(beside: Database, tenant: Tenant) -> None:
    digest = Blobs(beside, tenant, large=True).put([BYTES])
    with beside.begin() as tx:
        (id,) = forget(tx, tenant.id, digest)
    discard(beside, id)
    assert _files(beside) == []


def test_a_file_that_nothing_names_goes_with_age(beside: Database, tenant: Tenant) -> None:
    Blobs(beside, tenant, large=True).put([BYTES])
    assert collect(beside, older=0) == 1
    assert _files(beside) == []


def test_a_half_written_file_is_swept(beside: Database, tenant: Tenant) -> None:
    with beside.begin() as tx:
        id = Blobs(beside, tenant, large=True).begin(tx)
    File(beside, tenant.id, id).write(0, memoryview(BYTES))
    assert sweep(beside, older=0) == 1
    assert _files(beside) == []


def test_a_process_that_was_not_told_of_the_directory_reads_nothing_and_loses_nothing(
    database: Database, beside: Database, tenant: Tenant
) -> None:
    digest = Blobs(beside, tenant, large=True).put([BYTES])
    with pytest.raises(Elsewhere, match="RETORT_BLOBS"):
        list(Blobs(database, tenant).get(digest))
    collect(database, older=0)
    with database.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(blob)).scalar_one() == 1
    assert len(_files(beside)) == 1
    assert sweep(beside, older=0) == 1
    assert _files(beside) == []


def test_a_writer_waits_for_one_that_was_evicted_and_still_writes(beside: Database, tenant: Tenant) -> None:
    file = File(beside, tenant.id, "blob_x")
    file.write(0, memoryview(b"old"))
    order = list[str]()
    held = threading.Event()

    def old() -> None:
        with File(beside, tenant.id, "blob_x").alone():
            held.set()
            time.sleep(0.2)
            order.append("old")

    one = threading.Thread(target=old)
    one.start()
    assert held.wait(30)
    with file.alone():
        order.append("new")
    one.join(30)
    assert order == ["old", "new"]
