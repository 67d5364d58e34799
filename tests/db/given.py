"""Rows that tests start from, made the way the service makes them."""

import hashlib
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from db import assets, history, jobs, life, uploads
from db.access import Tenant
from db.assets import Asset
from db.blobs import Blobs
from db.life.submission import UPLOADED, insert_job
from db.session import Database
from db.states import OF_AN_ASSET, TERMINAL, Kind
from db.tables import job

PROBLEM = {"where": "/recipe", "reason": "it went wrong", "hint": "try another", "code": "native_crash"}
LEASE = 60.0
OVER = -1.0
"""A lease that has run out when it begins."""


def submitted(db: Database, tenant: Tenant, *, kind: Kind = "distil", **changes: Any) -> life.Job:
    """A queued job; an inspection has an asset, as every one does."""
    if kind in OF_AN_ASSET:
        task = {"task": {"kind": kind, "asset": "teacher"}}
        found = jobs.get_job(db, tenant, created(db, tenant, **task | changes).job)
        assert found is not None
        return found
    request: dict[str, Any] = {
        "name": "r20", "spec": {"seed": 0}, "spec_sha": "a" * 64, "inputs": {"task": {"kind": kind}, "blobs": {}}, "queue": "any",
    } | changes  # fmt: skip
    if kind == "distil":
        return life.submit(db, tenant, **{"max_queued": 1000} | request)
    with db.begin() as tx:
        return insert_job(tx, tenant, kind=kind, **{"metadata": {}} | request)


def claimed(db: Database, *, lease: float = LEASE, worker: str = "w1") -> life.Claim:
    """The next job, claimed by a worker of both queues."""
    claim = life.claim(db, worker=worker, queues=["cpu", "gpu"], lease=lease)
    assert claim is not None
    return claim


def running(db: Database, tenant: Tenant, **changes: Any) -> life.Claim:
    """A job that runs."""
    submitted(db, tenant, **changes)
    return claimed(db)


def uploaded(db: Database, tenant: Tenant, data: bytes = b"weights") -> str:
    """The digest of bytes that are kept."""
    return Blobs(db, tenant).put([data])


def sent(db: Database, tenant: Tenant, data: bytes = b"weights") -> uploads.Upload:
    """A completed upload."""
    digest = hashlib.sha256(data).hexdigest()
    new = uploads.create_upload(db, tenant, purpose="teacher", filename="f", bytes=len(data), sha256=digest, max_bytes=1 << 40)
    writer = uploads.write(db, tenant, new.id, offset=0)
    writer.append(memoryview(data))
    return writer.complete(digest)


def created(db: Database, tenant: Tenant, **changes: Any) -> Asset:
    """An asset that waits for its inspection."""
    request: dict[str, Any] = {
        "kind": "teacher", "name": "big", "request": {"labels": None}, "task": {"kind": "inspect", "asset": "teacher"},
        "blobs": {UPLOADED: uploaded(db, tenant)},
    }  # fmt: skip
    return assets.create_asset(db, tenant, **request | changes)


def reread(db: Database, job: life.Job) -> life.Job:
    """The job as it is now."""
    found = jobs.get_job(db, Tenant(job.tenant), job.id)
    assert found is not None
    return found


def told(db: Database, job: life.Job, kind: str | None = None) -> list[history.Event]:
    """What happened to a job so far."""
    return history.events(db, Tenant(job.tenant), job.id, kinds=[kind] if kind else None, limit=1000)


def remove_every_open_job(db: Database) -> None:
    """So that the next claim finds only the next job."""
    values = {"state": "cancelled", "desired": "cancel", "code": "cancelled", "owner": None, "lease_until": None}
    with db.begin() as tx:
        tx.execute(sa.update(job).where(job.c.state.not_in(TERMINAL)).values(values))


def _crash(db: Database, claim: life.Claim, *, max_crashes: int = 3) -> None:
    life.retry(db, claim, code="native_crash", problem=PROBLEM, backoff=0, max_crashes=max_crashes)


Make = Callable[..., life.Claim]
"""Makes a job as `submitted` does, and brings it into a state."""


def _queued(db: Database, tenant: Tenant, **changes: Any) -> life.Claim:
    return life.Claim(submitted(db, tenant, **changes), 0)


def _paused(db: Database, tenant: Tenant, **changes: Any) -> life.Claim:
    job = submitted(db, tenant, **changes)
    life.pause(db, tenant, job.id)
    return life.Claim(job, 0)


def _running_with(wish: Callable[[Database, Tenant, str], life.Job | None]) -> Make:
    def make(db: Database, tenant: Tenant, **changes: Any) -> life.Claim:
        claim = running(db, tenant, **changes)
        wish(db, tenant, claim.job.id)
        return claim

    return make


def _ended(end: Callable[[Database, life.Claim], object]) -> Make:
    def make(db: Database, tenant: Tenant, **changes: Any) -> life.Claim:
        claim = running(db, tenant, **changes)
        end(db, claim)
        return claim

    return make


def _cancelled(db: Database, tenant: Tenant, **changes: Any) -> life.Claim:
    job = submitted(db, tenant, **changes)
    life.cancel(db, tenant, job.id)
    return life.Claim(job, 0)


IN_EACH_STATE: dict[str, Make] = {
    "queued": _queued,
    "running": running,
    "running, pause": _running_with(life.pause),
    "running, cancel": _running_with(life.cancel),
    "paused": _paused,
    "shelved": _ended(lambda db, claim: life.shelve(db, claim, problem=PROBLEM, pause=0)),
    "succeeded": _ended(lambda db, claim: life.complete(db, claim, result={})),
    "failed": _ended(lambda db, claim: life.fail(db, claim, code="diverged", problem=PROBLEM)),
    "cancelled": _cancelled,
    "quarantined": _ended(lambda db, claim: _crash(db, claim, max_crashes=1)),
}
"""A job in each state it can be in, with the last claim on it."""
