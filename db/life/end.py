"""How a claim ends: completed once, failed for good, tried again, or handed back.

Each answer is the same when it is asked for again: after a commit of unknown outcome the caller repeats the call with its claim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from db.access import Tenant
from db.ids import new_id
from db.life.job import Claim, Job, held_by
from db.life.move import LEAVING, move, write_events
from db.life.submission import UPLOADED, insert_job
from db.session import Database, clock
from db.states import Code, State
from db.tables import Json, artifact, asset, job, job_attempt

MAX_ATTEMPTS = 50
_TAIL = 64 * 1024
_DOUBLED = 6
_DEADLINE = {"where": "/limits/seconds", "reason": "the job used up its seconds", "hint": "allow more, or train less", "code": "deadline"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewArtifact:
    """A file that a job made, whose bytes the database already keeps."""

    name: str
    format: str
    sha256: str
    bytes: int
    facts: Mapping[str, Any]


def complete(
    db: Database, claim: Claim, *, result: Mapping[str, Any], artifacts: Sequence[NewArtifact] = (), canonical: str | None = None
) -> bool:
    """Transition 5: succeeded, with its artifacts. An inspection makes its asset ready with `result["report"]` and, where given, the
    `canonical` blob; a conversion hands its asset on to the inspection of that blob, whose task has the report as its "safety". False:
    the claim is lost or the user wants the job cancelled. True again if it was this claim that completed it.
    """
    with db.begin() as tx:
        change = sa.update(job).where(held_by(claim), job.c.desired != "cancel").values({**LEAVING, "state": "succeeded", "result": result})
        told = [("artifact", {"name": new.name, "format": new.format, "bytes": new.bytes}) for new in artifacts]
        if (done := move(tx, change, told=told, kind="succeeded")) is None:
            return _ended_as(tx, claim) == "succeeded"
        _keep_artifacts(tx, claim, artifacts)
        if canonical and claim.job.kind == "convert":
            _inspect_converted(tx, done, canonical, result["report"])
        elif canonical:
            tx.execute(sa.update(asset).where(asset.c.job_id == claim.job.id).values(blob=canonical))
        return True


def _inspect_converted(tx: Connection, converted: Job, blob: str, safety: Mapping[str, Any]) -> None:
    """What the conversion made is looked into by another child, as anything that was uploaded; nobody waits if the asset is gone."""
    if converted.asset is None:
        return
    inputs = {
        "task": {**converted.inputs["task"], "kind": "inspect", "safety": dict(safety)},
        "blobs": {**converted.inputs["blobs"], UPLOADED: blob},
    }
    inspection = insert_job(
        tx, Tenant(converted.tenant), kind="inspect", name=converted.name, spec=converted.spec, inputs=inputs, queue=converted.queue,
        priority=converted.priority, metadata=converted.metadata,
    )  # fmt: skip
    tx.execute(sa.update(asset).where(asset.c.job_id == converted.id).values(job_id=inspection.id, blob=blob))


def _keep_artifacts(tx: Connection, claim: Claim, artifacts: Sequence[NewArtifact]) -> None:
    for new in artifacts:
        tx.execute(
            sa.insert(artifact).values(
                id=new_id("art"), tenant_id=claim.job.tenant, job_id=claim.job.id, name=new.name, format=new.format, sha256=new.sha256,
                bytes=new.bytes, facts=new.facts, created_at=clock(),
            )
        )  # fmt: skip


def fail(db: Database, claim: Claim, *, code: Code, problem: Mapping[str, Any]) -> State | None:
    """Transition 6: failed for good, or cancelled if that was wished for. `problem` is {"where", "reason", "hint", "code"}. None: the
    claim is lost.
    """
    cancelled = job.c.desired == "cancel"
    values = {
        **LEAVING,
        "state": sa.case((cancelled, "cancelled"), else_="failed"),
        "code": sa.case((cancelled, "cancelled"), else_=code),
        "problem": sa.case((cancelled, sa.null()), else_=sa.literal(dict(problem), Json)),
    }
    with db.begin() as tx:
        moved = move(tx, sa.update(job).where(held_by(claim)).values(values))
        return moved.state if moved else _ended_as(tx, claim)


def retry(db: Database, claim: Claim, *, code: Code, problem: Mapping[str, Any], backoff: float, max_crashes: int) -> State | None:
    """Transition 7: one crash more, then queued again after `backoff` seconds, or quarantined with the problem once it is one too many.

    The user's wish comes first (cancelled, paused), and a job without seconds left has failed. None: the claim is lost.
    """
    with db.begin() as tx:
        change = (
            sa.update(job).where(held_by(claim)).values(after_crash(code=code, problem=problem, backoff=backoff, max_crashes=max_crashes))
        )
        moved = move(tx, change, code=code)
        return moved.state if moved else _ended_as(tx, claim)


def yield_(db: Database, claim: Claim) -> State | None:
    """Transition 8: hand the job back as the user wishes: queued, paused or cancelled. No attempt was spent. None: the claim is lost."""
    with db.begin() as tx:
        state = sa.case({"pause": "paused", "cancel": "cancelled"}, value=job.c.desired, else_="queued")
        code = sa.case((job.c.desired == "cancel", "cancelled"))
        values = {**LEAVING, "state": state, "code": code, "attempt": job.c.attempt - 1, "run_after": clock()}
        moved = move(tx, sa.update(job).where(held_by(claim)).values(values))
        return moved.state if moved else _ended_as(tx, claim)


def shelve(db: Database, claim: Claim, *, problem: Mapping[str, Any], pause: float) -> State | None:
    """Transition 16: there is no room to go on, so the service pauses the job with `problem` until `unshelve` finds room. Neither a crash
    nor an attempt was spent. What the user wishes comes first: then it is paused or cancelled as `yield_` does it. None: the claim is lost.

    Room is looked for after `pause` seconds at the earliest, and twice as many with each attempt that ended so, up to an hour or so: a job
    may be what fills the disk itself.
    """
    like = (job_attempt.c.job_id == claim.job.id) & (job_attempt.c.code == "storage_full") & (job_attempt.c.fence < claim.fence)
    with db.begin() as tx:
        times = tx.execute(sa.select(sa.func.count()).select_from(job_attempt).where(like)).scalar_one()
        ours = job.c.desired == "run"
        values = {
            **LEAVING,
            "state": sa.case((job.c.desired == "cancel", "cancelled"), else_="paused"),
            "desired": sa.case((job.c.desired == "cancel", "cancel"), else_="pause"),
            "code": sa.case((job.c.desired == "cancel", "cancelled"), (ours, "storage_full")),
            "problem": sa.case((ours, sa.literal(dict(problem), Json)), else_=sa.null()),
            "attempt": job.c.attempt - 1,
            "run_after": clock() + pause * 2 ** min(times, _DOUBLED),
        }
        moved = move(tx, sa.update(job).where(held_by(claim)).values(values))
        return moved.state if moved else _ended_as(tx, claim)


def after_crash(*, code: Code, problem: Mapping[str, Any], backoff: float, max_crashes: int) -> dict[str, Any]:
    """What a crash sets, for the supervisor that saw it and for the maintainer who found a lease run out."""
    late = job.c.deadline < clock()
    spent = (job.c.crashes + 1 >= max_crashes) | (job.c.attempt >= MAX_ATTEMPTS)
    cancelled = job.c.desired == "cancel"

    def by_outcome(cancel: Any, fail: Any, quarantine: Any, pause: Any, queue: Any) -> ColumnElement[Any]:
        return sa.case((cancelled, cancel), (late, fail), (spent, quarantine), (job.c.desired == "pause", pause), else_=queue)

    none = sa.null()
    return {
        **LEAVING,
        "state": by_outcome("cancelled", "failed", "quarantined", "paused", "queued"),
        "code": by_outcome("cancelled", "deadline", code, none, none),
        "problem": by_outcome(none, sa.literal(_DEADLINE, Json), sa.literal(dict(problem), Json), none, none),
        "crashes": job.c.crashes + 1,
        "run_after": clock() + backoff,
    }


def _ended_as(tx: Connection, claim: Claim) -> State | None:
    """How this claim ended, if it did and nobody has claimed the job since; None: it is lost, or it still runs."""
    where = (job.c.id == claim.job.id) & (job.c.fence == claim.fence) & (job.c.state != "running")
    state: State | None = tx.execute(sa.select(job.c.state).where(where)).scalar_one_or_none()
    return state


def end_attempt(
    db: Database, claim: Claim, *, exit_code: int | None, signal: int | None, max_rss: int | None, code: str | None, log_tail: str
) -> None:
    """Say how the child ended; `max_rss` in bytes, the last 64 KiB of `log_tail` are kept. Nothing happens if it was ended before."""
    with db.begin() as tx:
        tx.execute(sa.select(job.c.id).where(job.c.id == claim.job.id).with_for_update())
        close_attempt(
            tx, claim.job.id, claim.fence, code=code, exit_code=exit_code, signal=signal, max_rss=max_rss, log_tail=_clean(log_tail)
        )


def close_attempt(tx: Connection, id: str, fence: int, *, code: str | None, **facts: Any) -> None:
    """End an attempt that has not ended, and tell it; the caller holds the job's row."""
    open_one = (job_attempt.c.job_id == id) & (job_attempt.c.fence == fence) & job_attempt.c.ended_at.is_(None)
    ended = tx.execute(
        sa.update(job_attempt).where(open_one).values(ended_at=clock(), code=code, **facts).returning(job_attempt.c.fence)
    ).first()
    if ended:
        last = tx.execute(
            sa.update(job).where(job.c.id == id).values(event_seq=job.c.event_seq + 1).returning(job.c.event_seq)
        ).scalar_one()
        data = {"fence": fence, "code": code, "exit_code": facts.get("exit_code"), "signal": facts.get("signal")}
        write_events(tx, id, fence, last, [("attempt", data)])


def _clean(tail: str) -> str:
    """A child may print anything; PostgreSQL keeps no NUL, and neither database half a surrogate pair."""
    return tail[-_TAIL:].replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
