"""What tenants may ask: granted twice the same, refused where the state says no, for every kind of work."""

import pytest
import sqlalchemy as sa

from db import assets, life
from db.access import Tenant
from db.assets import Asset
from db.session import Database
from db.states import KINDS, Kind
from db.tables import checkpoint
from tests.db.given import IN_EACH_STATE, PROBLEM, claimed, created, reread, running, submitted, told, uploaded


def test_a_wish_asked_for_again_is_granted_and_told_once(database: Database, tenant: Tenant) -> None:
    for wish in (life.pause, life.resume, life.cancel):
        claim = running(database, tenant)
        if wish is life.resume:
            life.pause(database, tenant, claim.job.id)
        first = wish(database, tenant, claim.job.id)
        assert first is not None
        assert wish(database, tenant, claim.job.id) == first == reread(database, claim.job)
        life.yield_(database, claim)
        life.cancel(database, tenant, claim.job.id)


def test_a_paused_job_goes_on_where_it_was(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    life.pause(database, tenant, claim.job.id)
    assert life.yield_(database, claim) == "paused"
    resumed = life.resume(database, tenant, claim.job.id)
    assert resumed is not None
    assert (resumed.state, resumed.desired) == ("queued", "run")
    assert claimed(database).fence == 2


def test_a_cancel_has_no_way_back(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    life.cancel(database, tenant, claim.job.id)
    assert life.pause(database, tenant, claim.job.id) is None
    assert life.resume(database, tenant, claim.job.id) is None
    assert reread(database, claim.job).desired == "cancel"


def test_a_released_job_starts_with_its_crashes_forgiven(database: Database, tenant: Tenant) -> None:
    claim = IN_EACH_STATE["quarantined"](database, tenant)
    released = life.release(database, tenant, claim.job.id)
    assert released is not None
    assert (released.state, released.crashes, released.code, released.problem) == ("queued", 0, None, None)
    assert life.release(database, tenant, claim.job.id) == released
    taken = claimed(database).job
    assert life.release(database, tenant, taken.id) == taken  # a wish told again when it was taken already


def test_a_released_inspection_makes_its_asset_processing_once_more(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant)
    life.retry(database, claimed(database), code="native_crash", problem=PROBLEM, backoff=0, max_crashes=1)
    assert _status(database, tenant, asset) == ("rejected", asset.job)
    life.release(database, tenant, asset.job)
    assert _status(database, tenant, asset) == ("processing", asset.job)
    life.complete(database, claimed(database), result={"report": {"parameters": 3}})
    assert _status(database, tenant, asset) == ("ready", asset.job)


@pytest.mark.parametrize("end", ["cancel", "fail"])
def test_a_retried_inspection_takes_over_the_asset(database: Database, tenant: Tenant, end: str) -> None:
    asset = created(database, tenant)
    if end == "cancel":
        life.cancel(database, tenant, asset.job)
    else:
        life.fail(database, claimed(database), code="internal_error", problem=PROBLEM)
    new = life.retry_as_new(database, tenant, asset.job)
    assert new is not None
    assert (new.kind, new.parent, new.asset) == ("inspect", asset.job, asset.id)
    assert _status(database, tenant, asset) == ("processing", new.id)
    assert life.retry_as_new(database, tenant, asset.job) is None  # another job inspects it by now
    life.complete(database, claimed(database), result={"report": {"parameters": 3}})
    assert _status(database, tenant, asset) == ("ready", new.id)


def test_an_inspection_whose_asset_is_gone_is_not_retried(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant)
    assets.delete_asset(database, tenant, asset.id)
    assert life.retry_as_new(database, tenant, asset.job) is None


def test_a_paused_inspection_leaves_its_asset_in_processing(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant)
    for wish in (life.pause, life.resume):
        assert wish(database, tenant, asset.job) is not None
        assert _status(database, tenant, asset) == ("processing", asset.job)


def _status(db: Database, tenant: Tenant, asset: Asset) -> tuple[str, str]:
    found = assets.get_asset(db, tenant, asset.id)
    assert found is not None
    return found.status, found.job


def test_a_retry_is_a_new_job_that_starts_from_the_last_checkpoint(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant, metadata={"a": 1}, seconds_limit=9.0, priority=4, queue="cpu")
    kept = uploaded(database, tenant, b"state")
    life.keep_checkpoint(database, claim, blob=kept, done=7, fit=0, step=7, values={})
    life.fail(database, claim, code="diverged", problem=PROBLEM)
    old = reread(database, claim.job)
    new = life.retry_as_new(database, tenant, old.id)
    assert new is not None
    assert (new.parent, new.state, new.checkpoint, new.attempt, new.problem) == (old.id, "queued", old.checkpoint, 0, None)
    same = ("name", "spec", "spec_sha", "inputs", "queue", "priority", "seconds_limit", "metadata")
    assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]
    assert reread(database, old) == old
    later = uploaded(database, tenant, b"later state")
    assert life.keep_checkpoint(database, claimed(database), blob=later, done=8, fit=0, step=8, values={})


def test_a_retry_from_the_start_leaves_the_checkpoints_aside(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    life.keep_checkpoint(database, claim, blob=uploaded(database, tenant, b"state"), done=7, fit=0, step=7, values={})
    life.fail(database, claim, code="diverged", problem=PROBLEM)
    new = life.retry_as_new(database, tenant, claim.job.id, start="start")
    assert new is not None
    assert (new.parent, new.checkpoint) == (claim.job.id, None)
    assert reread(database, claim.job).checkpoint is not None


def test_a_retry_has_every_checkpoint_that_was_kept(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    for done in (3, 7):
        blob = uploaded(database, tenant, f"state {done}".encode())
        life.keep_checkpoint(database, claim, blob=blob, done=done, fit=0, step=done, values={"accuracy": done / 10})
    life.fail(database, claim, code="diverged", problem=PROBLEM)
    new = life.retry_as_new(database, tenant, claim.job.id)
    assert new is not None
    with database.read() as tx:
        kept = sa.select(checkpoint.c.done, checkpoint.c.blob, checkpoint.c.measured).order_by(checkpoint.c.done)
        old, copied = (tx.execute(kept.where(checkpoint.c.job_id == id)).all() for id in (claim.job.id, new.id))
    assert old == copied
    assert [row.done for row in copied] == [3, 7]


def test_a_retry_with_the_same_key_is_one_job(database: Database, tenant: Tenant) -> None:
    job = submitted(database, tenant)
    life.cancel(database, tenant, job.id)
    first, again, other = (life.retry_as_new(database, tenant, job.id, idempotency=(key, "body")) for key in ("k", "k", "another"))
    assert first is not None
    assert other is not None
    assert first == again
    assert first.id != other.id
    with pytest.raises(life.KeyReused):
        life.retry_as_new(database, tenant, job.id, idempotency=("k", "another body"))


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_job_that_failed_or_was_cancelled_is_retried(database: Database, tenant: Tenant, kind: Kind) -> None:
    for state, make in IN_EACH_STATE.items():
        job = make(database, tenant, kind=kind).job
        new = life.retry_as_new(database, tenant, job.id)
        assert (new is not None) == (state in ("failed", "cancelled")), state
        for left in (job, new):
            if left is not None:
                life.cancel(database, tenant, left.id)  # so that the next claim finds the next job


def test_a_retry_counts_as_one_more_waiting_job(database: Database, tenant: Tenant) -> None:
    job = submitted(database, tenant)
    life.cancel(database, tenant, job.id)
    submitted(database, tenant)
    try:
        life.retry_as_new(database, tenant, job.id, max_queued=1)
    except life.TooManyQueued:
        assert len(told(database, job)) == 2
    else:
        raise AssertionError("it was taken")
