"""Workers that are alive and do not work, and workers that work and look dead."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from db import life
from db.session import Database
from db.workers import living
from tests.servers import free_port
from tests.worker.lab import PATIENCE, Lab, unreachable, until
from worker.ear import Ear
from worker.maintain import EXIT_DEAF
from worker.record import patience
from worker.settings import Settings

DEAF = """
from celery import bootsteps
from worker.app import arguments, build, log_plainly
from worker.settings import Settings

class Deaf(bootsteps.StartStopStep):
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer):
        consumer.task_consumer.consume = lambda *_, **__: None

log_plainly()
app = build(Settings())
app.steps["consumer"].add(Deaf)
app.worker_main(arguments(Settings()))
"""
"""A worker whose consumer has stopped to listen: process, connection and broker are well."""


@pytest.fixture
def rung(database: Database, database_url: str, redis_url: str, tmp_path: Path) -> Lab:
    """A lab with Redis."""
    return Lab(database, database_url=database_url, broker_url=redis_url, folder=tmp_path / "lab")


@contextmanager
def _started(lab: Lab, *command: str, **chosen: Any) -> Iterator[subprocess.Popen[bytes]]:
    environment = lab.environment(lab.settings(**chosen))
    with (lab.folder / "worker.log").open("ab") as out:
        process = subprocess.Popen([sys.executable, *command], env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.servers
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_deaf_worker_does_what_it_finds_and_ends_to_be_started_again(rung: Lab) -> None:
    with _started(rung, "-c", DEAF, deaf=1, poll=0.2, queues=("gpu",)) as process:
        rung.reaches(rung.submit(steps=5), "succeeded")  # without a ring: the look round found it
        assert process.wait(PATIENCE) == EXIT_DEAF
    assert living(rung.database, within=60) == []  # it said goodbye
    assert not list(rung.folder.glob("worker/jobs/*"))


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("broker", [pytest.param("redis", marks=pytest.mark.servers), "filesystem", "none"])
def test_a_worker_that_hears_and_one_whose_broker_is_away_stay(
    lab: Lab, broker: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    urls: dict[str, Callable[[], str]] = {
        "redis": lambda: str(request.getfixturevalue("redis_url")),
        "filesystem": lambda: f"filesystem://{tmp_path / 'broker'}",
        "none": lambda: f"redis://127.0.0.1:{free_port()}/0",
    }
    with lab.worker(broker_url=urls[broker](), deaf=0.2, poll=0.1, reconcile=3600) as process:
        for _ in range(3):
            lab.reaches(lab.submit(steps=1), "succeeded")
            heard = time.monotonic() + 1
            until(lambda heard=heard: time.monotonic() > heard)  # type: ignore[misc]  # five times as long as it takes to end
            assert process.poll() is None
        assert lab.leave(process) == 0


def test_suspicion_needs_missed_work_and_several_rings_that_the_broker_took() -> None:
    ear = Ear(patience=0)
    taken: list[bool] = []

    def ring() -> bool:
        taken.append(True)
        return True

    assert not ear.is_deaf(ring)
    assert taken == []  # nobody suspects anything, nobody rings
    ear.missed()
    assert [ear.is_deaf(ring) for _ in range(4)] == [False, False, False, True]
    ear.heard()
    ear.missed()
    assert not ear.is_deaf(ring)
    assert not ear.is_deaf(lambda: False)  # the broker is away: that explains it
    assert not ear.is_deaf(ring)
    assert len(taken) == 5


@pytest.mark.parametrize(("gaps", "allowed"), [([], 600), ([0.5] * 50, 600), ([45.0, 45.0, 2000.0], 900), ([30.0, 40.0], 700)])
def test_a_child_of_long_steps_may_be_silent_for_twenty_of_them(gaps: list[float], allowed: float) -> None:
    assert patience(600, gaps) == allowed


@pytest.mark.servers
@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_no_maintainer_takes_a_healthy_job_after_an_outage_longer_than_its_lease(lab: Lab, database_url: str) -> None:
    id = lab.submit(steps=100_000, pause=0.01)
    with lab.worker("first", lease=1, renew=0.2, reap=0.1), lab.worker("second", lease=1, renew=0.2, reap=0.1):
        until(lambda: lab.steps(id))
        before = lab.job(id)
        with unreachable(database_url):
            time.sleep(2)  # two leases
        told = len(lab.steps(id))
        until(lambda: len(lab.steps(id)) > told + 200)  # it went on, for longer than a lease
        after = lab.job(id)
    assert (after.fence, after.crashes, after.owner) == (before.fence, 0, before.owner)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_database_that_was_frozen_without_an_error_is_an_outage_too(lab: Lab) -> None:
    """The write lock held for longer than a lease: statements hang, and then go through."""
    id = lab.submit(steps=100_000, pause=0.01)
    with lab.worker("first", lease=1, renew=0.2, reap=0.1), lab.worker("second", lease=1, renew=0.2, reap=0.1):
        until(lambda: lab.steps(id))
        before = lab.job(id)
        with lab.database.begin():
            time.sleep(3)
        told = len(lab.steps(id))
        until(lambda: len(lab.steps(id)) > told + 200)
        assert lab.job(id).fence == before.fence


def test_how_long_the_server_has_been_up_is_known(database: Database) -> None:
    if database.dialect == "sqlite":
        assert life.up_for(database) == float("inf")
    else:
        first = life.up_for(database)
        assert 0 < first < life.up_for(database) < 86400


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"renew": 40}, "renew must be at most half of lease"),
        ({"wish": 11}, "wish must be at most renew"),
        ({"cancel_grace": 9}, "cancel_grace must be at most grace"),
        ({"flush": 61}, "flush must be at most lease"),
        ({"report": 601}, "report at most silence"),
    ],
)
def test_times_that_contradict_each_other_are_refused_by_name(wrong: dict[str, float], named: str) -> None:
    urls = {"database_url": "sqlite:////nowhere.db", "broker_url": "filesystem:///nowhere"}
    assert Settings.model_validate(urls).lease == 60
    with pytest.raises(ValidationError, match=named):
        Settings.model_validate({**urls, **wrong})
