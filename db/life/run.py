"""While a job runs: claim it, keep the claim, tell what happens, keep checkpoints. Every write carries the fence."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from db.blobs import discard, forget
from db.crashpoint import crashpoint
from db.life.job import Claim, Job, Renewal, held_by, load
from db.life.move import Told, move, write_events
from db.session import Database, clock
from db.tables import blob as blobs
from db.tables import checkpoint, job, job_attempt, tenant

_CLAIMS = 0x5265746F7274
"""The advisory lock that makes claims take turns on PostgreSQL, so that a tenant's cap is exact. Claims are rare: jobs take hours."""
_KEEP = 2
_BEST = ("accuracy", "agreement")
"""What of the measurements tells which checkpoint is the best: a job measures the one, or, on data without labels, the other."""


def claim(db: Database, *, worker: str, queues: Sequence[str], lease: float) -> Claim | None:
    """Transition 2: take the next job of these queues for `lease` seconds; None if there is nothing to take.

    Fair between tenants: the one with the fewest running jobs is first, then the one whose turn was longest ago, so that a flood of one
    holds no other up for longer than a job takes. Of a tenant's own jobs the one of higher priority is first, then the older one.
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
    # Each asked once and not for every waiting job: how many jobs of each tenant run, and when it last had a turn.
    counted = sa.select(job.c.tenant_id, sa.func.count().label("running")).where(job.c.state == "running")
    loads = counted.group_by(job.c.tenant_id).subquery()
    queued = sa.select(job.c.tenant_id).where(job.c.state == "queued")
    started = sa.select(job.c.tenant_id, sa.func.max(job_attempt.c.started_at).label("last")).join(job_attempt)
    turns = started.where(job.c.tenant_id.in_(queued)).group_by(job.c.tenant_id).subquery()
    waiting = job.alias("waiting")
    running, last = sa.func.coalesce(loads.c.running, 0), sa.func.coalesce(turns.c.last, 0.0)
    return (
        sa.select(waiting.c.id)
        .join(tenant, tenant.c.id == waiting.c.tenant_id)
        .outerjoin(loads, loads.c.tenant_id == waiting.c.tenant_id)
        .outerjoin(turns, turns.c.tenant_id == waiting.c.tenant_id)
        .where(
            waiting.c.state == "queued",
            waiting.c.desired == "run",
            waiting.c.run_after <= clock(),
            waiting.c.queue.in_([*queues, "any"]),
            running < tenant.c.max_running,
        )
        .order_by(running, last, waiting.c.priority.desc(), waiting.c.id)
        .limit(1)
        .with_for_update(of=waiting, skip_locked=True)
        .scalar_subquery()
    )


def renew(db: Database, claim: Claim, *, lease: float) -> Renewal | None:
    """Transition 3: hold the claim for `lease` seconds more, also just after it ran out if nobody reaped. None: it is lost, stop now."""
    with db.begin() as tx:
        statement = sa.update(job).where(held_by(claim)).values(lease_until=clock() + lease)
        row = tx.execute(statement.returning(*_RENEWAL)).one_or_none()
    return _renewal(row)


def wish(db: Database, claim: Claim) -> Renewal | None:
    """What `renew` answers, only read: for looking often. None: the claim is lost."""
    with db.read() as tx:
        row = tx.execute(sa.select(*_RENEWAL).where(held_by(claim))).one_or_none()
    return _renewal(row)


_RENEWAL = (job.c.desired, job.c.cancel_mode, (job.c.deadline.is_not(None) & (job.c.deadline < clock())).label("late"))


def _renewal(row: sa.Row[Any] | None) -> Renewal | None:
    return Renewal(row.desired, bool(row.late), row.cancel_mode == "graceful") if row else None


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
    """Transition 4: the job resumes from here from now on; its count of crashes starts anew. The newest two are kept, and the best.

    `blob` must be kept already, KeyError where it is not any more; `done` counts the steps over all fits; `values` are the newest
    measurements on validation data, and the best checkpoint is that of the highest accuracy, or agreement where there is none. False: the
    claim is lost. A checkpoint that is not newer than the kept one (a repetition after a commit of unknown outcome) changes nothing. The
    bytes of others go at the end.
    """
    crashpoint("checkpoint.before_manifest")
    with db.begin() as tx:
        newer = job.c.checkpoint_done.is_(None) | (job.c.checkpoint_done < done)
        change = sa.update(job).where(held_by(claim), newer).values(checkpoint_done=done, crashes=0, event_seq=job.c.event_seq + 1)
        last = tx.execute(change.returning(job.c.event_seq)).scalar_one_or_none()
        if last is None:
            return tx.execute(sa.select(job.c.id).where(held_by(claim))).first() is not None
        own = (blobs.c.tenant_id == claim.job.tenant) & (blobs.c.sha256 == blob)
        size = tx.execute(sa.select(blobs.c.size).where(own).with_for_update(key_share=True, read=True)).scalar_one_or_none()
        if size is None:  # another job of the tenant had the same bytes, and was the last to need them a moment ago
            raise KeyError(blob)
        told = {"done": done, "fit": fit, "step": step, "bytes": size}
        where = {"job_id": claim.job.id, "tenant_id": claim.job.tenant, "done": done, "fit": fit, "step": step, "blob": blob}
        tx.execute(sa.insert(checkpoint).values(**where, measured=values, created_at=clock()))
        write_events(tx, claim.job.id, claim.fence, last, [("checkpoint", told)])
        unused = _forget_others(tx, claim.job.id)
    crashpoint("checkpoint.after_manifest")
    for id in unused:
        discard(db, id)
    return True


def _forget_others(tx: Connection, id: str) -> list[str]:
    """Drop all checkpoints but the newest and the best; the blobs that nothing names any more."""
    own = sa.select(checkpoint.c.done, checkpoint.c.measured).where(checkpoint.c.job_id == id).order_by(checkpoint.c.done.desc())
    kept = tx.execute(own).all()
    figures = ((row, next((row.measured[name] for name in _BEST if name in row.measured), None)) for row in kept)
    judged = [(row, figure) for row, figure in figures if isinstance(figure, int | float)]
    best, _ = max(judged, key=lambda each: each[1], default=(None, None))  # of equals the newest
    spared = {row.done for row in kept[:_KEEP]} | ({best.done} if best else set())
    return forget_checkpoints(tx, (checkpoint.c.job_id == id) & checkpoint.c.done.not_in(spared))


def forget_checkpoints(tx: Connection, which: sa.ColumnElement[bool]) -> list[str]:
    """Drop these checkpoints; the blobs to `discard` after the commit, for nothing names them any more. What a job goes on from is the
    caller's to set."""
    dropped = tx.execute(sa.delete(checkpoint).where(which).returning(checkpoint.c.tenant_id, checkpoint.c.blob)).all()
    return [blob for row in dropped for blob in forget(tx, row.tenant_id, row.blob)]


def fall_back(db: Database, claim: Claim, *, done: int, reason: str) -> Job | None:
    """Transition 15: the checkpoint at `done` cannot be read and is forgotten; the job goes on from the one before it, or from the start.

    The job as it is now, also when it has fallen back from there before. None: the claim is lost.
    """
    kept = (checkpoint.c.job_id == claim.job.id) & (checkpoint.c.done < done)
    before = sa.select(sa.func.max(checkpoint.c.done)).where(kept).scalar_subquery()
    unused: list[str] = []
    with db.begin() as tx:
        change = sa.update(job).where(held_by(claim), job.c.checkpoint_done == done)
        values = {"checkpoint_done": before, "event_seq": job.c.event_seq + 1}
        row = tx.execute(change.values(values).returning(job.c.event_seq, job.c.checkpoint_done)).one_or_none()
        if row is not None:
            told = {"done": done, "reason": reason[:1000], "resumes_from": row.checkpoint_done}
            write_events(tx, claim.job.id, claim.fence, row.event_seq, [("checkpoint_corrupt", told)])
            unused = forget_checkpoints(tx, (checkpoint.c.job_id == claim.job.id) & (checkpoint.c.done == done))
        elif tx.execute(sa.select(job.c.id).where(held_by(claim))).first() is None:
            return None
        now = load(tx, claim.job.id)
    for id in unused:
        discard(db, id)
    return now
