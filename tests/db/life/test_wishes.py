"""What tenants may ask: granted twice the same, refused where the state says no, and never for an inspection."""

from db import life
from db.access import Tenant
from db.session import Database
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


def test_an_inspection_takes_no_wishes(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant)
    assert life.cancel(database, tenant, asset.job) is None
    assert life.pause(database, tenant, asset.job) is None
    assert life.resume(database, tenant, asset.job) is None
    claim = claimed(database)
    life.retry(database, claim, code="native_crash", problem=PROBLEM, backoff=0, max_crashes=1)
    assert life.release(database, tenant, asset.job) is None
    assert life.retry_as_new(database, tenant, asset.job) is None


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


def test_only_a_job_that_failed_or_was_cancelled_is_retried(database: Database, tenant: Tenant) -> None:
    for state, make in IN_EACH_STATE.items():
        job = make(database, tenant).job
        assert (life.retry_as_new(database, tenant, job.id) is not None) == (state in ("failed", "cancelled")), state


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
