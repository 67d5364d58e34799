"""What nothing needs goes, a batch at a time; what something needs stays, whoever needs it."""

import pytest
import sqlalchemy as sa

from db import life, uploads
from db.access import Tenant
from db.blobs import Blobs, forget
from db.garbage import collect, expire_uploads, forget_finished
from db.session import Database, clock
from db.tables import blob, checkpoint, job_event, upload
from tests.db.given import PROBLEM, claimed, created, reread, running, submitted, uploaded

DAY = 86400.0


def _age(db: Database) -> None:
    """Two days pass."""
    with db.begin() as tx:
        tx.execute(sa.update(blob).values(touched_at=blob.c.touched_at - 2 * DAY))
        tx.execute(sa.update(job_event).values(at=job_event.c.at - 2 * DAY))


def _declared(db: Database, tenant: Tenant, digest: str, *, ttl: float) -> str:
    return uploads.create_upload(
        db, tenant, purpose="teacher", filename="t", bytes=7, sha256=digest, max_bytes=99, ttl=ttl
    ).id  # fmt: skip


def _kept(db: Database, claim: life.Claim, tenant: Tenant, done: int) -> str:
    digest = uploaded(db, tenant, f"state at {done} of {claim.job.id}".encode())
    assert life.keep_checkpoint(db, claim, blob=digest, done=done, fit=0, step=done, values={})
    return digest


def test_a_blob_that_nothing_names_goes_when_it_is_old(database: Database, tenant: Tenant) -> None:
    digest = uploaded(database, tenant)
    assert collect(database, older=DAY) == 0
    _age(database)
    assert collect(database, older=DAY) == 1
    assert not Blobs(database, tenant).has(digest)
    with database.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(blob)).scalar_one() == 0


def test_what_is_named_stays_however_old(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant)
    life.complete(database, claimed(database), result={"report": {}})
    held = uploaded(database, tenant, b"upload")
    _declared(database, tenant, held, ttl=DAY)
    claim = running(database, tenant)
    state = _kept(database, claim, tenant, 1)
    made = uploaded(database, tenant, b"artifact")
    done = running(database, tenant)
    life.complete(database, done, result={}, artifacts=[life.NewArtifact(name="m", format="f", sha256=made, bytes=8, facts={})])
    assert asset.blob is not None
    _age(database)
    assert collect(database, older=DAY) == 0
    assert all(Blobs(database, tenant).has(digest) for digest in (asset.blob, held, state, made))


@pytest.mark.parametrize("state", ["queued", "running", "paused", "quarantined"])
def test_what_a_job_that_has_not_ended_will_be_given_stays_until_it_has(database: Database, tenant: Tenant, state: str) -> None:
    digest = uploaded(database, tenant, b"weights of a student")
    job = submitted(database, tenant, inputs={"task": {}, "blobs": {"in/student.safetensors": digest}})
    if state == "paused":
        life.pause(database, tenant, job.id)
    if state in ("running", "quarantined"):
        claim = claimed(database)
        if state == "quarantined":
            life.retry(database, claim, code="native_crash", problem=PROBLEM, backoff=0, max_crashes=1)
    assert reread(database, job).state == state
    _age(database)
    assert collect(database, older=DAY) == 0
    life.cancel(database, tenant, job.id)
    if state == "running":
        life.yield_(database, claim)
    assert collect(database, older=DAY) == 1


def test_a_submit_in_the_last_moment_keeps_what_it_names(database: Database, tenant: Tenant) -> None:
    digest = uploaded(database, tenant, b"weights of a student")
    _age(database)
    submitted(database, tenant, inputs={"task": {}, "blobs": {"in/student.safetensors": digest}})
    with database.begin() as tx:  # as `collect` asks, after it has looked at the jobs
        assert forget(tx, tenant.id, digest, older=DAY) == []


def test_another_tenant_that_names_the_same_bytes_keeps_only_its_own(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    ours, theirs = uploaded(database, tenant), uploaded(database, stranger)
    submitted(database, stranger, inputs={"task": {}, "blobs": {"in/student.safetensors": theirs}})
    _age(database)
    assert collect(database, older=DAY) == 1
    assert not Blobs(database, tenant).has(ours)
    assert Blobs(database, stranger).has(theirs)


def test_a_round_takes_no_more_than_it_may_and_the_next_goes_on(database: Database, tenant: Tenant) -> None:
    for i in range(5):
        uploaded(database, tenant, bytes([i]))
    _age(database)
    assert [collect(database, older=DAY, most=2) for _ in range(4)] == [2, 2, 1, 0]


def test_what_may_not_go_does_not_stand_in_the_way_of_what_may(database: Database, tenant: Tenant) -> None:
    needed = {f"in/{i}": uploaded(database, tenant, bytes([i])) for i in range(4)}
    submitted(database, tenant, inputs={"task": {}, "blobs": needed})
    uploaded(database, tenant, b"garbage")
    _age(database)
    assert collect(database, older=DAY, most=2) == 1


def test_an_expired_upload_goes_and_then_its_bytes(database: Database, tenant: Tenant) -> None:
    digest = uploaded(database, tenant, b"old")
    old, new = _declared(database, tenant, digest, ttl=-1.0), _declared(database, tenant, uploaded(database, tenant, b"new"), ttl=DAY)
    assert expire_uploads(database) == 1
    assert uploads.get_upload(database, tenant, old) is None
    assert uploads.get_upload(database, tenant, new) is not None
    _age(database)
    assert collect(database, older=DAY) == 1
    assert not Blobs(database, tenant).has(digest)


def test_the_checkpoints_of_a_job_that_ended_long_ago_go(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    kept = [_kept(database, claim, tenant, done) for done in (1, 2)]
    life.fail(database, claim, code="diverged", problem=PROBLEM)
    assert forget_finished(database, older=DAY) == 0
    _age(database)
    assert forget_finished(database, older=DAY) == 1
    assert not any(Blobs(database, tenant).has(digest) for digest in kept)
    assert reread(database, claim.job).checkpoint is None
    assert forget_finished(database, older=DAY) == 0
    again = life.retry_as_new(database, tenant, claim.job.id)
    assert again is not None
    assert again.checkpoint is None


def test_a_job_that_has_not_ended_keeps_its_checkpoints_however_old(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    kept = _kept(database, claim, tenant, 1)
    life.pause(database, tenant, claim.job.id)
    life.yield_(database, claim)
    _age(database)
    assert forget_finished(database, older=DAY) == 0
    assert Blobs(database, tenant).has(kept)


def test_a_retry_keeps_the_checkpoint_that_it_was_started_from(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    kept = _kept(database, claim, tenant, 1)
    life.fail(database, claim, code="diverged", problem=PROBLEM)
    child = life.retry_as_new(database, tenant, claim.job.id)
    assert child is not None
    _age(database)
    assert forget_finished(database, older=DAY) == 1
    assert collect(database, older=DAY) == 0
    assert Blobs(database, tenant).has(kept)
    assert reread(database, child).checkpoint == {"blob": kept, "done": 1, "fit": 0, "step": 1}
    with database.read() as tx:
        assert tx.execute(sa.select(checkpoint.c.job_id)).scalars().all() == [child.id]


def test_an_upload_that_was_forgotten_by_its_owner_goes_too(database: Database, tenant: Tenant) -> None:
    digest = uploaded(database, tenant)
    id = _declared(database, tenant, digest, ttl=DAY)
    assert uploads.delete_upload(database, tenant, id)
    _age(database)
    assert collect(database, older=DAY) == 1
    with database.begin() as tx:
        tx.execute(sa.update(upload).values(expires_at=clock() - 1))
    assert expire_uploads(database) == 1
