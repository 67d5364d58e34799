"""The maintainer: what it takes back, when it holds still, and what it announces."""

import sqlalchemy as sa

from db import jobs, life
from db.access import Tenant
from db.session import Database
from db.tables import job
from tests.db.given import LEASE, OVER, PROBLEM, claimed, reread, running, submitted, told


def test_a_job_whose_worker_is_lost_is_queued_under_a_higher_fence(database: Database, tenant: Tenant) -> None:
    submitted(database, tenant)
    claim = claimed(database, lease=OVER)
    (reaped,) = life.reap(database, max_crashes=3, since=LEASE, lease=LEASE)
    assert (reaped.id, reaped.state, reaped.fence, reaped.crashes) == (claim.job.id, "queued", 2, 1)
    assert [(event.fence, event.kind, event.data.get("code")) for event in told(database, reaped)[-2:]] == [
        (1, "attempt", "worker_lost"),
        (2, "status", "worker_lost"),
    ]
    (attempt,) = jobs.attempts(database, tenant, claim.job.id)
    assert attempt.code == "worker_lost"
    assert claimed(database).fence == 3


def test_a_lease_that_still_runs_is_left_alone(database: Database, tenant: Tenant) -> None:
    running(database, tenant)
    assert life.reap(database, max_crashes=3, since=LEASE, lease=LEASE) == []


def test_nothing_is_reaped_until_the_database_was_seen_for_a_whole_lease(database: Database, tenant: Tenant) -> None:
    submitted(database, tenant)
    claim = claimed(database, lease=OVER)
    assert life.reap(database, max_crashes=3, since=LEASE - 0.1, lease=LEASE) == []
    assert life.renew(database, claim, lease=LEASE) is not None


def test_an_attempt_that_was_ended_before_is_not_told_again(database: Database, tenant: Tenant) -> None:
    submitted(database, tenant)
    claim = claimed(database, lease=OVER)
    life.end_attempt(database, claim, exit_code=1, signal=None, max_rss=None, code="native_crash", log_tail="")
    life.reap(database, max_crashes=3, since=LEASE, lease=LEASE)
    assert [event.data["code"] for event in told(database, claim.job, "attempt")] == ["native_crash"]


def test_a_job_that_kills_every_worker_ends_in_quarantine(database: Database, tenant: Tenant) -> None:
    job = submitted(database, tenant)
    for _ in range(3):
        claimed(database, lease=OVER)
        life.reap(database, max_crashes=3, since=LEASE, lease=LEASE)
    lost = reread(database, job)
    assert (lost.state, lost.code) == ("quarantined", "worker_lost")
    assert lost.problem is not None
    assert lost.problem["hint"]


def test_a_job_that_nobody_took_has_failed_and_says_so(database: Database, tenant: Tenant) -> None:
    waiting = submitted(database, tenant, queue="gpu")
    assert life.expire(database, ttl=3600) == []
    with database.begin() as tx:
        tx.execute(sa.update(job).values(run_after=job.c.run_after - 3601))
    (gone,) = life.expire(database, ttl=3600)
    assert (gone.id, gone.state, gone.code) == (waiting.id, "failed", "no_worker")


def test_a_job_that_was_not_announced_is_announced_once_a_while(database: Database, tenant: Tenant) -> None:
    for queue in ("gpu", "cpu", "cpu", "any"):
        submitted(database, tenant, queue=queue)
    assert life.unpublished(database, stale=30) == {"gpu": 1, "cpu": 2, "any": 1}
    assert life.unpublished(database, stale=30) == {}
    assert life.unpublished(database, stale=-1) == {"gpu": 1, "cpu": 2, "any": 1}


def test_a_job_that_comes_back_is_announced_again(database: Database, tenant: Tenant) -> None:
    submitted(database, tenant)
    life.unpublished(database, stale=30)
    life.yield_(database, claimed(database))
    assert life.unpublished(database, stale=30) == {"any": 1}
    life.retry(database, claimed(database), code="native_crash", problem=PROBLEM, backoff=3600, max_crashes=3)
    assert life.unpublished(database, stale=30) == {}


def test_what_could_be_claimed_is_counted_by_queue(database: Database, tenant: Tenant) -> None:
    for queue in ("gpu", "cpu", "any"):
        submitted(database, tenant, queue=queue)
    assert [life.claimable(database, queues) for queues in (["gpu"], ["cpu"], ["cpu", "gpu"], [])] == [2, 2, 3, 1]
