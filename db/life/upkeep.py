"""What the maintainer does for everybody: take back what a dead worker held, give up what nobody took, and find what was not announced."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy import ColumnElement

from db.life.end import after_crash, close_attempt
from db.life.job import Job
from db.life.move import move
from db.session import Database, clock
from db.tables import job

_AT_ONCE = 100
_LATE = 1.0
_LOST = {
    "where": "",
    "reason": "the worker that ran this job was lost again and again, with no newer checkpoint in between",
    "hint": "look at the attempts of the job: it may need more memory than a worker has",
    "code": "worker_lost",
}
_UNWANTED = {"where": "/device", "reason": "no worker took the job in time", "hint": "start a worker for its queue", "code": "no_worker"}


def reap(db: Database, *, max_crashes: int, since: float, lease: float) -> list[Job]:
    """Transition 12: take the jobs whose lease ran out from their workers, and end each as its wish, its deadline and its crashes say.

    The fence rises at once, so that a worker that only slept can write nothing more. `since` is for how many seconds the caller has
    seen the database without an outage, and no more than `up_for`: before one whole `lease` nothing happens, because nobody could renew
    while it was away.
    """
    if since < lease:
        return []
    began = time.monotonic()
    over = (job.c.state == "running") & (job.c.lease_until < clock())
    reaped = []
    with db.begin() as tx:
        found = tx.execute(
            sa.select(job.c.id, job.c.fence).where(over).order_by(job.c.id).limit(_AT_ONCE).with_for_update(skip_locked=True)
        )
        rows = found.all()
        if time.monotonic() - began > max(lease / 2, _LATE):
            return []  # the database was frozen in this very statement, and its clock went on
        for row in rows:
            close_attempt(tx, row.id, row.fence, code="worker_lost")
            outcome = after_crash(code="worker_lost", problem=_LOST, backoff=0.0, max_crashes=max_crashes)
            change = sa.update(job).where(job.c.id == row.id, over).values({**outcome, "fence": job.c.fence + 1})
            if moved := move(tx, change, code="worker_lost"):
                reaped.append(moved)
    return reaped


def up_for(db: Database) -> float:
    """For how many seconds the server has been up: whoever saw no outage may only not have asked meanwhile. SQLite has no server."""
    if db.dialect == "sqlite":
        return math.inf
    with db.read() as tx:
        return float(tx.execute(sa.select(clock() - sa.extract("epoch", sa.func.pg_postmaster_start_time()))).scalar_one())


def expire(db: Database, *, ttl: float) -> list[Job]:
    """Transition 14: a job that has waited in the queue for `ttl` seconds has failed; no worker wants it."""
    stale = (job.c.state == "queued") & (job.c.run_after < clock() - ttl)
    with db.begin() as tx:
        found = tx.execute(sa.select(job.c.id).where(stale).order_by(job.c.id).limit(_AT_ONCE).with_for_update(skip_locked=True))
        gone = {"state": "failed", "code": "no_worker", "problem": _UNWANTED}
        moved = [move(tx, sa.update(job).where(job.c.id == id, stale).values(gone)) for id in found.scalars().all()]
    return [one for one in moved if one]


def shelved(db: Database, queues: Sequence[str]) -> str | None:
    """The tenant of a job of these queues that was paused for want of room and may be looked at again; None if there is none."""
    with db.read() as tx:
        oldest = sa.select(job.c.tenant_id).where(_shelved(queues)).order_by(job.c.run_after).limit(1)
        tenant: str | None = tx.execute(oldest).scalar_one_or_none()
    return tenant


def unshelve(db: Database, queues: Sequence[str]) -> list[Job]:
    """Transition 17: there is room again, so the jobs of these queues that were paused for want of it are queued. What a user has paused
    has no such code, and stays."""
    waiting = _shelved(queues)
    with db.begin() as tx:
        found = tx.execute(sa.select(job.c.id).where(waiting).order_by(job.c.id).limit(_AT_ONCE).with_for_update(skip_locked=True))
        again = {"state": "queued", "desired": "run", "code": None, "problem": None, "run_after": clock(), "published_at": None}
        moved = [move(tx, sa.update(job).where(job.c.id == id, waiting).values(again)) for id in found.scalars().all()]
    return [one for one in moved if one]


def _shelved(queues: Sequence[str]) -> ColumnElement[bool]:
    mine = job.c.queue.in_([*queues, "any"])
    return (job.c.state == "paused") & (job.c.code == "storage_full") & mine & (job.c.run_after <= clock())


def unpublished(db: Database, *, stale: float) -> Mapping[str, int]:
    """How many jobs of each queue could be claimed and were not announced in the last `stale` seconds; they count as announced now."""
    silent = job.c.published_at.is_(None) | (job.c.published_at < clock() - stale)
    due = sa.select(job.c.id).where(_claimable(), silent).order_by(job.c.id).with_for_update(skip_locked=True)
    with db.begin() as tx:
        queues = tx.execute(sa.update(job).where(job.c.id.in_(due)).values(published_at=clock()).returning(job.c.queue))
        return Counter(queues.scalars())


def claimable(db: Database, queues: Sequence[str]) -> int:
    """How many jobs a worker of these queues could claim now, caps of tenants aside."""
    with db.read() as tx:
        mine = job.c.queue.in_([*queues, "any"])
        return tx.execute(sa.select(sa.func.count()).select_from(job).where(_claimable(), mine)).scalar_one()


def _claimable() -> ColumnElement[bool]:
    return (job.c.state == "queued") & (job.c.run_after <= clock())
