"""Uploads and assets: what was declared must come, and what is deleted stops its inspection."""

import pytest

from db import assets, jobs, life
from db.access import Tenant
from db.assets import Upload
from db.life.submission import UPLOADED
from db.session import Database
from tests.db.given import claimed, created, submitted, uploaded

SHA = "9250e671389955baf89cfb0f5bb5b4edd54b4411ef7f7d86616ffd8b52d9d4aa"


def _announced(db: Database, tenant: Tenant, *, sha256: str, bytes: int = 7) -> Upload:
    return assets.create_upload(db, tenant, purpose="teacher", filename="t.safetensors", bytes=bytes, sha256=sha256, max_bytes=100)


def test_an_upload_is_completed_by_the_bytes_that_were_declared(database: Database, tenant: Tenant) -> None:
    digest = uploaded(database, tenant)
    new = _announced(database, tenant, sha256=digest)
    assert (new.status, new.offset, new.bytes) == ("pending", 0, 7)
    assert new.expires_at - new.created_at == pytest.approx(7 * 86400, abs=1)
    done = assets.complete_upload(database, tenant, new.id, digest=digest)
    assert (done.status, done.offset) == ("completed", 7)
    assert assets.complete_upload(database, tenant, new.id, digest=digest) == done == assets.get_upload(database, tenant, new.id)


def test_other_bytes_than_declared_are_refused(database: Database, tenant: Tenant) -> None:
    digest = uploaded(database, tenant)
    other_content = _announced(database, tenant, sha256=SHA)
    other_length = _announced(database, tenant, sha256=digest, bytes=8)
    not_kept = _announced(database, tenant, sha256=SHA)
    for upload, came in ((other_content, digest), (other_length, digest), (not_kept, SHA)):
        with pytest.raises(assets.Mismatch):
            assets.complete_upload(database, tenant, upload.id, digest=came)
        found = assets.get_upload(database, tenant, upload.id)
        assert found is not None
        assert found.status == "pending"


def test_an_upload_larger_than_is_taken_is_refused(database: Database, tenant: Tenant) -> None:
    with pytest.raises(assets.TooLarge, match="101"):
        _announced(database, tenant, sha256=SHA, bytes=101)


def test_a_deleted_upload_waits_for_nothing(database: Database, tenant: Tenant) -> None:
    digest = uploaded(database, tenant)
    upload = _announced(database, tenant, sha256=digest)
    assert assets.delete_upload(database, tenant, upload.id)
    assert not assets.delete_upload(database, tenant, upload.id)
    with pytest.raises(KeyError):
        assets.complete_upload(database, tenant, upload.id, digest=digest)


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
