"""What jobs are made of: the assets that an inspection makes of uploads, and the artifacts that jobs leave."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from db.access import Tenant
from db.exports import exporting
from db.ids import new_id
from db.life.move import move
from db.life.submission import UPLOADED, insert_job, lock_tenant, refuse_above
from db.life.wishes import CANCELLING
from db.session import Database, clock
from db.states import TERMINAL, AssetKind
from db.tables import artifact, asset, blob, job

_PREFIX = {"teacher": "tch", "architecture": "arc", "dataset": "ds"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A teacher, an architecture or a dataset. `report` once it is ready, `problem` {"where", "reason", "hint", "code"} once rejected.

    `blob` holds what a job is given: a teacher's weights, a dataset in its canonical form. `job` is its inspection.
    """

    id: str
    kind: AssetKind
    name: str
    status: Literal["processing", "ready", "rejected"]
    request: dict[str, Any]
    report: dict[str, Any] | None
    problem: dict[str, Any] | None
    blob: str | None
    bytes: int | None
    metadata: dict[str, Any]
    job: str
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that a job left; its bytes are the blob `sha256`."""

    id: str
    job: str
    name: str
    format: str
    sha256: str
    bytes: int
    facts: dict[str, Any]
    created_at: float


def create_asset(
    db: Database, tenant: Tenant, *, kind: AssetKind, name: str, request: Mapping[str, Any], task: Mapping[str, Any],
    blobs: Mapping[str, str], metadata: Mapping[str, Any] | None = None, max_queued: int | None = None,
) -> Asset:  # fmt: skip
    """An asset in `processing`, and the job of the `cpu` queue that inspects it: `task` is its job.json, whose
    "kind" says whether the upload must be converted first, `blobs` {path: digest}.

    It takes seconds and somebody waits for it, so it goes before the tenant's own training. `TooManyQueued` if `max_queued` jobs wait.
    """
    with db.begin() as tx:
        if max_queued is not None:
            lock_tenant(tx, tenant)
            refuse_above(tx, tenant, max_queued)
        inputs = {"task": dict(task), "blobs": dict(blobs)}
        inspection = insert_job(tx, tenant, kind=task["kind"], name=name, spec=request, inputs=inputs, queue="cpu", priority=1, metadata={})
        id = new_id(_PREFIX[kind])
        tx.execute(
            sa.insert(asset).values(
                id=id, tenant_id=tenant.id, kind=kind, name=name, status="processing", request=request, blob=blobs.get(UPLOADED),
                job_id=inspection.id, metadata=metadata or {}, created_at=clock(),
            )
        )  # fmt: skip
        return Asset(**tx.execute(_assets(tenant).where(asset.c.id == id)).mappings().one())


def get_asset(db: Database, tenant: Tenant, id: str, kind: AssetKind | None = None) -> Asset | None:
    """The asset, if the tenant has it (and it is of this kind)."""
    own = _assets(tenant).where(asset.c.id == id)
    with db.read() as tx:
        row = tx.execute(own.where(asset.c.kind == kind) if kind else own).mappings().one_or_none()
    return Asset(**row) if row else None


def list_assets(db: Database, tenant: Tenant, *, kind: AssetKind, limit: int, after: str | None = None) -> list[Asset]:
    """Newest first, from the one after `after`."""
    own = _assets(tenant).where(asset.c.kind == kind).order_by(asset.c.id.desc()).limit(limit)
    with db.read() as tx:
        rows = tx.execute(own.where(asset.c.id < after) if after else own).mappings().all()
    return [Asset(**row) for row in rows]


def delete_asset(db: Database, tenant: Tenant, id: str) -> bool:
    """Forget an asset and cancel its inspection, if that still goes on. Jobs that use it have their own copy of what they need."""
    own = (asset.c.id == id) & (asset.c.tenant_id == tenant.id)
    with db.begin() as tx:
        # The job's row before the asset's, as every transition takes them.
        inspection = sa.select(job.c.id).join(asset, asset.c.job_id == job.c.id).where(own, job.c.tenant_id == tenant.id)
        found = tx.execute(inspection.with_for_update(of=job)).scalar_one_or_none()
        if found is None:
            return False
        tx.execute(sa.delete(asset).where(own))
        tx.execute(sa.delete(artifact).where(artifact.c.job_id == found, artifact.c.tenant_id == tenant.id))  # its preview
        going_on = (job.c.id == found) & (job.c.tenant_id == tenant.id) & job.c.state.not_in(TERMINAL) & (job.c.desired != "cancel")
        move(tx, sa.update(job).where(going_on).values(CANCELLING))
        return True


def _assets(tenant: Tenant) -> sa.Select[Any]:
    renamed = {"job_id": "job"}
    columns = (column.label(renamed.get(column.name, column.name)) for column in asset.c if column.name != "tenant_id")
    own = asset.outerjoin(blob, (blob.c.tenant_id == asset.c.tenant_id) & (blob.c.sha256 == asset.c.blob))
    return sa.select(*columns, blob.c.size.label("bytes")).select_from(own).where(asset.c.tenant_id == tenant.id)


def list_artifacts(db: Database, tenant: Tenant, id: str) -> list[Artifact]:
    """What a job of the tenant left, by name, and after it what its exports left, in the order in which they were asked for."""
    with db.read() as tx:
        own = _artifacts(tenant).where((artifact.c.job_id == id) | artifact.c.job_id.in_(exporting(tenant, id)))
        rows = tx.execute(own.order_by(artifact.c.job_id, artifact.c.name, artifact.c.format)).mappings().all()
    return [Artifact(**row) for row in rows]


def get_artifact(db: Database, tenant: Tenant, id: str) -> Artifact | None:
    """The artifact, if the tenant has it."""
    with db.read() as tx:
        row = tx.execute(_artifacts(tenant).where(artifact.c.id == id)).mappings().one_or_none()
    return Artifact(**row) if row else None


def _artifacts(tenant: Tenant) -> sa.Select[Any]:
    renamed = {"job_id": "job"}
    columns = (column.label(renamed.get(column.name, column.name)) for column in artifact.c if column.name != "tenant_id")
    return sa.select(*columns).where(artifact.c.tenant_id == tenant.id)
