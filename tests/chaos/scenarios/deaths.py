"""Workers and children that die or stand still: W1, W3, W4, W5, W6."""

import random
import time

from tests.chaos.catalogue import Times, scenario
from tests.chaos.lab import Lab, lives, until


@scenario("W1")
def a_worker_is_killed(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGKILL of a worker at a random moment of its job."""
    for _ in range(n):
        lab.have(2)
        id = lab.train(pause=0.02)
        fence = lab.runs(id)
        holder, pid = lab.holder(id), lab.pid(id)
        time.sleep(draw.uniform(0, 1))
        if lab.job(id).fence != fence or lab.job(id).state != "running":
            continue
        lab.kill(holder)
        with times.measure("a worker's death to its child's"):
            until(lambda pid=pid: not lives(pid))  # type: ignore[misc]
        with times.measure("a worker's death to the next attempt"):
            lab.runs(id, after=fence)


@scenario("W3")
def a_child_is_killed(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGKILL of a training process at a random moment."""
    lab.have(1)
    for _ in range(n):
        id = lab.train(pause=0.02)
        fence = lab.runs(id)
        lab.pid(id)
        time.sleep(draw.uniform(0, 1))
        lab.kill_child(id)
        with times.measure("a child's death to the next attempt"):
            lab.runs(id, after=fence)
