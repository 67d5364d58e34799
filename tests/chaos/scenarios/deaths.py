"""Workers and children that die or stand still: W1, W3, W4, W5, W6."""

import random
import time

from tests.chaos.catalogue import Times, batches, scenario
from tests.chaos.lab import TIMES, Lab, lives, until

MOST = 3
"""So many at the same time: most of a recovery is waiting for a lease to run out."""


@scenario("W1")
def a_worker_is_killed(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGKILL of a worker at a random moment of its job."""
    for batch in batches(n, MOST):
        lab.have(batch + 1)
        began = {id: lab.runs(id) for id in [lab.train(pause=0.04) for _ in range(batch)]}
        held = {id: (lab.holder(id), lab.pid(id)) for id in began}
        time.sleep(draw.uniform(0, 0.5))
        killed = time.monotonic()
        for process, _ in held.values():
            lab.kill(process)
        for _, pid in held.values():
            until(lambda pid=pid: not lives(pid))  # type: ignore[misc]
        times.add("a worker's death to its child's", time.monotonic() - killed)
        for id, fence in began.items():
            lab.runs(id, after=fence)
            times.add("a worker's death to the next attempt", time.monotonic() - killed)


@scenario("W3")
def a_child_is_killed(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGKILL of a training process at a random moment."""
    lab.have(1)
    for _ in range(n):
        id = lab.train(pause=0.02)
        fence = lab.runs(id)
        lab.pid(id)
        time.sleep(draw.uniform(0, 0.3))
        if lab.kill_child(id):
            with times.measure("a child's death to the next attempt"):
                lab.runs(id, after=fence)


@scenario("W4")
def a_worker_stands_still(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGSTOP of a worker for longer than its lease, while its child goes on; another finishes the job, then SIGCONT."""
    for batch in batches(n, MOST):
        lab.have(batch + 1)
        began = {id: lab.runs(id) for id in [lab.train(pause=0.05) for _ in range(batch)]}
        held = {id: (lab.holder(id), lab.pid(id)) for id in began}
        time.sleep(draw.uniform(0, 0.5))
        for process, _ in held.values():
            lab.freeze(process)
        frozen = time.monotonic()
        for id, fence in began.items():
            lab.runs(id, after=fence)
            times.add("a worker's freeze to the next attempt", time.monotonic() - frozen)
        for process, pid in held.values():
            lab.thaw(process)
            until(lambda pid=pid: not lives(pid))  # type: ignore[misc]
            assert process.alive, f"{process.name} did not survive its sleep"
            lab.log.write("stale claim met", process.name)


@scenario("W5")
def a_worker_is_told_to_go(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGTERM of a worker at a random moment of its job: it hands the job back, and no attempt is counted."""
    lab.clear()
    for _ in range(n):
        (worker,) = lab.have(1)
        id = lab.train(pause=0.02)
        lab.runs(id)
        time.sleep(draw.uniform(0, 1))
        with times.measure("SIGTERM to the worker's end"):
            code = lab.terminate(worker)
        assert code == 0, f"{worker.name} left with {code}"
        job = lab.job(id)
        assert job.state in ("queued", "succeeded"), f"{id} was left {job.state}"
        assert job.state == "succeeded" or (job.attempt, job.crashes) == (0, 0), f"{id} counts {job.attempt} attempts"


@scenario("W6")
def a_job_is_rung_for_twenty_times(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """Two workers, and twenty wakes for each job: each job is run once."""
    lab.have(2)
    ids = []
    for _ in range(n):
        ids.append(lab.train(steps=20))
        for _ in range(20):
            lab.ring()
        lab.log.write("duplicate wakes", ids[-1], n=20)
        time.sleep(draw.uniform(0, TIMES["poll"]))
    for id in ids:
        with times.measure("twenty wakes to the end of a short job"):
            lab.reaches(id, "succeeded")
        assert len(lab.attempts(id)) == 1, f"{id} was run {len(lab.attempts(id))} times"
