"""Workers that were heard of."""

from typing import Any

from db import workers
from db.session import Database


def _beat(db: Database, id: str, busy: int = 0) -> None:
    workers.heartbeat(db, id=id, host="here", pid=7, queues=["gpu", "cpu"], device="cuda", slots=2, threads=4, busy=busy)


def test_a_worker_is_known_by_its_last_heartbeat(database: Database) -> None:
    _beat(database, "w1")
    (first,) = workers.living(database, within=60)
    _beat(database, "w1", busy=1)
    (again,) = workers.living(database, within=60)
    assert (again.queues, again.slots, again.busy, again.started_at) == (("gpu", "cpu"), 2, 1, first.started_at)
    assert again.seen_at >= first.seen_at


def test_a_silent_worker_does_not_live(database: Database) -> None:
    _beat(database, "w1")
    assert workers.living(database, within=-1) == []


def test_a_worker_that_said_goodbye_is_gone(database: Database) -> None:
    _beat(database, "w1")
    _beat(database, "w2")
    workers.gone(database, "w1")
    assert [one.id for one in workers.living(database, within=60)] == ["w2"]


def test_what_a_workers_device_does_is_told_with_its_heartbeat(database: Database) -> None:
    facts: dict[str, Any] = {"id": "w1", "host": "here", "pid": 7, "queues": ["cpu"], "device": "cpu", "slots": 1, "threads": 2, "busy": 0}
    workers.heartbeat(database, **facts)
    assert [one.calibration for one in workers.living(database, within=60)] == [None]
    workers.heartbeat(database, **facts, calibration={"start": 1.5})
    assert [one.calibration for one in workers.living(database, within=60)] == [{"start": 1.5}]
