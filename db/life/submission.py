"""Submit: a job that was accepted is a committed row, and the same request twice is one job."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from db.access import Tenant
from db.ids import new_id
from db.life.job import Job, job_of, jobs, load
from db.life.move import write_events
from db.life.trials import enter
from db.session import Database, clock, insert_or
from db.states import Kind
from db.tables import blob, checkpoint, idempotency_key, job, tenant

UPLOADED = "in/upload"
"""Where an inspection finds what the user sent."""
_REMEMBERED = 72 * 3600.0


class TooManyQueued(Exception):
    """The tenant has as many jobs waiting as it may."""


class KeyReused(Exception):
    """The idempotency key was used before, for another request."""


def submit(
    db: Database,
    owner: Tenant,
    *,
    name: str,
    spec: Mapping[str, Any],
    spec_sha: str,
    inputs: Mapping[str, Any],
    queue: str,
    priority: int = 0,
    parent: str | None = None,
    seconds_limit: float | None = None,
    metadata: Mapping[str, Any] | None = None,
    idempotency: tuple[str, str] | None = None,
    trial: tuple[str, int] | None = None,
    max_queued: int,
    kind: Kind = "distil",
) -> Job:
    """Transition 1: a queued job. With `idempotency` = (key, fingerprint of the body) a repetition answers with the first job.

    With `trial` = (sweep, number) it is that trial of the sweep, or `NotTheNext`.
    """
    with db.begin() as tx:
        lock_tenant(tx, owner)
        if idempotency and (known := remembered(tx, owner, *idempotency)):
            return job_of(tx.execute(jobs.where(job.c.id == known, job.c.tenant_id == owner.id)).mappings().one())
        refuse_above(tx, owner, max_queued)
        new = insert_job(
            tx, owner, kind=kind, name=name, spec=spec, spec_sha=spec_sha, inputs=inputs, queue=queue, priority=priority,
            parent=parent, seconds_limit=seconds_limit, metadata=metadata or {},
        )  # fmt: skip
        if trial:
            enter(tx, owner, *trial, job=new.id)
            new = load(tx, new.id)
        if idempotency:
            remember(tx, owner, *idempotency, new.id)
        return new


def lock_tenant(tx: Connection, owner: Tenant) -> None:
    """Make the submits of one tenant wait for each other, so that its cap and its keys are exact (SQLite has one writer anyway)."""
    tx.execute(sa.select(tenant.c.id).where(tenant.c.id == owner.id).with_for_update(key_share=True)).one()


def refuse_above(tx: Connection, owner: Tenant, max_queued: int) -> None:
    """`TooManyQueued` if one more would be too many."""
    waiting = sa.select(sa.func.count()).select_from(job).where(job.c.tenant_id == owner.id, job.c.state == "queued")
    if tx.execute(waiting).scalar_one() >= max_queued:
        raise TooManyQueued(f"{max_queued} jobs are waiting already")


def insert_job(
    tx: Connection, owner: Tenant, *, kind: Kind, name: str, spec: Mapping[str, Any], inputs: Mapping[str, Any], queue: str,
    spec_sha: str | None = None, priority: int = 0, parent: str | None = None, seconds_limit: float | None = None,
    metadata: Mapping[str, Any], start: Job | None = None,
) -> Job:  # fmt: skip
    """A queued job and its first event; `start` is another job of the tenant, from whose checkpoints it begins.

    KeyError for a blob of `inputs` that the tenant does not have: what was accepted can be run.
    """
    _need(tx, owner, set(inputs["blobs"].values()))
    id = new_id("job")
    tx.execute(
        sa.insert(job).values(
            id=id, tenant_id=owner.id, kind=kind, name=name, queue=queue, priority=priority, state="queued", desired="run",
            run_after=clock(), spec=spec, inputs=inputs, spec_sha=spec_sha, parent_id=parent, seconds_limit=seconds_limit,
            seconds_left=seconds_limit, metadata=metadata, event_seq=1, created_at=clock(),
            checkpoint_done=start.checkpoint["done"] if start and start.checkpoint else None,
        )
    )  # fmt: skip
    if start:
        # All that are kept and not the newest alone: should that one be damaged, there is one before it.
        kept = [column for column in checkpoint.c if column.name != "job_id"]
        theirs = sa.select(sa.literal(id), *kept).where(checkpoint.c.job_id == start.id)
        tx.execute(sa.insert(checkpoint).from_select(["job_id", *(column.name for column in kept)], theirs))
    write_events(tx, id, 0, 1, [("status", {"state": "queued", "desired": "run"})])
    return load(tx, id)


def _need(tx: Connection, owner: Tenant, digests: set[str]) -> None:
    own = (blob.c.tenant_id == owner.id) & blob.c.sha256.in_(digests)
    there = tx.execute(sa.update(blob).where(own).values(touched_at=clock()).returning(blob.c.sha256)).scalars().all()
    if missing := digests.difference(there):
        raise KeyError(min(missing))


def remembered(tx: Connection, owner: Tenant, key: str, fingerprint: str) -> str | None:
    """The id of what a request with this key made; `KeyReused` where that was another request."""
    row = tx.execute(
        sa.select(idempotency_key.c.fingerprint, idempotency_key.c.job_id).where(
            idempotency_key.c.tenant_id == owner.id, idempotency_key.c.key == key, idempotency_key.c.created_at > clock() - _REMEMBERED
        )
    ).one_or_none()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise KeyReused(key)
    return str(row.job_id)


def remember(tx: Connection, owner: Tenant, key: str, fingerprint: str, id: str) -> None:
    """Note what a request with this key made."""
    values = {"fingerprint": fingerprint, "job_id": id, "created_at": clock()}
    statement = insert_or(tx, idempotency_key).values(tenant_id=owner.id, key=key, **values)
    tx.execute(statement.on_conflict_do_update(index_elements=["tenant_id", "key"], set_=values))
