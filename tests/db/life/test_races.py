"""Two at the same moment, each with a connection of its own: one wins, the other is told, and the row agrees with both."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import sqlalchemy as sa

from db import jobs, life
from db.access import Tenant
from db.blobs import Blobs
from db.session import Database
from db.tables import tenant as tenants
from tests.db.given import LEASE, OVER, claimed, reread, running, submitted, told, uploaded

ROUNDS = 8
Connected = Callable[[], Database]


def _at_once(*actions: Callable[[], Any]) -> list[Any]:
    """What each answers (or raises) when all begin together."""
    gate = threading.Barrier(len(actions))

    def act(action: Callable[[], Any]) -> Any:
        gate.wait(10)
        try:
            return action()
        except (life.TooManyQueued, life.KeyReused) as refused:
            return refused

    with ThreadPoolExecutor(len(actions)) as pool:
        return [future.result(30) for future in [pool.submit(act, action) for action in actions]]


def test_two_claims_take_one_job_once(connected: Connected, database: Database, tenant: Tenant) -> None:
    one, two = connected(), connected()
    for _ in range(ROUNDS):
        submitted(database, tenant)
        first, second = _at_once(
            lambda: life.claim(one, worker="w1", queues=["cpu"], lease=LEASE),
            lambda: life.claim(two, worker="w2", queues=["cpu"], lease=LEASE),
        )
        assert (first is None) != (second is None)
        life.complete(database, first or second, result={})


def test_two_claims_keep_a_tenants_cap(connected: Connected, database: Database, tenant: Tenant) -> None:
    with database.begin() as tx:
        tx.execute(sa.update(tenants).values(max_running=1))
    one, two = connected(), connected()
    for _ in range(ROUNDS):
        submitted(database, tenant)
        submitted(database, tenant)
        claims = _at_once(
            lambda: life.claim(one, worker="w1", queues=["cpu"], lease=LEASE),
            lambda: life.claim(two, worker="w2", queues=["cpu"], lease=LEASE),
        )
        (only,) = [claim for claim in claims if claim]
        life.complete(database, only, result={})
        life.complete(database, claimed(database), result={})


def test_a_job_is_completed_or_reaped_and_never_both(connected: Connected, database: Database, tenant: Tenant) -> None:
    one, two = connected(), connected()
    for _ in range(ROUNDS):
        submitted(database, tenant)
        claim = claimed(database, lease=OVER)
        completed, reaped = _at_once(
            partial(life.complete, one, claim, result={}), lambda: life.reap(two, max_crashes=9, since=LEASE, lease=LEASE)
        )
        assert completed != bool(reaped)
        now = reread(database, claim.job)
        assert now.state == ("succeeded" if completed else "queued")
        assert len(told(database, now, "succeeded")) == int(completed)
        if not completed:
            life.cancel(database, tenant, now.id)


def test_a_job_is_completed_or_cancelled_and_never_both(connected: Connected, database: Database, tenant: Tenant) -> None:
    one, two = connected(), connected()
    for _ in range(ROUNDS):
        claim = running(database, tenant)
        cancelled, completed = _at_once(partial(life.cancel, one, tenant, claim.job.id), partial(life.complete, two, claim, result={}))
        assert completed == (cancelled is None)
        if not completed:
            assert life.yield_(database, claim) == "cancelled"
        assert reread(database, claim.job).state == ("succeeded" if completed else "cancelled")


def test_two_reapers_reap_once(connected: Connected, database: Database, tenant: Tenant) -> None:
    one, two = connected(), connected()
    for _ in range(3):
        submitted(database, tenant)
    for _ in range(3):
        claimed(database, lease=OVER)
    first, second = _at_once(*(partial(life.reap, db, max_crashes=9, since=LEASE, lease=LEASE) for db in (one, two)))
    assert len(first) + len(second) <= 3  # PostgreSQL skips rows that the other holds, and comes back for them the next time
    life.reap(database, max_crashes=9, since=LEASE, lease=LEASE)
    assert [(job.state, job.fence, job.crashes) for job in jobs.list_jobs(database, tenant, limit=9)] == [("queued", 2, 1)] * 3


def test_one_key_is_one_job(connected: Connected, database: Database, tenant: Tenant) -> None:
    clients = [connected() for _ in range(3)]
    for turn in range(ROUNDS):
        made = _at_once(*(partial(submitted, db, tenant, idempotency=(f"key {turn}", "body")) for db in clients))
        assert len({job.id for job in made}) == 1
    assert len(jobs.list_jobs(database, tenant, limit=100)) == ROUNDS


def test_a_cap_on_waiting_jobs_holds_against_many_at_once(connected: Connected, database: Database, tenant: Tenant) -> None:
    clients = [connected() for _ in range(4)]
    made = _at_once(*(partial(submitted, db, tenant, max_queued=2) for db in clients))
    assert sorted(type(one).__name__ for one in made) == ["Job", "Job", "TooManyQueued", "TooManyQueued"]


def test_events_told_by_many_at_once_have_no_gap(connected: Connected, database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    clients = [connected() for _ in range(3)]

    def tell(db: Database) -> None:
        for i in range(5):
            assert life.record(db, claim, [("log", {"i": i}), ("log", {"i": i})])

    _at_once(*(partial(tell, db) for db in clients), lambda: [life.pause(database, tenant, claim.job.id) for _ in range(3)])
    assert [event.seq for event in told(database, claim.job)] == list(range(1, 2 + 30 + 1 + 1))


def test_a_cancel_that_keeps_nothing_forgets_whether_the_job_ends_before_it_or_after(
    connected: Connected, database: Database, tenant: Tenant
) -> None:
    one, two = connected(), connected()
    for i in range(ROUNDS):
        claim = running(database, tenant)
        kept = uploaded(database, tenant, b"state %d" % i)
        life.keep_checkpoint(database, claim, blob=kept, done=7, fit=0, step=7, values={})
        life.cancel(database, tenant, claim.job.id, mode="graceful")
        cancelled, state = _at_once(partial(life.cancel, one, tenant, claim.job.id, keep="nothing"), partial(life.yield_, two, claim))
        assert cancelled is not None
        assert (state, reread(database, claim.job).checkpoint) == ("cancelled", None)
        assert not Blobs(database, tenant).has(kept)


def test_a_retry_has_the_whole_of_what_is_forgotten_meanwhile_or_nothing_of_it(
    connected: Connected, database: Database, tenant: Tenant
) -> None:
    one, two = connected(), connected()
    for i in range(ROUNDS):
        claim = running(database, tenant)
        kept = uploaded(database, tenant, b"state %d" % i)
        life.keep_checkpoint(database, claim, blob=kept, done=7, fit=0, step=7, values={})
        life.cancel(database, tenant, claim.job.id)
        life.yield_(database, claim)
        _, new = _at_once(
            partial(life.cancel, one, tenant, claim.job.id, keep="nothing"), partial(life.retry_as_new, two, tenant, claim.job.id)
        )
        assert reread(database, claim.job).checkpoint is None
        assert (new.checkpoint is not None) == Blobs(database, tenant).has(kept)
        life.cancel(database, tenant, new.id)
