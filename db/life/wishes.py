"""What a tenant may ask of a job: `desired` of any job, `state` only of one that is not running.

Each answers with the job, also when it already is as wished, and with None if the tenant has no such job or its state does not allow it.
All of it holds for every kind of work. The asset of an inspection follows: one that is cancelled rejects it, one that is released or tried
again makes it `processing` once more.
"""

from collections.abc import Mapping
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from db.access import Tenant
from db.life.job import Job, job_of, jobs, load
from db.life.move import move
from db.life.submission import insert_job, lock_tenant, refuse_above, remember, remembered
from db.session import Database, clock
from db.states import OF_AN_ASSET, CancelMode, Keep
from db.tables import asset, job

_REQUEUED = {"desired": "run", "run_after": clock(), "published_at": None, "code": None, "problem": None}


def pause(db: Database, tenant: Tenant, id: str) -> Job | None:
    """Transition 9: a queued job is paused; a running one when its supervisor has kept a checkpoint."""
    values = {"desired": "pause", "state": _unless_running("paused"), "code": sa.null(), "problem": sa.null()}
    # One that the service had paused is the user's pause from now on: room alone ends it no more.
    shelved = (job.c.state == "paused") & (job.c.code == "storage_full")
    able = (job.c.state.in_(("queued", "running")) & (job.c.desired == "run")) | shelved
    return _wish(db, tenant, id, able=able, values=values, granted={("running", "pause"), ("paused", "pause")})


def resume(db: Database, tenant: Tenant, id: str) -> Job | None:
    """Transition 10: a paused job is queued, whoever paused it; a running one that was to be paused goes on."""
    values = {**_REQUEUED, "state": _unless_running("queued")}
    able = job.c.state.in_(("paused", "running")) & (job.c.desired == "pause")
    return _wish(db, tenant, id, able=able, values=values, granted={("running", "run"), ("queued", "run")})


def cancel(db: Database, tenant: Tenant, id: str, *, mode: CancelMode = "now", keep: Keep = "checkpoint") -> Job | None:
    """Transition 11: cancelled at once, or, while it runs, by its supervisor. There is no way back.

    `graceful` lets a running job finish its step and keep a checkpoint first. With `nothing` the checkpoints are forgotten in the
    transaction that makes it cancelled, or, of a job that is cancelled, in this one. What is harder than an earlier cancel is taken; what
    is softer changes nothing.
    """
    before = job.c.desired == "cancel"
    harder = sa.or_(
        sa.and_(sa.literal(mode == "now"), job.c.state == "running", job.c.cancel_mode == "graceful"),
        sa.and_(sa.literal(keep == "nothing"), job.c.state.in_(("running", "cancelled")), job.c.cancel_keep == "checkpoint"),
    )
    values = {
        **CANCELLING,
        "cancel_mode": mode if mode == "now" else sa.case((before, job.c.cancel_mode), else_=mode),
        "cancel_keep": keep if keep == "nothing" else sa.case((before, job.c.cancel_keep), else_=keep),
    }
    able = ENDABLE | (before & harder)
    return _wish(db, tenant, id, able=able, values=values, granted={("running", "cancel"), ("cancelled", "cancel")})


def prune(db: Database, tenant: Tenant, id: str) -> bool:
    """Cancel a trial that its sweep gives up; the event of it says `pruned`. False where it has ended, or is cancelled already."""
    with db.begin() as tx:
        own = (job.c.id == id) & (job.c.tenant_id == tenant.id)
        return move(tx, sa.update(job).where(own, ENDABLE).values(CANCELLING), pruned=True) is not None


def release(db: Database, tenant: Tenant, id: str) -> Job | None:
    """Transition 13: out of quarantine, with its crashes forgiven. A job that is on its way already is as wished."""
    values = {**_REQUEUED, "state": "queued", "crashes": 0}
    return _wish(db, tenant, id, able=job.c.state == "quarantined", values=values, granted={("queued", "run"), ("running", "run")})


def retry_as_new(
    db: Database, tenant: Tenant, id: str, *, start: Literal["checkpoint", "start"] = "checkpoint",
    idempotency: tuple[str, str] | None = None, max_queued: int | None = None,
) -> Job | None:  # fmt: skip
    """A new job with this failed or cancelled one as its parent, from its last checkpoint or from the start. The old one stays as it is.

    With `idempotency` = (key, fingerprint of the request) a repetition answers with the first job. A new inspection takes over the asset
    of the old one; None where the asset is gone, or has been taken over already. `TooManyQueued` if the tenant has `max_queued` jobs
    waiting already, KeyError for a blob that is not kept any more.
    """
    with db.begin() as tx:
        lock_tenant(tx, tenant)
        if idempotency and (known := remembered(tx, tenant, *idempotency)):
            return _find(tx, tenant, known)
        # Held, so that a cancel that keeps nothing comes before or after, and never between the look at its checkpoints and their copy.
        tx.execute(sa.select(job.c.id).where(job.c.id == id, job.c.tenant_id == tenant.id).with_for_update(read=True))
        old = _find(tx, tenant, id)
        if old is None or old.state not in ("failed", "cancelled") or (old.kind in OF_AN_ASSET and old.asset is None):
            return None
        if max_queued is not None:
            refuse_above(tx, tenant, max_queued)
        new = insert_job(
            tx, tenant, kind=old.kind, name=old.name, spec=old.spec, spec_sha=old.spec_sha, inputs=old.inputs, queue=old.queue,
            priority=old.priority, parent=old.id, seconds_limit=old.seconds_limit, metadata=old.metadata,
            start=old if start == "checkpoint" else None,
        )  # fmt: skip
        if old.asset:
            again = {"job_id": new.id, "status": "processing", "problem": None}
            tx.execute(sa.update(asset).where(asset.c.id == old.asset, asset.c.job_id == old.id).values(again))
            new = load(tx, new.id)
        if idempotency:
            remember(tx, tenant, *idempotency, new.id)
        return new


def _unless_running(state: str) -> ColumnElement[str]:
    return sa.case((job.c.state == "running", "running"), else_=state)


CANCELLING: Mapping[str, Any] = {
    "desired": "cancel",
    "state": _unless_running("cancelled"),
    "code": sa.case((job.c.state == "running", sa.null()), else_="cancelled"),
}
"""What a cancel sets."""


ENDABLE = job.c.state.in_(("queued", "paused", "quarantined", "running")) & (job.c.desired != "cancel")
"""What a cancel can still end."""


def _wish(
    db: Database, tenant: Tenant, id: str, *, able: ColumnElement[bool], values: Mapping[str, Any], granted: set[tuple[str, str]]
) -> Job | None:
    """One conditional UPDATE; the job if it is then in one of the `granted` (state, wish), whoever brought it there."""
    with db.begin() as tx:
        own = (job.c.id == id) & (job.c.tenant_id == tenant.id)
        found = move(tx, sa.update(job).where(own, able).values(values)) or _find(tx, tenant, id)
        return found if found and (found.state, found.desired) in granted else None


def _find(tx: Connection, tenant: Tenant, id: str) -> Job | None:
    row = tx.execute(jobs.where(job.c.id == id, job.c.tenant_id == tenant.id)).mappings().one_or_none()
    return job_of(row) if row else None
