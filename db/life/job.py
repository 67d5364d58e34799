"""What a job is to everybody else: its row as a value, and the claim that a supervisor holds on it."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, RowMapping

from db.states import CancelMode, Code, Desired, Keep, Kind, State
from db.tables import asset, checkpoint, job, trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row, as it was read. Times are seconds since the epoch by the database's clock.

    `inputs` is {"task": job.json without its runtime, "blobs": {path in the job folder: digest}}; `checkpoint` is the newest kept one,
    {"blob", "done", "fit", "step"}; `problem` is {"where", "reason", "hint", "code"} once the job ended badly. `cancel_mode` and
    `cancel_keep` say how it is cancelled, where it is. `parent` is the job that it tries again. `sweep` and `trial` are the id and the
    number where the job is a trial of a sweep; `asset` is what it inspects, as long as that is there and no other job does.
    """

    id: str
    tenant: str
    kind: Kind
    name: str
    queue: str
    priority: int
    state: State
    desired: Desired
    cancel_mode: CancelMode
    cancel_keep: Keep
    fence: int
    owner: str | None
    lease_until: float | None
    run_after: float
    attempt: int
    crashes: int
    spec: dict[str, Any]
    inputs: dict[str, Any]
    spec_sha: str | None
    parent: str | None
    seconds_limit: float | None
    deadline: float | None
    code: Code | None
    problem: dict[str, Any] | None
    result: dict[str, Any] | None
    checkpoint: dict[str, Any] | None
    event_seq: int
    metadata: dict[str, Any]
    created_at: float
    sweep: str | None
    trial: int | None
    asset: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write to a running job: it holds as long as the row carries this fence and runs."""

    job: Job
    fence: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """What the holder of a claim must know: the user's wish, whether the job has used up its seconds, and whether a cancel may take the
    time to keep a checkpoint."""

    desired: Desired
    deadline_passed: bool
    graceful: bool = False


_HIDDEN = {"published_at", "seconds_left", "checkpoint_done"}
_RENAMED = {"tenant_id": "tenant", "parent_id": "parent"}
_KEPT = ("blob", "done", "fit", "step")

jobs = sa.select(
    *(column.label(_RENAMED.get(column.name, column.name)) for column in job.c if column.name not in _HIDDEN),
    *(checkpoint.c[name].label(f"checkpoint_{name}") for name in _KEPT),
    trial.c.sweep_id.label("sweep"),
    trial.c.number.label("trial"),
    asset.c.id.label("asset"),
).select_from(
    job.outerjoin(checkpoint, (checkpoint.c.job_id == job.c.id) & (checkpoint.c.done == job.c.checkpoint_done))
    .outerjoin(trial, trial.c.job_id == job.c.id)
    .outerjoin(asset, asset.c.job_id == job.c.id)
)
"""A SELECT of everything that `job_of` needs."""


def job_of(row: RowMapping) -> Job:
    """The job of one row of `jobs`."""
    fields: dict[str, Any] = {str(name): value for name, value in row.items()}
    kept = {name: fields.pop(f"checkpoint_{name}") for name in _KEPT}
    return Job(**fields, checkpoint=kept if kept["blob"] else None)


def load(tx: Connection, id: str) -> Job:
    """A job that is known to exist."""
    return job_of(tx.execute(jobs.where(job.c.id == id)).mappings().one())


def held_by(claim: Claim) -> ColumnElement[bool]:
    """The condition of every write under a claim."""
    return sa.and_(job.c.id == claim.job.id, job.c.fence == claim.fence, job.c.state == "running")
