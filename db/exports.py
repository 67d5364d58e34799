"""The formats in which a student was written down: with its job, or later by jobs of kind `export`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from db.access import Tenant
from db.life.job import Job, job_of, jobs
from db.life.submission import insert_job, lock_tenant, refuse_above, remember, remembered
from db.session import Database
from db.states import TERMINAL
from db.tables import artifact, job


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One format of a student. `job` made it, makes it now, or tried in vain; `reason` says why it is not offered or what holds the job up;
    `facts` are the figures of its comparison with the student, as far as it came to one."""

    format: str
    job: str
    status: Literal["processing", "ready", "rejected"]
    reason: str | None
    facts: Mapping[str, Any]


def list_exports(db: Database, tenant: Tenant, source: Job) -> list[Export]:
    """Every format that was asked for of the student of `source`, in that order; of several tries the one that is ready, else the last."""
    with db.read() as tx:
        return list(_exports(tx, _tried(tx, tenant, source)).values())


def create_export(
    db: Database, tenant: Tenant, source: Job, *, formats: Sequence[str], task: Mapping[str, Any], blobs: Mapping[str, str],
    idempotency: tuple[str, str] | None = None, max_queued: int,
) -> tuple[Job, bool]:  # fmt: skip
    """The job of the `cpu` queue that makes what is missing of `formats`, and True; where nothing is, the job that makes or made the last
    of them, and False. A format that was rejected may be asked for again.

    `task` is its job.json but for its kind, its formats and the `result` of `source`, in which `exports` is what came of every format so
    far; `blobs` is {path: digest}. `TooManyQueued` if `max_queued` jobs wait, KeyError for a blob that is not kept.
    """
    with db.begin() as tx:
        lock_tenant(tx, tenant)
        if idempotency and (known := remembered(tx, tenant, *idempotency)):
            return _one(tx, tenant, known), False
        tried = _tried(tx, tenant, source)
        there = {name: export for name, export in _exports(tx, tried).items() if export.status != "rejected"}
        missing = [name for name in formats if name not in there]
        if missing:
            refuse_above(tx, tenant, max_queued)
            spec = {"job": source.id, "formats": missing}
            said = {name: told for each in tried for name, told in _said(each).items()}
            result = {**(source.result or {}), "exports": list(said.values())}
            inputs = {"task": {**task, "kind": "export", "formats": missing, "result": result}, "blobs": dict(blobs)}
            found = insert_job(
                tx, tenant, kind="export", name=source.name, spec=spec, spec_sha=source.id, inputs=inputs, queue="cpu", priority=1,
                parent=source.id, metadata={},
            )  # fmt: skip
        else:
            found = _one(tx, tenant, min((there[name] for name in formats), key=lambda export: (export.status == "ready", export.job)).job)
        if idempotency:
            remember(tx, tenant, *idempotency, found.id)
        return found, bool(missing)


def exporting(tenant: Tenant, id: str) -> sa.Select[tuple[str]]:
    """The ids of the jobs that export the student of the job `id`. They have its id for a `spec_sha`, which a retry of one takes over."""
    return sa.select(job.c.id).where(job.c.tenant_id == tenant.id, job.c.spec_sha == id, job.c.kind == "export")


def _tried(tx: Connection, tenant: Tenant, source: Job) -> list[Job]:
    """The jobs that wrote this student down, or were to, the oldest first."""
    rows = tx.execute(jobs.where(job.c.tenant_id == tenant.id, job.c.id.in_(exporting(tenant, source.id))).order_by(job.c.id)).mappings()
    return [source, *(job_of(row) for row in rows)]


def _exports(tx: Connection, tried: Sequence[Job]) -> dict[str, Export]:
    columns = sa.select(artifact.c.job_id, artifact.c.format, artifact.c.facts)
    offered: dict[str, dict[str, Any]] = {}
    for row in tx.execute(columns.where(artifact.c.job_id.in_([each.id for each in tried]))):
        offered.setdefault(row.job_id, {})[row.format] = row.facts
    found: dict[str, Export] = {}
    for each in tried:
        for export in _made(each, offered.get(each.id, {})):
            if export.format not in found or found[export.format].status != "ready":
                found[export.format] = export
    return found


def _made(tried: Job, offered: Mapping[str, Mapping[str, Any]]) -> Iterator[Export]:
    """What one job made of what it was to make: what is offered has artifacts; of the rest the job, or its end, says why not."""
    said = _said(tried)
    for format in tried.spec.get("formats" if tried.kind == "export" else "exports") or ():
        told = said.get(format, {})
        facts = told.get("facts") or offered.get(format) or {}
        problem: str | None = (tried.problem or {}).get("reason")
        if format in offered:
            yield Export(format=format, job=tried.id, status="ready", reason=None, facts=facts)
        elif tried.state not in TERMINAL:
            yield Export(format=format, job=tried.id, status="processing", reason=problem, facts=facts)
        else:
            reason = told.get("refused") or problem or f"the job is {tried.state}, without it"
            yield Export(format=format, job=tried.id, status="rejected", reason=reason, facts=facts)


def _said(tried: Job) -> dict[str, dict[str, Any]]:
    """What a job said of each format in the end: {"format", "refused", "facts"}."""
    return {each["format"]: each for each in (tried.result or {}).get("exports") or ()}


def _one(tx: Connection, tenant: Tenant, id: str) -> Job:
    return job_of(tx.execute(jobs.where(job.c.id == id, job.c.tenant_id == tenant.id)).mappings().one())
