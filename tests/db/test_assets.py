"""Assets: each waits for its inspection, and what is deleted stops it."""

import pytest

from db import assets, jobs, life
from db.access import Tenant
from db.life.submission import UPLOADED
from db.session import Database
from tests.db.given import claimed, created, submitted, uploaded


def test_a_new_asset_waits_for_an_inspection_on_the_cpu_queue(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant, metadata={"a": 1})
    assert (asset.id[:4], asset.status, asset.report, asset.bytes, asset.metadata) == ("tch_", "processing", None, 7, {"a": 1})
    job = jobs.get_job(database, tenant, asset.job)
    assert job is not None
    assert (job.kind, job.state, job.queue, job.spec) == ("inspect", "queued", "cpu", asset.request)


def test_an_asset_that_names_bytes_the_tenant_lacks_is_refused(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    theirs = uploaded(database, stranger, b"theirs")
    with pytest.raises(KeyError):
        created(database, tenant, blobs={UPLOADED: theirs})
    with pytest.raises(KeyError):
        submitted(database, tenant, inputs={"task": {}, "blobs": {"in/teacher.safetensors": theirs}})
    assert jobs.list_jobs(database, tenant, limit=9) == []


def test_assets_are_listed_by_kind_newest_first_and_page_by_page(database: Database, tenant: Tenant) -> None:
    made = [created(database, tenant, name=str(i)).id for i in range(3)]
    created(database, tenant, kind="architecture", blobs={})
    assert [one.id for one in assets.list_assets(database, tenant, kind="teacher", limit=2)] == made[:0:-1]
    assert [one.id for one in assets.list_assets(database, tenant, kind="teacher", limit=2, after=made[1])] == made[:1]
    assert assets.get_asset(database, tenant, made[0], kind="dataset") is None


def test_an_architecture_has_no_bytes(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant, kind="architecture", blobs={})
    assert (asset.id[:4], asset.blob, asset.bytes) == ("arc_", None, None)


def test_deleting_an_asset_cancels_an_inspection_that_waits(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant)
    assert assets.delete_asset(database, tenant, asset.id)
    assert not assets.delete_asset(database, tenant, asset.id)
    job = jobs.get_job(database, tenant, asset.job)
    assert job is not None
    assert (job.state, job.code) == ("cancelled", "cancelled")


def test_deleting_an_asset_tells_a_running_inspection_to_stop(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant)
    claim = claimed(database)
    assert assets.delete_asset(database, tenant, asset.id)
    assert life.wish(database, claim) == life.Renewal("cancel", False)
    assert not life.complete(database, claim, result={"report": {}})
    assert life.yield_(database, claim) == "cancelled"


def test_deleting_an_asset_that_is_ready_leaves_its_inspection_as_it_ended(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant)
    life.complete(database, claimed(database), result={"report": {}})
    assert assets.delete_asset(database, tenant, asset.id)
    job = jobs.get_job(database, tenant, asset.job)
    assert job is not None
    assert job.state == "succeeded"
