"""Sweeps: trials are numbered once and in order, a sweep ends once, and nothing of one comes after its end."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from db import jobs, life, sweeps
from db.access import Tenant
from db.session import Database
from db.sweeps import Sweep
from tests.db.given import claimed, reread, submitted, told

REFUSAL = {"params": {"x": 1}, "where": "/x", "reason": "no", "hint": "", "code": "invalid_input"}


def swept(db: Database, tenant: Tenant, **changes: Any) -> Sweep:
    """A running sweep."""
    request: dict[str, Any] = {"name": "s", "request": {"a": 1}, "metadata": {}, "idempotency": None, "max_running": 99}
    return sweeps.create_sweep(db, tenant, **request | changes)


@pytest.fixture
def sweep(database: Database, tenant: Tenant) -> Sweep:
    return swept(database, tenant)


def test_a_trial_is_a_job_like_any_other_that_names_its_sweep(database: Database, tenant: Tenant, sweep: Sweep) -> None:
    job = submitted(database, tenant, trial=(sweep.id, 0), spec={"seed": 3})
    assert (job.sweep, job.trial, job.state) == (sweep.id, 0, "queued")
    assert jobs.list_jobs(database, tenant, limit=9) == [job]
    assert (submitted(database, tenant).sweep, submitted(database, tenant).trial) == (None, None)
    life.refuse(database, tenant, sweep.id, 1, REFUSAL)
    first, second = sweeps.list_trials(database, tenant, sweep.id)
    assert (first.number, first.job, first.state, first.refusal) == (0, job.id, "queued", None)
    assert (first.spec, first.is_terminal) == ({"seed": 3}, False)
    assert (second.number, second.job, second.state, second.refusal, second.is_terminal) == (1, None, None, REFUSAL, True)


@pytest.mark.parametrize("number", [0, 2])
def test_a_number_that_is_not_the_next_is_no_trial_and_leaves_no_job(database: Database, tenant: Tenant, sweep: Sweep, number: int) -> None:
    submitted(database, tenant, trial=(sweep.id, 0))
    with pytest.raises(life.NotTheNext):
        submitted(database, tenant, trial=(sweep.id, number))
    with pytest.raises(life.NotTheNext):
        life.refuse(database, tenant, sweep.id, number, REFUSAL)
    assert len(sweeps.list_trials(database, tenant, sweep.id)) == len(jobs.list_jobs(database, tenant, limit=9)) == 1


def test_of_many_who_make_the_same_trial_at_once_one_does(connected: Callable[[], Database], tenant: Tenant, sweep: Sweep) -> None:
    gate, outcomes = threading.Barrier(4), []

    def make(db: Database, k: int) -> None:
        gate.wait(10)
        try:
            if k % 2:
                life.refuse(db, tenant, sweep.id, 0, REFUSAL)
            else:
                submitted(db, tenant, trial=(sweep.id, 0))
            outcomes.append("made")
        except life.NotTheNext:
            outcomes.append("late")

    threads = [threading.Thread(target=make, args=(connected(), k)) for k in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert sorted(outcomes) == ["late", "late", "late", "made"]


def test_the_tables_themselves_take_no_number_and_no_job_twice(database: Database, tenant: Tenant, sweep: Sweep) -> None:
    job = submitted(database, tenant, trial=(sweep.id, 0))
    insert = "INSERT INTO trial (sweep_id, number, tenant_id, job_id) VALUES (:sweep, :number, :tenant, :job)"
    other = submitted(database, tenant)
    for number, id in ((0, other.id), (1, job.id), (1, None)):
        with pytest.raises(sa.exc.IntegrityError), database.begin() as tx:
            tx.execute(sa.text(insert), {"sweep": sweep.id, "number": number, "tenant": tenant.id, "job": id})


def test_a_sweep_ends_once(database: Database, tenant: Tenant, sweep: Sweep) -> None:
    assert [each.id for each in sweeps.running_sweeps(database)] == [sweep.id]
    assert sweeps.end_sweep(database, tenant, sweep.id, result={"best": 1})
    assert not sweeps.end_sweep(database, tenant, sweep.id, problem=REFUSAL)
    assert sweeps.cancel_sweep(database, tenant, sweep.id) is None
    ended = sweeps.get_sweep(database, tenant, sweep.id)
    assert ended is not None
    assert (ended.state, ended.result, ended.problem) == ("succeeded", {"best": 1}, None)
    assert ended.ended_at is not None
    assert ended.ended_at >= ended.created_at
    assert sweeps.running_sweeps(database) == []
    with pytest.raises(life.NotTheNext):
        submitted(database, tenant, trial=(sweep.id, 0))


def test_a_cancel_ends_the_sweep_and_wishes_the_end_of_every_job_that_has_none(database: Database, tenant: Tenant, sweep: Sweep) -> None:
    made = [submitted(database, tenant, trial=(sweep.id, number)) for number in range(4)]
    done, running = claimed(database), claimed(database)
    life.complete(database, done, result={})
    life.pause(database, tenant, made[2].id)
    other = submitted(database, tenant)
    for _ in range(2):
        cancelled = sweeps.cancel_sweep(database, tenant, sweep.id)
        assert cancelled is not None
        assert cancelled.state == "cancelled"
    states = [(job.state, job.desired) for job in (reread(database, each) for each in (*made, other))]
    assert states == [("succeeded", "run"), ("running", "cancel"), ("cancelled", "cancel"), ("cancelled", "cancel"), ("queued", "run")]
    assert life.yield_(database, running) == "cancelled"
    with pytest.raises(life.NotTheNext):
        submitted(database, tenant, trial=(sweep.id, 4))


def test_what_a_pruner_cancelled_says_so_and_what_somebody_else_cancelled_does_not(database: Database, tenant: Tenant) -> None:
    pruned, cancelled = submitted(database, tenant), submitted(database, tenant)
    life.cancel(database, tenant, cancelled.id)
    assert not life.prune(database, tenant, cancelled.id)
    assert life.prune(database, tenant, pruned.id)
    assert not life.prune(database, tenant, pruned.id)
    life.cancel(database, tenant, pruned.id)
    assert [event.data.get("pruned") for event in told(database, pruned, "status")] == [None, True]
    assert [event.data.get("pruned") for event in told(database, cancelled, "status")] == [None, None]
    assert reread(database, pruned).state == "cancelled"


def test_what_trials_told_is_read_by_job_without_those_that_are_known(database: Database, tenant: Tenant, sweep: Sweep) -> None:
    first, second = (submitted(database, tenant, trial=(sweep.id, number)) for number in range(2))
    claim = claimed(database)
    life.record(database, claim, [("metrics", {}), ("evaluated", {"epoch": 0}), ("log", {}), ("evaluated", {"epoch": 1})])
    events = sweeps.told(database, tenant, sweep.id)
    assert [kind for kind, _ in events[first.id]] == ["status", "status", "evaluated", "evaluated"]
    assert [data["epoch"] for kind, data in events[first.id] if kind == "evaluated"] == [0, 1]
    assert sweeps.told(database, tenant, sweep.id, without=[first.id]).keys() == {second.id}


def test_the_same_key_is_one_sweep_and_only_so_many_run_at_once(database: Database, tenant: Tenant) -> None:
    first = swept(database, tenant, idempotency=("k", "f"), max_running=1)
    assert swept(database, tenant, idempotency=("k", "f"), max_running=1) == first
    with pytest.raises(life.KeyReused):
        swept(database, tenant, idempotency=("k", "g"))
    with pytest.raises(sweeps.TooManySweeps):
        swept(database, tenant, max_running=1)
    sweeps.cancel_sweep(database, tenant, first.id)
    assert swept(database, tenant, max_running=1).id > first.id


def test_a_stranger_neither_reads_nor_moves_a_sweep(database: Database, tenant: Tenant, stranger: Tenant, sweep: Sweep) -> None:
    submitted(database, tenant, trial=(sweep.id, 0))
    assert sweeps.get_sweep(database, stranger, sweep.id) is None
    assert sweeps.list_sweeps(database, stranger, limit=9) == []
    assert sweeps.list_trials(database, stranger, sweep.id) == []
    assert sweeps.told(database, stranger, sweep.id) == {}
    assert sweeps.cancel_sweep(database, stranger, sweep.id) is None
    assert not sweeps.end_sweep(database, stranger, sweep.id, result={})
    with pytest.raises(life.NotTheNext):
        submitted(database, stranger, trial=(sweep.id, 1))
    assert sweeps.get_sweep(database, tenant, sweep.id) == sweep
    words = {"sweep": sweep.id, "tenant": stranger.id, "job": submitted(database, stranger).id}
    with pytest.raises(sa.exc.IntegrityError), database.begin() as tx:
        tx.execute(sa.text("INSERT INTO trial (sweep_id, number, tenant_id, job_id) VALUES (:sweep, 1, :tenant, :job)"), words)
