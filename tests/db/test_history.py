"""What happened, read back."""

import pytest

from db import history, life
from db.access import Tenant
from db.session import Database
from tests.db.given import PROBLEM, claimed, reread, running, submitted


def test_events_are_read_from_where_the_reader_stopped(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    life.record(database, claim, [("log", {"i": i}) for i in range(4)])
    id = claim.job.id
    assert [event.seq for event in history.events(database, tenant, id, limit=3)] == [1, 2, 3]
    assert [event.seq for event in history.events(database, tenant, id, after=3, limit=9)] == [4, 5, 6]
    assert [event.seq for event in history.events(database, tenant, id, kinds=["status"], limit=9)] == [1, 2]
    assert history.events(database, tenant, id, kinds=[], limit=9) == []


def test_the_last_of_a_kind_is_the_last(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    assert history.glance(database, tenant, claim.job.id).newest == {}
    life.record(database, claim, [("phase", {"phase": "train"}), ("phase", {"phase": "evaluate"}), ("log", {})])
    newest = history.glance(database, tenant, claim.job.id).newest
    assert {kind: (event.seq, event.data) for kind, event in newest.items()} == {"phase": (4, {"phase": "evaluate"})}


def test_blocks_of_points_carry_the_fence_they_were_told_under(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    life.record(database, claim, [("metrics", {"first": 1, "last": 5}), ("log", {})])
    life.retry(database, claim, code="worker_lost", problem=PROBLEM, backoff=0, max_crashes=3)
    life.record(database, claimed(database), [("metrics", {"first": 3, "last": 8})])
    blocks = history.metrics_blocks(database, tenant, claim.job.id)
    assert [(block.fence, block.data["first"], block.data["last"]) for block in blocks] == [(1, 1, 5), (2, 3, 8)]


def test_a_job_tells_when_it_first_was_in_each_state(database: Database, tenant: Tenant) -> None:
    submitted(database, tenant)
    first = claimed(database)
    life.yield_(database, first)
    again = claimed(database)
    life.complete(database, again, result={})
    done = reread(database, first.job)
    times = history.glance(database, tenant, done.id).entered
    assert set(times) == {"queued", "running", "succeeded"}
    assert times["queued"] == pytest.approx(done.created_at, abs=1)
    assert times["queued"] <= times["running"] <= times["succeeded"]
    events = history.events(database, tenant, done.id, limit=9)
    assert times["running"] == events[1].at
