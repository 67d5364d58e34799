"""A checkpoint that cannot be read is forgotten, and the one before it is where the job goes on."""

import pytest
import sqlalchemy as sa

from db import life
from db.access import Tenant
from db.blobs import Blobs
from db.session import Database
from db.tables import checkpoint
from tests.db.given import reread, running, told, uploaded


@pytest.fixture
def claim(database: Database, tenant: Tenant) -> life.Claim:
    """A running job with checkpoints at 10 and at 20."""
    claim = running(database, tenant)
    for done in (10, 20):
        blob = uploaded(database, tenant, f"state at {done}".encode())
        assert life.keep_checkpoint(database, claim, blob=blob, done=done, fit=0, step=done, values={})
    return claim


def _rows(db: Database) -> list[int]:
    with db.read() as tx:
        return list(tx.execute(sa.select(checkpoint.c.done).order_by(checkpoint.c.done)).scalars())


def test_the_one_before_is_used_and_then_none(database: Database, tenant: Tenant, claim: life.Claim) -> None:
    bad = reread(database, claim.job).checkpoint
    assert bad is not None
    job = life.fall_back(database, claim, done=20, reason="a chunk is lost")
    assert job is not None
    assert job.checkpoint is not None
    assert job.checkpoint["done"] == 10
    assert told(database, job)[-1].kind == "checkpoint_corrupt"
    assert told(database, job)[-1].data == {"done": 20, "reason": "a chunk is lost", "resumes_from": 10}
    assert _rows(database) == [10]
    assert not Blobs(database, tenant).has(bad["blob"])
    job = life.fall_back(database, claim, done=10, reason="this one too")
    assert job is not None
    assert job.checkpoint is None
    assert told(database, job)[-1].data["resumes_from"] is None
    assert _rows(database) == []


def test_asked_again_it_changes_nothing_more(database: Database, claim: life.Claim) -> None:
    first = life.fall_back(database, claim, done=20, reason="bad")
    assert life.fall_back(database, claim, done=20, reason="bad") == first
    assert _rows(database) == [10]


def test_later_checkpoints_are_kept_again(database: Database, tenant: Tenant, claim: life.Claim) -> None:
    life.fall_back(database, claim, done=20, reason="bad")
    again = uploaded(database, tenant, b"state at 20")
    assert life.keep_checkpoint(database, claim, blob=again, done=20, fit=0, step=20, values={})
    assert reread(database, claim.job).checkpoint == {"blob": again, "done": 20, "fit": 0, "step": 20}


def test_whoever_lost_the_claim_makes_nothing_fall_back(database: Database, claim: life.Claim) -> None:
    life.renew(database, claim, lease=-1)
    life.reap(database, max_crashes=3, since=1, lease=0)
    assert life.fall_back(database, claim, done=20, reason="bad") is None
    assert _rows(database) == [10, 20]
