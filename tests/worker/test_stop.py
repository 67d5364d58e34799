"""SIGTERM at any moment: the job is handed back at once with all that was done, and no attempt is counted."""

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from db import life
from db.tables import blob
from tests.core.folders import fill
from tests.worker.lab import Lab, until
from worker.supervise import Means

pytestmark = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)


def _stopped(lab: Lab, id: str, means: Means, *, when: Callable[[], object]) -> life.Job:
    """One attempt, with the worker's stop in the moment when `when` holds; the job after it."""
    means.stopping.clear()
    working = threading.Thread(target=lab.attempt, args=(id, means))
    working.start()
    try:
        until(when)
    finally:
        means.stopping.set()
        working.join()
    job = lab.job(id)
    assert (job.state, job.attempt, job.crashes) == ("queued", 0, 0)
    return job


def test_the_engine_hands_its_job_back_from_every_phase_and_repeats_no_step(lab: Lab, tmp_path: Path) -> None:
    long = {"name": "parameter_noise", "draws": 100, "epsilons": [i / 1000 for i in range(64)]}
    folder = fill(tmp_path / "job", evaluate=["accuracy", long])
    task = json.loads((folder / "job.json").read_text())
    blobs = {f"in/{path.name}": lab.blobs.put([path.read_bytes()]) for path in (folder / "in").iterdir()}
    id = life.submit(
        lab.database, lab.tenant, name="digits", spec={}, spec_sha="", inputs={"task": task, "blobs": blobs}, queue="cpu", max_queued=9
    ).id  # fmt: skip

    def measuring(fence: int) -> Callable[[], object]:
        return lambda: [event for event in lab.events(id, "phase") if (event.fence, event.data["phase"]) == (fence, "evaluate")]

    with lab.means(child=(sys.executable, "-I", "-m", "core"), grace=60, silence=600) as means:
        starting = _stopped(lab, id, means, when=lambda: lab.pid(id))
        assert starting.checkpoint is None
        trained = _stopped(lab, id, means, when=measuring(2))
        assert trained.checkpoint is not None
        assert trained.checkpoint["done"] == 18
        again = _stopped(lab, id, means, when=measuring(3))
        assert again.checkpoint == trained.checkpoint
    assert [attempt.exit_code for attempt in lab.attempts(id)] == [75, 75, 75]
    assert {event.fence for event in lab.events(id, "checkpoint")} == {2}
    assert {event.fence for event in lab.events(id, "metrics")} == {2}
    assert lab.steps(id)[-1] == 18


def test_between_the_claim_and_the_child_a_stop_hands_the_job_back_and_starts_nothing(lab: Lab) -> None:
    id = lab.submit()
    with lab.means() as means:
        means.stopping.set()
        job = lab.work(id, means)
    assert (job.state, job.attempt, job.crashes) == ("queued", 0, 0)
    assert [(attempt.exit_code, attempt.signal) for attempt in lab.attempts(id)] == [(None, None)]


def test_a_stop_while_a_checkpoint_is_on_its_way_keeps_it_and_the_last_one(lab: Lab) -> None:
    id = lab.submit(steps=100_000, every=1, pause=0.1, weight=48 << 20)

    def on_its_way() -> object:
        with lab.database.read() as tx:
            return tx.execute(sa.select(blob.c.id).where(blob.c.sha256.is_(None))).first()

    with lab.means(grace=60) as means:
        job = _stopped(lab, id, means, when=on_its_way)
    assert job.checkpoint is not None
    assert job.checkpoint["done"] == lab.steps(id)[-1]
