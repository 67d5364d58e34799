"""`python -m worker` as a process: Celery, a broker, a database, children; and what happens when any of them goes."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from db import assets, history, life
from db.session import Database, Unavailable
from db.tables import blob
from db.workers import living
from tests.servers import free_port
from tests.worker.lab import Lab, lives, until


@pytest.fixture
def rung(database: Database, database_url: str, broker_url: str, tmp_path: Path) -> Lab:
    """A lab with a broker that rings."""
    return Lab(database, database_url=database_url, broker_url=broker_url, folder=tmp_path / "lab")


def test_the_worker_never_imports_torch_and_starts_without_the_web() -> None:
    program = (
        "import sys, worker.app, worker.__main__; print(sorted(n for n in ('torch', 'numpy', 'fastapi', 'core.plan') if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_wrong_settings_are_named_and_nothing_starts() -> None:
    environment = {"PATH": os.environ["PATH"], "RETORT_BROKER_URL": "filesystem:///nowhere", "RETORT_QUEUES": "tpu"}
    done = subprocess.run([sys.executable, "-m", "worker"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "database_url" in done.stderr
    assert "tpu" in done.stderr


def test_a_worker_ends_with_the_process_that_it_was_told_to_end_with(lab: Lab) -> None:
    program = (
        "import os, subprocess, sys\n"
        "worker = subprocess.Popen([sys.executable, '-m', 'worker'], env={**os.environ, 'RETORT_PARENT': str(os.getpid())})\n"
        "print(worker.pid, flush=True)\n"
        "worker.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], env=lab.environment(lab.settings()), stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        until(lambda: any(each.pid == pid for each in living(lab.database, within=60)))
        parent.kill()
    until(lambda: not lives(pid))


def test_a_wake_alone_brings_a_worker_to_a_job(rung: Lab) -> None:
    with _idle_worker(rung, poll=3600, reconcile=3600) as process:
        id = rung.submit(steps=5)
        rung.ring()
        rung.reaches(id, "succeeded")
        assert rung.leave(process) == 0


def test_a_forgotten_job_is_rung_for_by_the_reconciler(rung: Lab) -> None:
    with _idle_worker(rung, poll=3600):
        rung.reaches(rung.submit(steps=5), "succeeded")


def test_bytes_that_nobody_finished_writing_are_swept_and_those_of_today_are_not(lab: Lab) -> None:
    with lab.database.begin() as tx:
        for id, touched_at in (("blob_old", 0.0), ("blob_new", time.time())):
            tx.execute(sa.insert(blob).values(id=id, tenant_id=lab.tenant.id, touched_at=touched_at))

    def left() -> list[str]:
        with lab.database.read() as tx:
            return list(tx.execute(sa.select(blob.c.id)).scalars())

    with lab.worker():
        until(lambda: left() == ["blob_new"])


def test_a_worker_whose_broker_never_comes_serves_jobs_and_leaves_in_order(lab: Lab) -> None:
    with lab.worker(broker_url=f"redis://127.0.0.1:{free_port()}/0") as process:
        lab.reaches(lab.submit(steps=5), "succeeded")
        id = lab.submit(steps=100_000, pause=0.01)
        pid = lab.pid(id)
        assert lab.leave(process) == 0
        assert not lives(pid)
        assert (lab.job(id).state, lab.job(id).attempt) == ("queued", 0)
        assert living(lab.database, within=60) == []


def test_a_cancel_kills_the_child(lab: Lab) -> None:
    with lab.worker():
        id = lab.submit(steps=100_000, pause=0.01)
        pid = lab.pid(id)
        until(lambda: lab.steps(id))
        assert life.cancel(lab.database, lab.tenant, id)
        lab.reaches(id, "cancelled")
        assert not lives(pid)


def test_a_killed_worker_takes_its_child_along_and_another_worker_finishes_the_job(lab: Lab) -> None:
    id = lab.submit(steps=100, every=10, pause=0.02)
    with lab.worker("first") as first:
        pid = lab.pid(id)
        until(lambda: lab.events(id, "checkpoint"))
        first.kill()
        until(lambda: not lives(pid))
    with lab.worker("second"):
        job = lab.reaches(id, "succeeded")
    assert job.fence > 2
    assert lab.steps(id) == list(range(1, 101))
    resumed = min(event.data["first"] for event in lab.events(id, "metrics") if event.fence == job.fence)
    assert resumed > 10
    assert len(lab.events(id, "succeeded")) == 1


def test_a_new_worker_clears_what_a_dead_one_left_in_its_folder(lab: Lab) -> None:
    id = lab.submit(steps=100_000, pause=0.01)
    with lab.worker() as first:
        lab.pid(id)
        first.kill()
        first.wait()
    assert list(lab.folder.glob(f"worker/jobs/*/{id}.1"))
    with lab.worker() as second:
        assert not list(lab.folder.glob(f"worker/jobs/*/{id}.1"))
        assert lab.leave(second) == 0
    assert not list(lab.folder.glob("worker/jobs/*"))


def test_sigterm_hands_the_job_back_without_counting_an_attempt(lab: Lab) -> None:
    id = lab.submit(steps=300, pause=0.02)
    with lab.worker("first") as first:
        pid = lab.pid(id)
        until(lambda: lab.steps(id))
        assert lab.leave(first) == 0
        assert not lives(pid)
    job = lab.job(id)
    assert (job.state, job.attempt, job.crashes) == ("queued", 0, 0)
    assert job.checkpoint is not None
    assert job.checkpoint["done"] > 0
    (attempt,) = lab.attempts(id)
    assert (attempt.exit_code, attempt.code) == (75, None)


def test_a_second_worker_goes_on_where_a_stopped_one_left_off(lab: Lab) -> None:
    id = lab.submit(steps=100, pause=0.02)
    with lab.worker("first") as first:
        until(lambda: lab.steps(id))
        assert lab.leave(first) == 0
    with lab.worker("second"):
        lab.reaches(id, "succeeded")
    told = Counter(done for event in lab.events(id, "metrics") for done in event.data["columns"]["done"])
    assert sorted(told) == list(range(1, 101))
    assert set(told.values()) == {1}


def test_two_workers_and_twenty_wakes_complete_each_job_once(rung: Lab) -> None:
    with rung.worker("first", slots=2), rung.worker("second", slots=2):
        ids = [rung.submit(steps=20, pause=0.01) for _ in range(6)]
        for _ in range(20):
            rung.ring()
        for id in ids:
            rung.reaches(id, "succeeded")
    for id in ids:
        assert len(rung.events(id, "succeeded")) == 1
        assert len(rung.attempts(id)) == 1
        assert len(assets.list_artifacts(rung.database, rung.tenant, id)) == 1


def test_a_frozen_worker_that_wakes_up_late_changes_nothing(lab: Lab) -> None:
    id = lab.submit(steps=200, pause=0.02, every=20)
    with lab.worker("first") as first:
        pid = lab.pid(id)
        until(lambda: lab.steps(id))
        _freeze(lab, first)
        with lab.worker("second"):
            job = lab.reaches(id, "succeeded")
            first.send_signal(signal.SIGCONT)
            until(lambda: not lives(pid))
            assert first.poll() is None
    assert len(lab.events(id, "succeeded")) == 1
    fences = [event.fence for event in lab.events(id, "metrics")]
    assert fences == sorted(fences)
    assert fences[-1] == job.fence


def test_a_child_that_crashes_leaves_its_last_lines_with_the_job(lab: Lab) -> None:
    with lab.worker(max_crashes=2):
        problem = lab.reaches(lab.submit(die="raise"), "quarantined").problem
    assert problem is not None
    assert problem["lines"][-1] == "ValueError: the toy is broken on purpose"


@contextmanager
def _idle_worker(lab: Lab, **chosen: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that has looked round once on its own, as it does when it starts, and now waits."""
    first = lab.submit(steps=1)
    with lab.worker(**chosen) as process:
        lab.reaches(first, "succeeded")
        done = history.glance(lab.database, lab.tenant, first).entered["succeeded"]
        until(lambda: any(each.busy == 0 and each.seen_at > done for each in living(lab.database, within=60)))
        yield process


def _freeze(lab: Lab, worker: subprocess.Popen[bytes]) -> None:
    """Stop a process where it is, but not inside a transaction: SQLite has one writer, and with that one asleep all sleep."""
    while True:
        worker.send_signal(signal.SIGSTOP)
        try:
            with lab.database.begin():
                return
        except Unavailable:
            worker.send_signal(signal.SIGCONT)
