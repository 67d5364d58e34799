"""No function answers with, or touches, what belongs to another tenant."""

from collections.abc import Callable

import pytest

from db import access, assets, history, jobs, life, uploads
from db.access import Tenant
from db.blobs import Blobs
from db.session import Database
from tests.db.given import IN_EACH_STATE, claimed, created, reread, sent, submitted, uploaded

Theirs = dict[str, str]

READS: dict[str, Callable[[Database, Tenant, Theirs], object]] = {
    "get_job": lambda db, me, of: jobs.get_job(db, me, of["job"]),
    "list_jobs": lambda db, me, of: jobs.list_jobs(db, me, limit=99),
    "find_by_spec": lambda db, me, of: jobs.find_by_spec(db, me, "a" * 64),
    "attempts": lambda db, me, of: jobs.attempts(db, me, of["job"]),
    "events": lambda db, me, of: history.events(db, me, of["job"], limit=99),
    "glance": lambda db, me, of: history.glance(db, me, of["job"]).entered,
    "metrics_blocks": lambda db, me, of: history.metrics_blocks(db, me, of["job"]),
    "get_upload": lambda db, me, of: uploads.get_upload(db, me, of["upload"]),
    "list_uploads": lambda db, me, of: uploads.list_uploads(db, me, limit=99),
    "evict": lambda db, me, of: uploads.evict(db, me, of["upload"]),
    "delete_upload": lambda db, me, of: uploads.delete_upload(db, me, of["upload"]),
    "get_asset": lambda db, me, of: assets.get_asset(db, me, of["asset"]),
    "list_assets": lambda db, me, of: assets.list_assets(db, me, kind="teacher", limit=99),
    "delete_asset": lambda db, me, of: assets.delete_asset(db, me, of["asset"]),
    "list_artifacts": lambda db, me, of: assets.list_artifacts(db, me, of["job"]),
    "get_artifact": lambda db, me, of: assets.get_artifact(db, me, of["artifact"]),
    "has": lambda db, me, of: Blobs(db, me).has(of["blob"]),
    "list_keys": lambda db, me, of: access.list_keys(db, me),
    "revoke_key": lambda db, me, of: access.revoke_key(db, me, of["key"]),
}


@pytest.fixture
def theirs(database: Database, stranger: Tenant) -> Theirs:
    """One of everything, of somebody else."""
    blob = uploaded(database, stranger)
    submitted(database, stranger)
    claim = claimed(database)
    life.record(database, claim, [("metrics", {})])
    made = life.NewArtifact(name="m", format="f", sha256=blob, bytes=7, facts={})
    life.complete(database, claim, result={}, artifacts=[made])
    access.create_key(database, stranger, name="k")
    return {
        "job": claim.job.id,
        "blob": blob,
        "upload": sent(database, stranger).id,
        "asset": created(database, stranger).id,
        "artifact": assets.list_artifacts(database, stranger, claim.job.id)[0].id,
        "key": access.list_keys(database, stranger)[0].id,
    }


def test_another_tenant_finds_nothing_and_the_owner_everything(
    database: Database, tenant: Tenant, stranger: Tenant, theirs: Theirs
) -> None:
    for name, ask in READS.items():
        assert not ask(database, tenant, theirs), name
    with pytest.raises(KeyError):
        uploads.write(database, tenant, theirs["upload"], offset=0)
    for name, ask in READS.items():
        assert ask(database, stranger, theirs), name


@pytest.mark.parametrize("wish", [life.pause, life.resume, life.cancel, life.release, life.retry_as_new])
def test_another_tenants_job_takes_no_wish(
    database: Database, tenant: Tenant, stranger: Tenant, wish: Callable[[Database, Tenant, str], life.Job | None]
) -> None:
    for make in IN_EACH_STATE.values():
        job = reread(database, make(database, stranger).job)
        assert wish(database, tenant, job.id) is None
        assert reread(database, job) == job
        life.cancel(database, stranger, job.id)
