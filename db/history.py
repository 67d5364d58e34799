"""What happened to a job, in the order of its gap-free numbers: progress, metrics, the live stream and the times are queries over it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from db.access import Tenant
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """The newest event of each kind that tells how far the job is, and when it first entered each state it has been in."""

    newest: Mapping[str, Event]
    entered: Mapping[str, float]


def events(db: Database, tenant: Tenant, job: str, *, after: int = 0, kinds: Collection[str] | None = None, limit: int) -> list[Event]:
    """The events with a number greater than `after`, of these kinds (None: all), oldest first."""
    wanted = _events(tenant, job).where(job_event.c.seq > after).order_by(job_event.c.seq).limit(limit)
    return _read(db, wanted if kinds is None else wanted.where(job_event.c.kind.in_(kinds)))


def glance(db: Database, tenant: Tenant, job: str) -> Glance:
    """What a job's portrait needs of its history, in one statement: people poll it, often and many at once."""
    with db.read() as tx:
        rows = tx.execute(_GLANCE, {"job": job, "tenant": tenant.id}).mappings()
        told = [Event(**row) for row in rows]
    newest = {event.kind: event for event in told if event.kind in _NEWEST}
    moves = sorted((event for event in told if event.kind in _MOVES), key=lambda event: -event.seq)
    return Glance(newest=newest, entered={event.data["state"]: event.at for event in moves})


def metrics_blocks(db: Database, tenant: Tenant, job: str) -> list[Event]:
    """Every block of points, oldest first. A job that lost its worker tells some steps again: for a step under several fences the
    highest counts, and so for one that stands twice under one fence does the later."""
    return _read(db, _events(tenant, job).where(job_event.c.kind == "metrics").order_by(job_event.c.seq))


_NEWEST = ("phase", "metrics", "evaluated")
_MOVES = ("status", "succeeded")
_COLUMNS = (job_event.c.seq, job_event.c.fence, job_event.c.kind, job_event.c.at, job_event.c.data)


def _glance() -> sa.CompoundSelect[Any]:
    id: sa.BindParameter[str] = sa.bindparam("job")
    owner: sa.BindParameter[str] = sa.bindparam("tenant")
    own = sa.select(*_COLUMNS).join(jobs, jobs.c.id == job_event.c.job_id).where(jobs.c.tenant_id == owner, job_event.c.job_id == id)
    last = (sa.select(sa.func.max(job_event.c.seq)).where(job_event.c.job_id == id, job_event.c.kind == kind) for kind in _NEWEST)
    return sa.union_all(*(own.where(job_event.c.seq == each.scalar_subquery()) for each in last), own.where(job_event.c.kind.in_(_MOVES)))


_GLANCE = _glance()


def _events(tenant: Tenant, job: str) -> sa.Select[Any]:
    own = sa.select(*_COLUMNS).join(jobs, jobs.c.id == job_event.c.job_id)
    return own.where(jobs.c.tenant_id == tenant.id, job_event.c.job_id == job)


def _read(db: Database, wanted: sa.Select[Any]) -> list[Event]:
    with db.read() as tx:
        return [Event(**row) for row in tx.execute(wanted).mappings()]
