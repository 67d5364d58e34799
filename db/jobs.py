"""Jobs as they are read."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from db.access import Tenant
from db.life.job import Job, job_of, jobs
from db.session import Database
from db.states import State
from db.tables import job, job_attempt

__all__ = ["Attempt", "Job", "attempts", "find_by_spec", "get_job", "list_jobs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a job's child: who ran it, and how it ended. `max_rss` in bytes."""

    fence: int
    worker: str
    started_at: float
    ended_at: float | None
    code: str | None
    exit_code: int | None
    signal: int | None
    max_rss: int | None
    log_tail: str | None


def get_job(db: Database, tenant: Tenant, id: str) -> Job | None:
    """The job, of any kind, if the tenant has it."""
    with db.read() as tx:
        row = tx.execute(jobs.where(job.c.tenant_id == tenant.id, job.c.id == id)).mappings().one_or_none()
    return job_of(row) if row else None


def list_jobs(db: Database, tenant: Tenant, *, states: Sequence[State] = (), limit: int, after: str | None = None) -> list[Job]:
    """The `distil` jobs of the tenant in one of these states (none given: in any), newest first, from the one after `after`."""
    own = jobs.where(job.c.tenant_id == tenant.id, job.c.kind == "distil").order_by(job.c.id.desc()).limit(limit)
    if states:
        own = own.where(job.c.state.in_(states))
    if after:
        own = own.where(job.c.id < after)
    with db.read() as tx:
        return [job_of(row) for row in tx.execute(own).mappings()]


def find_by_spec(db: Database, tenant: Tenant, spec_sha: str) -> Job | None:
    """A job that asks for the same and has not ended badly: the one that succeeded if there is one, else the newest."""
    useful = ("succeeded", "running", "queued", "paused")
    own = jobs.where(job.c.tenant_id == tenant.id, job.c.spec_sha == spec_sha, job.c.state.in_(useful), job.c.desired != "cancel")
    with db.read() as tx:
        row = tx.execute(own.order_by((job.c.state == "succeeded").desc(), job.c.id.desc()).limit(1)).mappings().first()
    return job_of(row) if row else None


def attempts(db: Database, tenant: Tenant, id: str) -> list[Attempt]:
    """Every run of a job of the tenant, oldest first."""
    own = sa.select(*(column for column in job_attempt.c if column.name != "job_id")).join(job, job.c.id == job_attempt.c.job_id)
    with db.read() as tx:
        rows = tx.execute(own.where(job.c.tenant_id == tenant.id, job.c.id == id).order_by(job_attempt.c.fence)).mappings().all()
    return [Attempt(**row) for row in rows]
