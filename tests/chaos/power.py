"""What the checker must find: a service from which one safeguard was taken away, and the invariant that then breaks."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import redis

from db.workers import living
from tests.chaos import engine, sabotage
from tests.chaos.catalogue import Outcome
from tests.chaos.invariants import violations
from tests.chaos.lab import PATIENCE, Dialect, Lab, Process, open_lab, until

_NEVER = 3600.0
_TRIES = 10


def without_fence(lab: Lab, n: int, draw: random.Random) -> None:
    """I2: no fence, no unique index, no trigger; a worker sleeps through its lease and completes the job again."""
    sabotage.without_second_line(lab.database)
    with_index_alone(lab, n, draw)


def with_index_alone(lab: Lab, n: int, draw: random.Random) -> None:
    """Nothing: without the fence, the second line of defence still refuses to complete a job twice."""
    sabotage.without_checks(lab.database)
    for _ in range(2):
        lab.start_worker(command=sabotage.UNFENCED)
    for _ in range(n):
        id = lab.train(pause=0.02, export=False)  # else a second artifact of one name would be refused, and the completion with it
        fence = lab.runs(id)
        holder = lab.holder(id)
        time.sleep(draw.uniform(0, 0.5))
        lab.freeze(holder)
        lab.runs(id, after=fence)
        lab.reaches(id, "succeeded")
        lab.thaw(holder)
        until(lambda process=holder, id=id: _has_tried_to_end(lab, process, id))  # type: ignore[misc]


def without_momentum(lab: Lab, n: int, draw: random.Random) -> None:
    """I3: the checkpoints of the toy lack its momentum."""
    lab.start_worker(child=sabotage.FORGETFUL)
    for _ in range(n):
        _killed_midway(lab, lambda: lab.train(pause=0.02))


def without_optimiser(lab: Lab, n: int, draw: random.Random) -> None:
    """I3: the checkpoints of the real engine lack its optimiser."""
    lab.start_worker(child=sabotage.FORGETFUL_ENGINE)
    for _ in range(n):
        _killed_midway(lab, lambda: engine.train(lab))


def without_reconciler(lab: Lab, n: int, draw: random.Random) -> None:
    """I1: no reconciler and no poll, and Redis is flushed with the wakes in it."""
    first = lab.train(steps=1)
    worker = lab.start_worker(reconcile=_NEVER, poll=_NEVER)
    lab.reaches(first, "succeeded")
    done = lab.entered(first, "succeeded")  # it has looked round once at its start, and now waits to be rung for
    until(lambda: any(each.busy == 0 and each.seen_at > done for each in living(lab.database, within=PATIENCE)))
    lab.freeze(worker)
    with redis.Redis.from_url(lab.broker_url) as client:
        client.client_kill_filter(_type="normal", skipme=True)  # else a wake would lie in the sleeper's own socket
        for _ in range(n):
            lab.train()
            lab.ring()
        assert client.llen("cpu") == n, "the wakes are not in Redis"
    lab.flush_redis()
    lab.thaw(worker)


Sabotage = Callable[[Lab, int, random.Random], None]
"""What is taken away, and a fault that shows it `n` times."""
SABOTAGES: dict[Sabotage, str] = {
    without_fence: "I2",
    without_momentum: "I3",
    without_optimiser: "I3",
    without_reconciler: "I1",
}
"""Each with the invariant that must be found broken."""


def detect(folder: Path, procedure: Sabotage, dialect: Dialect, *, n: int, seed: int) -> Outcome:
    """What the checker finds, in a laboratory of its own."""
    name = procedure.__name__
    with open_lab(folder, dialect) as lab:
        lab.begin(name)
        procedure(lab, n, random.Random(f"{seed} {name}"))
        lab.settle(within=5, helpers=0)
        return Outcome(
            scenario=name, database=dialect, n=n, seed=seed, jobs=len(lab.accepted), faults=dict(lab.log.counts),
            violations=violations(lab), seconds={},
        )  # fmt: skip


def _has_tried_to_end(lab: Lab, process: Process, id: str) -> bool:
    told = (lab.folder / f"{process.name}.log").read_text()
    return f"completed job={id}" in told or f"could not end job={id}" in told


def _killed_midway(lab: Lab, train: Callable[[], str]) -> None:
    """A job whose child is killed between two checkpoints, so that it goes on from the first; another where the kill came too late."""
    for _ in range(_TRIES):
        id = train()
        lab.progresses(id)
        lab.kill_child(id)
        lab.reaches(id, "succeeded")
        if len({event.fence for event in lab.events(id, "checkpoint")}) > 1:
            return
    raise AssertionError("every kill came after the last checkpoint")
