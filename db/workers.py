"""Who could take a job: the workers that have been heard of lately."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from db.session import Database, clock, insert_or
from db.tables import worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker process; `busy` of its `slots` are taken, each job of it may use `threads`. `calibration` is what its device does, as
    `core/calibrate.py` measures it, None until it has.
    """

    id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    device: str
    slots: int
    threads: int
    busy: int
    started_at: float
    seen_at: float
    calibration: Mapping[str, Any] | None


def heartbeat(
    db: Database, *, id: str, host: str, pid: int, queues: Sequence[str], device: str, slots: int, threads: int, busy: int,
    calibration: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """A worker lives, and this is what it can do."""
    facts = {
        "host": host, "pid": pid, "queues": list(queues), "device": device, "slots": slots, "threads": threads, "busy": busy,
        "seen_at": clock(), "calibration": calibration,
    }  # fmt: skip
    with db.begin() as tx:
        new = insert_or(tx, worker).values(id=id, started_at=clock(), **facts)
        tx.execute(new.on_conflict_do_update(index_elements=["id"], set_=facts))


def living(db: Database, *, within: float) -> list[Worker]:
    """The workers that were heard of in the last `within` seconds."""
    known = [worker.c[name] for name in Worker.__dataclass_fields__]
    with db.read() as tx:
        rows = tx.execute(sa.select(*known).where(worker.c.seen_at > clock() - within).order_by(worker.c.id)).mappings().all()
    return [Worker(**{**row, "queues": tuple(row["queues"])}) for row in rows]


def gone(db: Database, id: str) -> None:
    """A worker says goodbye."""
    with db.begin() as tx:
        tx.execute(sa.delete(worker).where(worker.c.id == id))
