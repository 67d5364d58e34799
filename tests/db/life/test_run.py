"""While a job runs: fair claims, leases, fenced writes, checkpoints."""

from collections import deque

import pytest
import sqlalchemy as sa

from db import jobs, life
from db.access import Tenant
from db.blobs import Blobs
from db.session import Database
from db.tables import checkpoint, job
from db.tables import tenant as tenants
from tests.db.given import LEASE, OVER, PROBLEM, claimed, created, reread, running, submitted, told, uploaded


def test_a_claim_raises_the_fence_and_says_who_runs(database: Database, tenant: Tenant) -> None:
    submitted(database, tenant)
    claim = claimed(database, worker="here:1")
    assert (claim.fence, claim.job.fence, claim.job.state, claim.job.owner, claim.job.attempt) == (1, 1, "running", "here:1", 1)
    assert told(database, claim.job)[-1].data == {"state": "running", "desired": "run", "worker": "here:1"}
    (attempt,) = jobs.attempts(database, tenant, claim.job.id)
    assert (attempt.fence, attempt.worker, attempt.ended_at) == (1, "here:1", None)


def test_a_worker_takes_jobs_of_its_queues_and_of_any(database: Database, tenant: Tenant) -> None:
    gpu = submitted(database, tenant, queue="gpu")
    assert life.claim(database, worker="w", queues=["cpu"], lease=LEASE) is None
    anywhere = submitted(database, tenant, queue="any")
    assert [found.job.id for found in [life.claim(database, worker="w", queues=["cpu"], lease=LEASE)] if found] == [anywhere.id]
    assert claimed(database).job.id == gpu.id


def test_the_tenant_with_the_fewest_running_jobs_is_first(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    ours = [submitted(database, tenant, priority=9) for _ in range(3)]
    theirs = submitted(database, stranger)
    assert [claimed(database).job.id for _ in range(4)] == [ours[0].id, theirs.id, ours[1].id, ours[2].id]


def test_within_a_tenant_priority_is_first_and_then_age(database: Database, tenant: Tenant) -> None:
    old, young = submitted(database, tenant), submitted(database, tenant)
    urgent = submitted(database, tenant, priority=1)
    assert [claimed(database).job.id for _ in range(3)] == [urgent.id, old.id, young.id]


def test_a_tenant_runs_no_more_jobs_than_it_may(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    with database.begin() as tx:
        tx.execute(sa.update(tenants).where(tenants.c.id == tenant.id).values(max_running=1))
    submitted(database, tenant)
    first = claimed(database)
    second = submitted(database, tenant)
    theirs = submitted(database, stranger)
    assert claimed(database).job.id == theirs.id
    assert life.claim(database, worker="w", queues=["cpu"], lease=LEASE) is None
    life.complete(database, first, result={})
    assert claimed(database).job.id == second.id


def test_a_job_that_is_to_wait_is_not_claimed(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    life.retry(database, claim, code="native_crash", problem=PROBLEM, backoff=3600, max_crashes=3)
    assert life.claim(database, worker="w", queues=["cpu"], lease=LEASE) is None


def test_a_renewal_prolongs_the_lease_and_brings_the_wish(database: Database, tenant: Tenant) -> None:
    submitted(database, tenant)
    claim = claimed(database, lease=OVER)
    assert life.renew(database, claim, lease=LEASE) == life.Renewal("run", False)
    assert life.reap(database, max_crashes=3, since=LEASE, lease=LEASE) == []
    life.cancel(database, tenant, claim.job.id)
    assert life.renew(database, claim, lease=LEASE) == life.wish(database, claim) == life.Renewal("cancel", False)


def test_whoever_lost_the_claim_can_write_nothing(database: Database, tenant: Tenant) -> None:
    submitted(database, tenant)
    lost = claimed(database, lease=OVER)
    life.reap(database, max_crashes=3, since=LEASE, lease=LEASE)
    now = claimed(database, worker="w2")
    before = reread(database, now.job)
    blob = uploaded(database, tenant)
    assert life.renew(database, lost, lease=LEASE) is None
    assert life.wish(database, lost) is None
    assert not life.record(database, lost, [("log", {})])
    assert not life.record(database, lost, [])
    assert not life.keep_checkpoint(database, lost, blob=blob, done=1, fit=0, step=1, values={})
    assert not life.complete(database, lost, result={})
    assert not life.fail(database, lost, code="diverged", problem=PROBLEM)
    assert life.retry(database, lost, code="native_crash", problem=PROBLEM, backoff=0, max_crashes=3) is None
    assert life.yield_(database, lost) is None
    life.end_attempt(database, lost, exit_code=1, signal=None, max_rss=None, code="native_crash", log_tail="")
    assert reread(database, now.job) == before


def test_events_are_appended_in_order_under_the_fence(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    assert life.record(database, claim, [("phase", {"phase": "train"}), ("log", {"message": "half a pair \ud800, a \0"})])
    assert life.record(database, claim, [])
    assert life.record(database, claim, [("log", {"message": "third"})])
    events = told(database, claim.job)[2:]
    assert [(event.seq, event.fence, event.kind) for event in events] == [(3, 1, "phase"), (4, 1, "log"), (5, 1, "log")]
    assert events[1].data == {"message": "half a pair \ud800, a \0"}


def test_a_checkpoint_is_where_the_job_goes_on(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    blob = uploaded(database, tenant, b"state at 10")
    assert life.keep_checkpoint(database, claim, blob=blob, done=10, fit=1, step=4, values={"loss": 0.5})
    assert reread(database, claim.job).checkpoint == {"blob": blob, "done": 10, "fit": 1, "step": 4}
    assert told(database, claim.job)[-1].data == {"done": 10, "fit": 1, "step": 4, "bytes": 11}
    life.yield_(database, claim)
    assert claimed(database).job.checkpoint == {"blob": blob, "done": 10, "fit": 1, "step": 4}


def test_a_checkpoint_told_again_or_older_changes_nothing(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    blob = uploaded(database, tenant)
    life.keep_checkpoint(database, claim, blob=blob, done=10, fit=0, step=10, values={})
    before = reread(database, claim.job)
    assert life.keep_checkpoint(database, claim, blob=blob, done=10, fit=0, step=10, values={})
    assert life.keep_checkpoint(database, claim, blob=blob, done=9, fit=0, step=9, values={})
    assert reread(database, claim.job) == before


def test_the_newest_two_checkpoints_stay_and_the_bytes_of_older_ones_go(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    blobs = [uploaded(database, tenant, f"state at {done}".encode()) for done in range(4)]
    for done, blob in enumerate(blobs):
        life.keep_checkpoint(database, claim, blob=blob, done=done, fit=0, step=done, values={})
    with database.read() as tx:
        assert tx.execute(sa.select(checkpoint.c.done).order_by(checkpoint.c.done)).scalars().all() == [2, 3]
    assert [Blobs(database, tenant).has(blob) for blob in blobs] == [False, False, True, True]


def test_a_checkpoint_whose_bytes_are_something_else_too_keeps_them(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    blob = uploaded(database, tenant, b"shared")
    life.keep_checkpoint(database, claim, blob=blob, done=1, fit=0, step=1, values={})
    other = running(database, tenant)
    life.complete(database, other, result={}, artifacts=[life.NewArtifact(name="m", format="f", sha256=blob, bytes=6, facts={})])
    for done in (2, 3):
        new = uploaded(database, tenant, bytes([done]))
        life.keep_checkpoint(database, claim, blob=new, done=done, fit=0, step=done, values={})
    assert Blobs(database, tenant).has(blob)


def test_a_newer_checkpoint_forgives_crashes(database: Database, tenant: Tenant) -> None:
    for done in range(1, 6):
        claim = running(database, tenant) if done == 1 else claimed(database)
        life.keep_checkpoint(database, claim, blob=uploaded(database, tenant, bytes([done])), done=done, fit=0, step=done, values={})
        assert life.retry(database, claim, code="native_crash", problem=PROBLEM, backoff=0, max_crashes=2) == "queued"
    assert life.retry(database, claimed(database), code="native_crash", problem=PROBLEM, backoff=0, max_crashes=2) == "quarantined"


def test_seconds_are_counted_while_a_job_runs_and_not_while_it_is_paused(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant, seconds_limit=3600.0)
    assert claim.job.deadline is not None
    with database.begin() as tx:  # half an hour passes
        tx.execute(sa.update(job).values(deadline=job.c.deadline - 1800))
    assert life.wish(database, claim) == life.Renewal("run", False)
    life.pause(database, tenant, claim.job.id)
    life.yield_(database, claim)
    life.resume(database, tenant, claim.job.id)
    again = claimed(database)
    assert again.job.deadline is not None
    assert again.job.deadline - claim.job.deadline == pytest.approx(-1800, abs=60)
    with database.begin() as tx:  # and the other half
        tx.execute(sa.update(job).values(deadline=job.c.deadline - 1801))
    assert life.renew(database, again, lease=LEASE) == life.Renewal("run", True)


@pytest.mark.parametrize("name", ["accuracy", "agreement"])
def test_the_best_checkpoint_stays_beside_the_newest_two(database: Database, tenant: Tenant, name: str) -> None:
    claim = running(database, tenant)
    measured: list[dict[str, float]] = [{}, *({name: value, "n": 50} for value in (0.5, 0.8, 0.8, 0.6, 0.7))]
    for done, values in enumerate(measured):
        blob = uploaded(database, tenant, f"state at {done}".encode())
        life.keep_checkpoint(database, claim, blob=blob, done=done, fit=0, step=done, values=values)
    with database.read() as tx:
        assert tx.execute(sa.select(checkpoint.c.done).order_by(checkpoint.c.done)).scalars().all() == [3, 4, 5]


def test_a_checkpoint_whose_bytes_are_gone_is_not_kept(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    with pytest.raises(KeyError):
        life.keep_checkpoint(database, claim, blob="0" * 64, done=1, fit=0, step=1, values={})
    assert reread(database, claim.job).checkpoint is None
    assert reread(database, claim.job).event_seq == 2  # submitted and claimed: nothing else was told


def test_a_flood_of_one_tenant_holds_another_up_for_one_job_at_most(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    for slots in (1, 2):
        flood = {submitted(database, tenant).id for _ in range(20)}
        served = deque(claimed(database) for _ in range(slots))
        single = submitted(database, stranger)
        life.complete(database, served.popleft(), result={})
        other = claimed(database)
        assert other.job.id == single.id
        served.append(other)
        for _ in range(len(flood) - slots):
            served.append(claimed(database))
        assert {claim.job.id for claim in served} <= flood | {single.id}
        for claim in served:
            life.complete(database, claim, result={})


def test_two_tenants_take_turns_on_one_slot_whoever_came_first(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    jobs = [submitted(database, owner) for owner in (tenant, tenant, tenant, stranger, stranger)]
    order = []
    for _ in jobs:
        claim = claimed(database)
        order.append(claim.job.tenant)
        life.complete(database, claim, result={})
    assert order == [tenant.id, stranger.id, tenant.id, stranger.id, tenant.id]


def test_an_inspection_goes_before_the_tenants_own_trainings_and_takes_its_turn(database: Database, tenant: Tenant) -> None:
    submitted(database, tenant)
    asset = created(database, tenant)
    assert claimed(database).job.id == asset.job
