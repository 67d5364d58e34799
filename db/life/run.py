"""While a job runs: claim it, keep the claim, tell what happens, keep checkpoints. Every write carries the fence."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from db.blobs import discard, forget
from db.crashpoint import crashpoint
from db.life.job import Claim, Renewal, held_by
from db.life.move import Told, move, write_events
from db.session import Database, clock
from db.tables import blob as blobs
from db.tables import checkpoint, job, job_attempt, tenant

_CLAIMS = 0x5265746F7274
"""The advisory lock that makes claims take turns on PostgreSQL, so that a tenant's cap is exact. Claims are rare: jobs take hours."""
_KEEP = 2


def claim(db: Database, *, worker: str, queues: Sequence[str], lease: float) -> Claim | None:
    """Transition 2: take the next job of these queues for `lease` seconds; None if there is nothing to take.

    Fair between tenants: the one with the fewest running jobs is first, then the higher priority, then the older job.
    """
    with db.begin() as tx:
        if tx.dialect.name == "postgresql":
            tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_CLAIMS)))
        change = sa.update(job).where(job.c.id == _next(queues), job.c.state == "queued")
        taken = move(
            tx,
            change.values(
                state="running",
                fence=job.c.fence + 1,
                attempt=job.c.attempt + 1,
                owner=worker,
                lease_until=clock() + lease,
                deadline=clock() + job.c.seconds_left,
            ),
            worker=worker,
        )
        if taken is None:
            return None
        tx.execute(sa.insert(job_attempt).values(job_id=taken.id, fence=taken.fence, worker=worker, started_at=clock()))
        return Claim(taken, taken.fence)


def _next(queues: Sequence[str]) -> sa.ScalarSelect[str]:
    other, waiting = job.alias("other"), job.alias("waiting")
    theirs = (other.c.tenant_id == waiting.c.tenant_id) & (other.c.state == "running")
    running = sa.select(sa.func.count()).select_from(other).where(theirs).correlate(waiting).scalar_subquery()
    return (
        sa.select(waiting.c.id)
        .join(tenant, tenant.c.id == waiting.c.tenant_id)
        .where(
            waiting.c.state == "queued",
            waiting.c.desired == "run",
            waiting.c.run_after <= clock(),
            waiting.c.queue.in_([*queues, "any"]),
            running < tenant.c.max_running,
        )
        .order_by(running, waiting.c.priority.desc(), waiting.c.id)
        .limit(1)
        .with_for_update(of=waiting, skip_locked=True)
        .scalar_subquery()
    )


def renew(db: Database, claim: Claim, *, lease: float) -> Renewal | None:
    """Transition 3: hold the claim for `lease` seconds more, also just after it ran out if nobody reaped. None: it is lost, stop now."""
    with db.begin() as tx:
        statement = sa.update(job).where(held_by(claim)).values(lease_until=clock() + lease)
        row = tx.execute(statement.returning(job.c.desired, _late)).one_or_none()
    return Renewal(row.desired, bool(row.late)) if row else None


def wish(db: Database, claim: Claim) -> Renewal | None:
    """What `renew` answers, only read: for looking often. None: the claim is lost."""
    with db.read() as tx:
        row = tx.execute(sa.select(job.c.desired, _late).where(held_by(claim))).one_or_none()
    return Renewal(row.desired, bool(row.late)) if row else None


_late = (job.c.deadline.is_not(None) & (job.c.deadline < clock())).label("late")


def record(db: Database, claim: Claim, events: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    """Append (kind, data) events in order. False: the claim is lost and nothing was written.

    Told again after a commit of unknown outcome, events may stand twice; readers take a step once.
    """
    with db.begin() as tx:
        return _append(tx, claim, events)


def _append(tx: Connection, claim: Claim, events: Sequence[Told]) -> bool:
    if not events:
        return tx.execute(sa.select(job.c.id).where(held_by(claim))).first() is not None
    statement = sa.update(job).where(held_by(claim)).values(event_seq=job.c.event_seq + len(events)).returning(job.c.event_seq)
    last = tx.execute(statement).scalar_one_or_none()
    if last is None:
        return False
    write_events(tx, claim.job.id, claim.fence, last, events)
    return True


def keep_checkpoint(db: Database, claim: Claim, *, blob: str, done: int, fit: int, step: int, values: Mapping[str, Any]) -> bool:
    """Transition 4: the job resumes from here from now on; its count of crashes starts anew, and only the newest two are kept.

    `blob` must be kept already; `done` counts the steps over all fits. False: the claim is lost. A checkpoint that is not newer than
    the kept one (a repetition after a commit of unknown outcome) changes nothing. The bytes of older ones go at the end.
    """
    crashpoint("checkpoint.before_manifest")
    with db.begin() as tx:
        newer = job.c.checkpoint_done.is_(None) | (job.c.checkpoint_done < done)
        change = sa.update(job).where(held_by(claim), newer).values(checkpoint_done=done, crashes=0, event_seq=job.c.event_seq + 1)
        last = tx.execute(change.returning(job.c.event_seq)).scalar_one_or_none()
        if last is None:
            return tx.execute(sa.select(job.c.id).where(held_by(claim))).first() is not None
        own = (blobs.c.tenant_id == claim.job.tenant) & (blobs.c.sha256 == blob)
        told = {"done": done, "fit": fit, "step": step, "bytes": tx.execute(sa.select(blobs.c.size).where(own)).scalar_one()}
        where = {"job_id": claim.job.id, "tenant_id": claim.job.tenant, "done": done, "fit": fit, "step": step, "blob": blob}
        tx.execute(sa.insert(checkpoint).values(**where, measured=values, created_at=clock()))
        write_events(tx, claim.job.id, claim.fence, last, [("checkpoint", told)])
        unused = _forget_older(tx, claim.job.id)
    crashpoint("checkpoint.after_manifest")
    for id in unused:
        discard(db, id)
    return True


def _forget_older(tx: Connection, id: str) -> list[str]:
    """Drop all but the newest checkpoints; the blobs that nothing names any more."""
    newest = sa.select(checkpoint.c.done).where(checkpoint.c.job_id == id).order_by(checkpoint.c.done.desc()).limit(_KEEP)
    older = sa.delete(checkpoint).where(checkpoint.c.job_id == id, checkpoint.c.done.not_in(newest))
    dropped = tx.execute(older.returning(checkpoint.c.tenant_id, checkpoint.c.blob)).all()
    return [blob for row in dropped for blob in forget(tx, row.tenant_id, row.blob)]
