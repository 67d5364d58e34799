"""What a tenant may ask of a job: `desired` of any job, `state` only of one that is not running.

Each answers with the job, also when it already is as wished, and with None if the tenant has no such job or its state does not allow it.
An inspection takes no wishes: delete its asset instead.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from db.access import Tenant
from db.life.job import Job, job_of, jobs
from db.life.move import move
from db.life.submission import insert_job, lock_tenant, refuse_above
from db.session import Database, clock
from db.tables import job

_REQUEUED = {"desired": "run", "run_after": clock(), "published_at": None}


def pause(db: Database, tenant: Tenant, id: str) -> Job | None:
    """Transition 9: a queued job is paused; a running one when its supervisor has kept a checkpoint."""
    values = {"desired": "pause", "state": _unless_running("paused"), "code": sa.null(), "problem": sa.null()}
    # One that the service had paused is the user's pause from now on: room alone ends it no more.
    shelved = (job.c.state == "paused") & (job.c.code == "storage_full")
    able = (job.c.state.in_(("queued", "running")) & (job.c.desired == "run")) | shelved
    return _wish(db, tenant, id, able=able, values=values, granted={("running", "pause"), ("paused", "pause")})


def resume(db: Database, tenant: Tenant, id: str) -> Job | None:
    """Transition 10: a paused job is queued; a running one that was to be paused goes on."""
    values = {**_REQUEUED, "state": _unless_running("queued"), "code": None, "problem": None}
    able = job.c.state.in_(("paused", "running")) & (job.c.desired == "pause")
    return _wish(db, tenant, id, able=able, values=values, granted={("running", "run"), ("queued", "run")})


def cancel(db: Database, tenant: Tenant, id: str) -> Job | None:
    """Transition 11: cancelled at once, or, while it runs, by its supervisor. There is no way back."""
    return _wish(db, tenant, id, able=ENDABLE, values=CANCELLING, granted={("running", "cancel"), ("cancelled", "cancel")})


def prune(db: Database, tenant: Tenant, id: str) -> bool:
    """Cancel a trial that its sweep gives up; the event of it says `pruned`. False where it has ended, or is cancelled already."""
    with db.begin() as tx:
        own = (job.c.id == id) & (job.c.tenant_id == tenant.id)
        return move(tx, sa.update(job).where(own, ENDABLE).values(CANCELLING), pruned=True) is not None


def release(db: Database, tenant: Tenant, id: str) -> Job | None:
    """Transition 13: out of quarantine, with its crashes forgiven."""
    values = {**_REQUEUED, "state": "queued", "crashes": 0, "code": None, "problem": None}
    return _wish(db, tenant, id, able=job.c.state == "quarantined", values=values, granted={("queued", "run")})


def retry_as_new(db: Database, tenant: Tenant, id: str, *, max_queued: int | None = None) -> Job | None:
    """A new job with this failed or cancelled one as its parent, starting from its last checkpoint. The old one stays as it is.

    `TooManyQueued` if the tenant has `max_queued` jobs waiting already.
    """
    with db.begin() as tx:
        lock_tenant(tx, tenant)
        old = _find(tx, tenant, id)
        if old is None or old.state not in ("failed", "cancelled"):
            return None
        if max_queued is not None:
            refuse_above(tx, tenant, max_queued)
        return insert_job(
            tx, tenant, kind=old.kind, name=old.name, spec=old.spec, spec_sha=old.spec_sha, inputs=old.inputs, queue=old.queue,
            priority=old.priority, parent=old.id, seconds_limit=old.seconds_limit, metadata=old.metadata, start=old.checkpoint,
        )  # fmt: skip


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
        own = (job.c.id == id) & (job.c.tenant_id == tenant.id) & (job.c.kind != "inspect")
        found = move(tx, sa.update(job).where(own, able).values(values)) or _find(tx, tenant, id)
        return found if found and (found.state, found.desired) in granted else None


def _find(tx: Connection, tenant: Tenant, id: str) -> Job | None:
    row = tx.execute(jobs.where(job.c.id == id, job.c.tenant_id == tenant.id, job.c.kind != "inspect")).mappings().one_or_none()
    return job_of(row) if row else None
