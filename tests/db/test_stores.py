"""One suite for every store of blobs: a folder, the database on SQLite and on PostgreSQL, and the database with a directory beside it."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.blobs import CHUNK, BlobStore, Directory
from db.access import Tenant
from db.blobs import Blobs
from db.session import Database

BYTES = random.Random(0).randbytes(2 * CHUNK + 12345)
LAST = len(BYTES)
EDGES = [
    (0, None), (0, 0), (0, 1), (0, CHUNK - 1), (0, CHUNK), (0, CHUNK + 1), (0, LAST - 1), (0, LAST), (0, LAST + 1),
    (1, None), (CHUNK - 1, CHUNK), (CHUNK - 1, CHUNK + 1), (CHUNK, CHUNK), (CHUNK, CHUNK + 1), (CHUNK, 2 * CHUNK), (CHUNK + 1, None),
    (CHUNK - 1, 2 * CHUNK + 1), (2 * CHUNK, None), (LAST - 1, LAST), (LAST - 1, None), (LAST, None), (LAST + 5, None), (5, 3),
]  # fmt: skip


@pytest.fixture(params=["folder", "rows", "files"])
def store(request: pytest.FixtureRequest, database: Database, beside: Database, tenant: Tenant, tmp_path: Path) -> BlobStore:
    """An empty store."""
    if request.param == "folder":
        return Directory(tmp_path / "folder")
    return Blobs(database if request.param == "rows" else beside, tenant, large=True)


@pytest.mark.parametrize("piece", [LAST, 700_000, CHUNK, 3 * CHUNK])
def test_bytes_come_back_by_their_digest_whatever_pieces_they_came_in(store: BlobStore, piece: int) -> None:
    digest = store.put(BYTES[start : start + piece] for start in range(0, LAST, piece))
    assert digest == hashlib.sha256(BYTES).hexdigest()
    assert b"".join(store.get(digest)) == BYTES


def test_a_slice_is_the_slice_of_the_bytes(store: BlobStore) -> None:
    digest = store.put([BYTES])
    for start, stop in EDGES:
        assert b"".join(store.get(digest, start=start, stop=stop)) == BYTES[start:stop], (start, stop)


def test_the_slices_of_nothing_are_nothing(store: BlobStore) -> None:
    digest = store.put([])
    assert [list(store.get(digest, start=start, stop=stop)) for start, stop in ((0, None), (0, 0), (0, 1), (1, None))] == [[]] * 4


def test_absent_bytes_are_a_key_error_also_in_part(store: BlobStore) -> None:
    for start in (0, 1):
        with pytest.raises(KeyError):
            list(store.get("0" * 64, start=start))


def test_the_same_bytes_again_are_the_same_bytes(store: BlobStore) -> None:
    assert store.put([BYTES]) == store.put([BYTES[:5], BYTES[5:]])
    assert b"".join(store.get(hashlib.sha256(BYTES).hexdigest())) == BYTES


def test_bytes_whose_source_broke_are_nowhere(store: BlobStore) -> None:
    def breaking() -> Iterator[bytes]:
        yield BYTES
        raise ConnectionError("the line broke")

    with pytest.raises(ConnectionError):
        store.put(breaking())
    with pytest.raises(KeyError):
        list(store.get(hashlib.sha256(BYTES).hexdigest()))
