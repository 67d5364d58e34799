"""What happened to a job, in the order of its gap-free numbers: progress, metrics, the live stream and the times are queries over it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from db.access import Tenant
from db.life.job import Job
from db.session import Database
from db.tables import job as jobs
from db.tables import job_event


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened, told under one fence; `at` in seconds by the database's clock."""

    seq: int
    fence: int
    kind: str
    at: float
    data: dict[str, Any]


def events(db: Database, tenant: Tenant, job: str, *, after: int = 0, kinds: Collection[str] | None = None, limit: int) -> list[Event]:
    """The events with a number greater than `after`, of these kinds (None: all), oldest first."""
    wanted = _events(tenant, job).where(job_event.c.seq > after).order_by(job_event.c.seq).limit(limit)
    return _read(db, wanted if kinds is None else wanted.where(job_event.c.kind.in_(kinds)))


def latest(db: Database, tenant: Tenant, job: str, kind: str) -> Event | None:
    """The last event of a kind."""
    found = _read(db, _events(tenant, job).where(job_event.c.kind == kind).order_by(job_event.c.seq.desc()).limit(1))
    return found[0] if found else None


def metrics_blocks(db: Database, tenant: Tenant, job: str) -> list[Event]:
    """Every block of points, oldest first. A job that lost its worker tells some steps again: for a step under several fences the
    highest counts, and so for one that stands twice under one fence does the later."""
    return _read(db, _events(tenant, job).where(job_event.c.kind == "metrics").order_by(job_event.c.seq))


def state_times(db: Database, job: Job) -> Mapping[str, float]:
    """When the job first entered each state it has been in, by state."""
    told = _events(Tenant(job.tenant), job.id).where(job_event.c.kind.in_(("status", "succeeded"))).order_by(job_event.c.seq.desc())
    return {event.data["state"]: event.at for event in _read(db, told)}


def _events(tenant: Tenant, job: str) -> sa.Select[Any]:
    columns = (job_event.c.seq, job_event.c.fence, job_event.c.kind, job_event.c.at, job_event.c.data)
    own = sa.select(*columns).join(jobs, jobs.c.id == job_event.c.job_id)
    return own.where(jobs.c.tenant_id == tenant.id, job_event.c.job_id == job)


def _read(db: Database, wanted: sa.Select[Any]) -> list[Event]:
    with db.read() as tx:
        return [Event(**row) for row in tx.execute(wanted).mappings()]
