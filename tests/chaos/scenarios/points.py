"""A worker dies between two statements, on purpose: W2."""

import random
from collections.abc import Callable

import sqlalchemy as sa

from db import life
from db.places import CHUNK
from db.tables import blob, blob_chunk
from tests.chaos.catalogue import Times, scenario
from tests.chaos.lab import Lab, Process


def _nothing(lab: Lab, worker: Process, id: str) -> None:
    """The job alone leads there."""


def _wish_to_pause(lab: Lab, worker: Process, id: str) -> None:
    lab.runs(id)
    life.pause(lab.database, lab.tenant, id)


def _go_on(lab: Lab, id: str) -> None:
    life.resume(lab.database, lab.tenant, id)


def _claim_for_a_ghost(lab: Lab) -> None:
    """A job whose worker is gone before it began."""
    lab.train()
    assert life.claim(lab.database, worker="wrk_ghost", queues=["cpu"], lease=0.01), "there was nothing to claim"


def _queue_more(lab: Lab) -> None:
    """More than the worker takes at once: some are still to be announced."""
    for _ in range(3):
        lab.train(steps=10)


def _leave_half_a_blob(lab: Lab) -> None:
    id = f"blob_half_{lab.number('half')}"
    with lab.database.begin() as tx:
        tx.execute(sa.insert(blob).values(id=id, tenant_id=lab.tenant.id, touched_at=0.0))
        tx.execute(sa.insert(blob_chunk), [{"blob_id": id, "i": i, "data": b"half"} for i in range(3)])


POINTS: dict[str, Callable[[Lab, Process, str], None]] = {
    "claim.after_commit": _nothing,
    "spawn.before": _nothing,
    "spawn.after": _nothing,
    "checkpoint.chunk:2": _nothing,
    "checkpoint.before_manifest:2": _nothing,
    "checkpoint.after_manifest:2": _nothing,
    "result.before": _nothing,
    "result.after_commit": _nothing,
    "yield.before": _wish_to_pause,
    "reap.after": _nothing,
    "reconcile.after_publish": _nothing,
    "sweep.middle": _nothing,
}
"""Where a worker can die, and what makes it come there once it runs."""
_BEFORE: dict[str, Callable[[Lab], None]] = {
    "reap.after": _claim_for_a_ghost,
    "reconcile.after_publish": _queue_more,
    "sweep.middle": _leave_half_a_blob,
}
_AFTER: dict[str, Callable[[Lab, str], None]] = {"yield.before": _go_on}


@scenario("W2")
def a_worker_dies_between_two_statements(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """Every crash point of a worker in turn, beginning anew after the last; the next worker finds what the one before left."""
    lab.clear()
    names = list(POINTS)
    draw.shuffle(names)
    for i in range(n):
        name = names[i % len(names)]
        if name in _BEFORE:
            _BEFORE[name](lab)
        id = lab.train(ballast=CHUNK if "chunk" in name else 0)
        worker = lab.start_worker(crash=name)
        POINTS[name](lab, worker, id)
        with times.measure("a worker's start to its crash point"):
            lab.crashed(worker, name)
        if name in _AFTER:
            _AFTER[name](lab, id)
    lab.have(2)
