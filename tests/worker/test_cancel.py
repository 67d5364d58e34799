"""How a child ends that is to be cancelled: gently with a checkpoint, or now."""

import logging
import signal
import threading

import pytest

from core.errors import EXIT_YIELDED
from db import life
from tests.worker.lab import Lab, until


def test_a_gracefully_cancelled_job_keeps_a_checkpoint_that_a_retry_begins_from(lab: Lab) -> None:
    id = lab.submit(steps=100, pause=0.01)
    with lab.means(grace=60) as means:
        working = threading.Thread(target=lab.attempt, args=(id, means), daemon=True)
        working.start()
        until(lambda: lab.steps(id))
        assert life.cancel(lab.database, lab.tenant, id, mode="graceful")
        cancelled = lab.reaches(id, "cancelled")
        working.join()
        assert (cancelled.code, cancelled.attempt, cancelled.crashes) == ("cancelled", 0, 0)
        assert [attempt.exit_code for attempt in lab.attempts(id)] == [EXIT_YIELDED]
        assert cancelled.checkpoint is not None
        new = life.retry_as_new(lab.database, lab.tenant, id)
        assert new is not None
        assert lab.work(new.id, means).state == "succeeded"
    assert lab.steps(new.id) == list(range(cancelled.checkpoint["done"] + 1, 101))


def test_a_harder_cancel_ends_a_child_that_does_not_heed_the_gentle_one(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "worker.lease")
    id = lab.submit(steps=100_000, pause=0.01, deaf=True, every=5)
    with lab.means(grace=600) as means:
        working = threading.Thread(target=lab.attempt, args=(id, means), daemon=True)
        working.start()
        until(lambda: lab.job(id).checkpoint)
        life.cancel(lab.database, lab.tenant, id, mode="graceful")
        until(lambda: "graceful" in caplog.text)  # its supervisor has seen it
        life.cancel(lab.database, lab.tenant, id, keep="nothing")
        assert lab.reaches(id, "cancelled").checkpoint is None
        working.join()
    assert [attempt.signal for attempt in lab.attempts(id)] == [signal.SIGKILL]
