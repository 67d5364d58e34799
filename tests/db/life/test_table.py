"""The state machine as a table: every transition, tried from every state, does what is written here and nothing else."""

from collections.abc import Callable
from itertools import product

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from db import life
from db.access import Tenant
from db.life import Claim
from db.session import Database
from db.states import KINDS, TERMINAL
from db.tables import job, job_event
from tests.db.given import IN_EACH_STATE, LEASE, PROBLEM, remove_every_open_job, reread, told


def _retry(db: Database, claim: Claim, max_crashes: int) -> object:
    return life.retry(db, claim, code="native_crash", problem=PROBLEM, backoff=0, max_crashes=max_crashes)


def _reap(db: Database, claim: Claim) -> object:
    with db.begin() as tx:
        tx.execute(sa.update(job).where(job.c.state == "running").values(lease_until=0))
    return life.reap(db, max_crashes=3, since=LEASE, lease=LEASE)


def _of(claim: Claim) -> tuple[Tenant, str]:
    return Tenant(claim.job.tenant), claim.job.id


TRANSITIONS: dict[str, Callable[[Database, Claim], object]] = {
    "claim": lambda db, _: life.claim(db, worker="w2", queues=["cpu"], lease=LEASE),
    "complete": lambda db, claim: life.complete(db, claim, result={}),
    "fail": lambda db, claim: life.fail(db, claim, code="diverged", problem=PROBLEM),
    "retry": lambda db, claim: _retry(db, claim, 3),
    "retry, spent": lambda db, claim: _retry(db, claim, 1),
    "yield": life.yield_,
    "pause": lambda db, claim: life.pause(db, *_of(claim)),
    "resume": lambda db, claim: life.resume(db, *_of(claim)),
    "cancel": lambda db, claim: life.cancel(db, *_of(claim)),
    "shelve": lambda db, claim: life.shelve(db, claim, problem=PROBLEM, pause=0),
    "unshelve": lambda db, _: life.unshelve(db, ["cpu"]),
    "release": lambda db, claim: life.release(db, *_of(claim)),
    "reap": _reap,
    "expire": lambda db, _: life.expire(db, ttl=-1),
}

# What each transition makes of a job in each state; where nothing is written the job stays as it was.
MOVES = {
    "queued": {"claim": "running", "pause": "paused", "cancel": "cancelled", "expire": "failed"},
    "running": {
        "complete": "succeeded", "fail": "failed", "retry": "queued", "retry, spent": "quarantined", "yield": "queued",
        "pause": "running, pause", "cancel": "running, cancel", "reap": "queued", "shelve": "shelved",
    },
    "running, pause": {
        "complete": "succeeded", "fail": "failed", "retry": "paused", "retry, spent": "quarantined", "yield": "paused",
        "resume": "running", "cancel": "running, cancel", "reap": "paused", "shelve": "paused",
    },
    "running, cancel": {
        "fail": "cancelled", "retry": "cancelled", "retry, spent": "cancelled", "yield": "cancelled", "reap": "cancelled",
        "shelve": "cancelled",
    },
    "paused": {"resume": "queued", "cancel": "cancelled"},
    "shelved": {"resume": "queued", "cancel": "cancelled", "pause": "paused", "unshelve": "queued"},
    "succeeded": {},
    "failed": {},
    "cancelled": {},
    "quarantined": {"cancel": "cancelled", "release": "queued"},
}  # fmt: skip


def _name(one: life.Job) -> str:
    if one.state == "paused" and one.code == "storage_full":
        return "shelved"
    return f"{one.state}, {one.desired}" if one.state == "running" and one.desired != "run" else one.state


@pytest.mark.parametrize("state", MOVES)
def test_every_transition_from_every_state_of_every_kind_of_work(database: Database, tenant: Tenant, state: str) -> None:
    for kind, (transition, carry_out) in product(KINDS, TRANSITIONS.items()):
        claim = IN_EACH_STATE[state](database, tenant, kind=kind)
        before = reread(database, claim.job)
        assert _name(before) == state
        carry_out(database, claim)
        after = reread(database, claim.job)
        assert (kind, transition, _name(after)) == (kind, transition, MOVES[state].get(transition, state))
        if transition not in MOVES[state]:
            assert after == before
        _history_is_whole(database, after)
        remove_every_open_job(database)


def _history_is_whole(db: Database, one: life.Job) -> None:
    events = told(db, one)
    assert [event.seq for event in events] == list(range(1, one.event_seq + 1))
    assert [event.fence for event in events] == sorted(event.fence for event in events)
    last = [event for event in events if event.kind in ("status", "succeeded")][-1]
    assert (last.data["state"], last.data["desired"]) == (one.state, one.desired)
    assert len(told(db, one, "succeeded")) == (one.state == "succeeded")
    assert (one.owner is None) == (one.lease_until is None) == (one.state != "running")


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_job_that_has_ended_cannot_be_brought_back_by_any_statement(database: Database, tenant: Tenant, state: str) -> None:
    ended = IN_EACH_STATE[state](database, tenant).job
    with pytest.raises(IntegrityError, match="a job that has ended never changes its state"), database.begin() as tx:
        tx.execute(sa.update(job).where(job.c.id == ended.id).values(state="queued", desired="run", result=None))
    assert reread(database, ended).state == state


def test_a_second_completion_is_refused_by_the_index(database: Database, tenant: Tenant) -> None:
    ended = IN_EACH_STATE["succeeded"](database, tenant).job
    with pytest.raises(IntegrityError), database.begin() as tx:
        tx.execute(sa.insert(job_event).values(job_id=ended.id, seq=99, fence=1, kind="succeeded", at=0, data={}))


@pytest.mark.parametrize(
    "values",
    [
        {"state": "running"},
        {"lease_until": 1.0},
        {"owner": "somebody"},
        {"state": "succeeded"},
        {"result": {}},
        {"state": "failed"},
        {"state": "lost"},
        {"desired": "fly"},
        {"cancel_mode": "graceful"},
        {"cancel_keep": "nothing"},
        {"desired": "cancel", "state": "paused", "cancel_mode": "later"},
        {"desired": "cancel", "state": "running", "owner": "w", "lease_until": 1.0, "cancel_keep": "all"},
        {"desired": "pause"},
        {"state": "paused"},
        {"queue": "tpu"},
        {"code": "bad_luck"},
        {"kind": "guess"},
        {"parent_id": "job_nobody"},
    ],
    ids=str,
)
def test_a_row_that_contradicts_itself_is_refused(database: Database, tenant: Tenant, values: dict[str, object]) -> None:
    queued = IN_EACH_STATE["queued"](database, tenant).job
    with pytest.raises(IntegrityError), database.begin() as tx:
        tx.execute(sa.update(job).where(job.c.id == queued.id).values(values))
