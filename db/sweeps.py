"""Sweeps: what was asked for, which jobs are their trials, and how they ended. All that a trial tried and measured is read from its job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from db.access import Tenant
from db.ids import new_id
from db.life.move import move
from db.life.submission import lock_tenant, remember, remembered
from db.life.wishes import CANCELLING, ENDABLE
from db.session import Database, clock
from db.states import TERMINAL, Desired, State, SweepState
from db.tables import job, job_event, sweep, trial


class TooManySweeps(Exception):
    """The tenant has as many sweeps running as it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One row, as it was read. `problem` is {"where", "reason", "hint", "code"} once it failed, `result` what was found."""

    id: str
    tenant: str
    name: str
    state: SweepState
    request: dict[str, Any]
    problem: dict[str, Any] | None
    result: dict[str, Any] | None
    metadata: dict[str, str]
    created_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial: its job as far as a sweep wants to know it, or the `refusal` where no job could be made of it (then all else is None)."""

    number: int
    refusal: dict[str, Any] | None
    job: str | None
    state: State | None
    desired: Desired | None
    spec: dict[str, Any] | None
    problem: dict[str, Any] | None
    result: dict[str, Any] | None

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can change any more."""
        return self.state is None or self.state in TERMINAL


_sweeps = sa.select(*(column.label("tenant" if column.name == "tenant_id" else column.name) for column in sweep.c))


def create_sweep(
    db: Database,
    owner: Tenant,
    *,
    name: str,
    request: Mapping[str, Any],
    metadata: Mapping[str, str],
    idempotency: tuple[str, str] | None,
    max_running: int,
) -> Sweep:
    """A running sweep. With `idempotency` = (key, fingerprint of the body) a repetition answers with the first one."""
    with db.begin() as tx:
        lock_tenant(tx, owner)
        id = remembered(tx, owner, *idempotency) if idempotency else None
        if id is None:
            own = (sweep.c.tenant_id == owner.id) & (sweep.c.state == "running")
            if tx.execute(sa.select(sa.func.count()).select_from(sweep).where(own)).scalar_one() >= max_running:
                raise TooManySweeps(f"{max_running} sweeps are running already")
            id = new_id("swp")
            values = {"name": name, "state": "running", "request": request, "metadata": metadata, "created_at": clock()}
            tx.execute(sa.insert(sweep).values(id=id, tenant_id=owner.id, **values))
            if idempotency:
                remember(tx, owner, *idempotency, id)
        return Sweep(**tx.execute(_sweeps.where(sweep.c.id == id, sweep.c.tenant_id == owner.id)).mappings().one())


def get_sweep(db: Database, owner: Tenant, id: str) -> Sweep | None:
    """The sweep, if the tenant has it."""
    with db.read() as tx:
        row = tx.execute(_sweeps.where(sweep.c.tenant_id == owner.id, sweep.c.id == id)).mappings().one_or_none()
    return Sweep(**row) if row else None


def list_sweeps(db: Database, owner: Tenant, *, limit: int, after: str | None = None) -> list[Sweep]:
    """The sweeps of the tenant, newest first, from the one after `after`."""
    own = _sweeps.where(sweep.c.tenant_id == owner.id).order_by(sweep.c.id.desc()).limit(limit)
    with db.read() as tx:
        return [Sweep(**row) for row in tx.execute(own.where(sweep.c.id < after) if after else own).mappings()]


def running_sweeps(db: Database) -> list[Sweep]:
    """Everybody's sweeps that have not ended, oldest first."""
    with db.read() as tx:
        return [Sweep(**row) for row in tx.execute(_sweeps.where(sweep.c.state == "running").order_by(sweep.c.id)).mappings()]


def list_trials(db: Database, owner: Tenant, id: str) -> list[TrialRow]:
    """The trials of a sweep of the tenant, by number."""
    columns = [job.c[name] for name in ("state", "desired", "spec", "problem", "result")]
    rows = (
        sa.select(trial.c.number, trial.c.refusal, trial.c.job_id.label("job"), *columns)
        .select_from(trial.outerjoin(job, job.c.id == trial.c.job_id))
        .where(trial.c.tenant_id == owner.id, trial.c.sweep_id == id)
        .order_by(trial.c.number)
    )
    with db.read() as tx:
        return [TrialRow(**row) for row in tx.execute(rows).mappings()]


def told(db: Database, owner: Tenant, id: str, *, without: Sequence[str] = ()) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """By job, the (kind, data) of the events that tell how the trials of a sweep go: phases, measurements, statuses; oldest first.
    The jobs `without` are left out."""
    own = (
        sa.select(job_event.c.job_id, job_event.c.kind, job_event.c.data)
        .join(trial, trial.c.job_id == job_event.c.job_id)
        .where(trial.c.tenant_id == owner.id, trial.c.sweep_id == id, job_event.c.kind.in_(("phase", "evaluated", "status")))
        .order_by(job_event.c.job_id, job_event.c.seq)
    )
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    with db.read() as tx:
        for row in tx.execute(own.where(job_event.c.job_id.not_in(without)) if without else own):
            found.setdefault(row.job_id, []).append((row.kind, row.data))
    return found


def end_sweep(
    db: Database, owner: Tenant, id: str, *, result: Mapping[str, Any] | None = None, problem: Mapping[str, Any] | None = None
) -> bool:
    """Succeeded with a `result`, or failed with a `problem`; False if it had ended before."""
    values = {"state": "succeeded" if result is not None else "failed", "result": result, "problem": problem, "ended_at": clock()}
    with db.begin() as tx:
        return tx.execute(_end(owner, id).values(values).returning(sweep.c.id)).first() is not None


def cancel_sweep(db: Database, owner: Tenant, id: str) -> Sweep | None:
    """Cancelled, and with it every job of it that has not ended, in one transaction: no trial can come after. The sweep as it then is,
    also where it had been cancelled before; None if the tenant has none or it ended otherwise."""
    with db.begin() as tx:
        if tx.execute(_end(owner, id).values(state="cancelled", ended_at=clock()).returning(sweep.c.id)).first():
            jobs = sa.select(trial.c.job_id).where(trial.c.sweep_id == id, trial.c.job_id.is_not(None)).order_by(trial.c.job_id)
            for each in tx.execute(jobs).scalars().all():
                move(tx, sa.update(job).where(job.c.id == each, ENDABLE).values(CANCELLING))
        row = tx.execute(_sweeps.where(sweep.c.tenant_id == owner.id, sweep.c.id == id)).mappings().one_or_none()
        return Sweep(**row) if row and row["state"] == "cancelled" else None


def _end(owner: Tenant, id: str) -> sa.Update:
    return sa.update(sweep).where(sweep.c.id == id, sweep.c.tenant_id == owner.id, sweep.c.state == "running")
