"""Who takes which job when, with real jobs and children."""

import threading

from tests.worker.lab import Lab
from worker.slots import Slots


def test_one_wake_fills_every_slot_that_there_is_work_for(lab: Lab) -> None:
    ids = [lab.submit(steps=100_000, pause=0.01) for _ in range(3)]
    with lab.means(slots=2) as means:
        slots = Slots(means)
        waking = threading.Thread(target=slots.serve)
        waking.start()
        for id in ids[:2]:
            lab.pid(id)
        assert slots.busy == 2
        assert lab.job(ids[2]).state == "queued"
        means.stopping.set()
        waking.join()
        slots.close(timeout=10)
        assert slots.busy == 0
    assert [lab.job(id).state for id in ids] == ["queued"] * 3


def test_a_wake_that_finds_no_free_slot_returns_and_its_job_is_done_next(lab: Lab) -> None:
    first = lab.submit(steps=30, pause=0.01)
    with lab.means() as means:
        slots = Slots(means)
        waking = threading.Thread(target=slots.serve)
        waking.start()
        lab.pid(first)
        second = lab.submit(steps=1)
        slots.serve()
        lab.reaches(second, "succeeded")
        waking.join()
        slots.close(timeout=10)
    assert lab.job(first).state == "succeeded"
