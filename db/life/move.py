"""The one way a job row changes: a conditional UPDATE that also numbers its events, all in one transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Update

from db.blobs import forget
from db.life.job import Job, load
from db.session import clock
from db.states import OF_AN_ASSET, TERMINAL
from db.tables import asset, blob, checkpoint, job, job_event

Told = tuple[str, Mapping[str, Any]]
"""An event before it is written: its kind and its data."""

LEAVING: Mapping[str, Any] = {
    "owner": None,
    "lease_until": None,
    "seconds_left": job.c.deadline - clock(),  # null stays null; a pause does not use up a job's seconds
    "deadline": None,
    "published_at": None,
}
"""What every way out of `running` sets."""


def move(tx: Connection, change: Update, *, told: Sequence[Told] = (), kind: str = "status", **facts: Any) -> Job | None:
    """Carry out a conditional UPDATE of one job and append `told`, then an event of its new state; None if no row met the condition.

    The numbers come from the same row-locking UPDATE, so that they are gap-free in the order of commits.
    """
    id = tx.execute(change.values(event_seq=job.c.event_seq + len(told) + 1).returning(job.c.id)).scalar_one_or_none()
    if id is None:
        return None
    moved = load(tx, id)
    code = {"code": moved.code} if moved.code else {}
    write_events(
        tx, moved.id, moved.fence, moved.event_seq, [*told, (kind, {"state": moved.state, "desired": moved.desired, **facts, **code})]
    )
    if moved.kind in OF_AN_ASSET:
        _settle_asset(tx, moved)
    if moved.state == "cancelled" and moved.cancel_keep == "nothing" and moved.checkpoint:
        _forget_checkpoints(tx, moved)
        return load(tx, id)
    return moved


def write_events(tx: Connection, id: str, fence: int, last: int, told: Sequence[Told]) -> None:
    """Write events whose numbers, ending at `last`, an UPDATE of this transaction has taken."""
    first = last - len(told) + 1
    rows = [{"job_id": id, "seq": first + i, "fence": fence, "kind": kind, "data": data} for i, (kind, data) in enumerate(told)]
    tx.execute(sa.insert(job_event).values(at=clock()), rows)


def _settle_asset(tx: Connection, inspected: Job) -> None:
    """The end of an inspection is the asset's own: never `processing` for ever. One that is released makes it `processing` once more.

    So is that of a conversion, but for its success: then the inspection of what it made follows.
    """
    before, outcome = "processing", dict[str, Any]()
    if inspected.state == "succeeded" and inspected.kind == "convert":
        return
    if inspected.state == "succeeded":
        outcome = {"status": "ready", "report": (inspected.result or {}).get("report", {})}
    elif inspected.state in TERMINAL or inspected.state == "quarantined":
        outcome = {"status": "rejected", "problem": inspected.problem or {"where": "", **CANCELLED}}
    elif inspected.state == "queued":
        before, outcome = "rejected", {"status": "processing", "problem": None}
    if outcome:
        tx.execute(sa.update(asset).where(asset.c.job_id == inspected.id, asset.c.status == before).values(outcome))


def _forget_checkpoints(tx: Connection, cancelled: Job) -> None:
    """The wish to keep nothing, whoever ended the job. The bytes have no name from here on; the next `garbage.sweep` takes them apart."""
    tx.execute(sa.update(job).where(job.c.id == cancelled.id).values(checkpoint_done=None))
    dropped = sa.delete(checkpoint).where(checkpoint.c.job_id == cancelled.id).returning(checkpoint.c.blob)
    unused = [id for digest in sorted(tx.execute(dropped).scalars()) for id in forget(tx, cancelled.tenant, digest)]
    tx.execute(sa.update(blob).where(blob.c.id.in_(unused)).values(touched_at=0.0))


CANCELLED = {"reason": "the inspection was cancelled", "hint": "create the asset again", "code": "cancelled"}
