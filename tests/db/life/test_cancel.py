"""How a cancel is carried out: gracefully or now, keeping the checkpoint or nothing, and whatever ends the job."""

from collections.abc import Callable
from itertools import pairwise, product

import pytest

from db import assets, garbage, life
from db.access import Tenant
from db.blobs import Blobs
from db.session import Database
from db.states import KINDS, CancelMode, Keep
from tests.db.given import IN_EACH_STATE, LEASE, OVER, PROBLEM, claimed, created, reread, submitted, told, uploaded

ENDINGS: dict[str, Callable[[Database, life.Claim], object]] = {
    "yield": life.yield_,
    "retry": lambda db, claim: life.retry(db, claim, code="native_crash", problem=PROBLEM, backoff=0, max_crashes=3),
    "the last retry": lambda db, claim: life.retry(db, claim, code="native_crash", problem=PROBLEM, backoff=0, max_crashes=1),
    "fail": lambda db, claim: life.fail(db, claim, code="diverged", problem=PROBLEM),
    "reap": lambda db, _: life.reap(db, max_crashes=3, since=LEASE, lease=LEASE),
}
"""Every way in which a running job that is to be cancelled ends."""


def _trained(db: Database, tenant: Tenant, *, lease: float = LEASE) -> life.Claim:
    """A running job with two checkpoints."""
    submitted(db, tenant)
    claim = claimed(db, lease=lease)
    for done in (3, 7):
        blob = uploaded(db, tenant, f"state {done}".encode())
        assert life.keep_checkpoint(db, claim, blob=blob, done=done, fit=0, step=done, values={"accuracy": 0.5})
    return claim


@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_ends_a_cancelled_job_keeps_what_was_wished(database: Database, tenant: Tenant, ending: str) -> None:
    kept, forgotten = _trained(database, tenant, lease=OVER), _trained(database, tenant, lease=OVER)
    life.cancel(database, tenant, kept.job.id)
    life.cancel(database, tenant, forgotten.job.id, keep="nothing")
    assert reread(database, forgotten.job).checkpoint is not None  # until it has ended
    for claim in (kept, forgotten):
        ENDINGS[ending](database, claim)
        ended = reread(database, claim.job)
        assert (ended.state, ended.code) == ("cancelled", "cancelled")
    assert (reread(database, kept.job).checkpoint or {})["done"] == 7
    assert reread(database, forgotten.job).checkpoint is None


@pytest.mark.parametrize("state", ["queued", "paused", "quarantined"])
def test_a_job_that_does_not_run_forgets_its_checkpoints_at_once(database: Database, tenant: Tenant, state: str) -> None:
    claim = _trained(database, tenant)
    if state == "quarantined":
        ENDINGS["the last retry"](database, claim)
    else:
        if state == "paused":
            life.pause(database, tenant, claim.job.id)
        life.yield_(database, claim)
    assert reread(database, claim.job).state == state
    cancelled = life.cancel(database, tenant, claim.job.id, keep="nothing")
    assert cancelled == reread(database, claim.job)
    assert (cancelled.state, cancelled.checkpoint) == ("cancelled", None)
    new = life.retry_as_new(database, tenant, claim.job.id)
    assert new is not None
    assert new.checkpoint is None


def test_bytes_that_are_forgotten_are_taken_apart_by_the_next_sweep_and_those_another_job_needs_are_not(
    database: Database, tenant: Tenant
) -> None:
    claim = _trained(database, tenant)
    life.cancel(database, tenant, claim.job.id)
    life.yield_(database, claim)
    old = reread(database, claim.job)
    new = life.retry_as_new(database, tenant, old.id)
    assert new is not None
    kept = Blobs(database, tenant)
    assert old.checkpoint is not None
    life.cancel(database, tenant, old.id, keep="nothing")
    assert garbage.sweep(database, older=3600.0) == 0
    assert b"".join(kept.get(old.checkpoint["blob"])) == b"state 7"
    life.cancel(database, tenant, new.id, keep="nothing")
    assert not kept.has(old.checkpoint["blob"])
    assert garbage.sweep(database, older=3600.0) == 2


def test_a_harder_wish_is_taken_and_a_softer_one_changes_nothing(database: Database, tenant: Tenant) -> None:
    claim = _trained(database, tenant)
    wishes: list[tuple[CancelMode, Keep]] = [
        ("graceful", "checkpoint"), ("graceful", "nothing"), ("graceful", "checkpoint"), ("now", "checkpoint"), ("graceful", "checkpoint"),
    ]  # fmt: skip
    seen = []
    for mode, keep in wishes:
        job = life.cancel(database, tenant, claim.job.id, mode=mode, keep=keep)
        assert job is not None
        seen.append((job.cancel_mode, job.cancel_keep, job.event_seq))
    modes, keeps, events = zip(*seen, strict=True)
    assert modes == ("graceful", "graceful", "graceful", "now", "now")
    assert keeps == ("checkpoint", "nothing", "nothing", "nothing", "nothing")
    assert [after - before for before, after in pairwise(events)] == [1, 0, 1, 0]  # told where it changed something


def test_one_part_of_a_wish_may_be_harder_and_the_other_softer(database: Database, tenant: Tenant) -> None:
    claim = _trained(database, tenant)
    life.cancel(database, tenant, claim.job.id)
    job = life.cancel(database, tenant, claim.job.id, mode="graceful", keep="nothing")
    assert job is not None
    assert (job.cancel_mode, job.cancel_keep) == ("now", "nothing")


def test_the_holder_of_the_claim_learns_how_to_end_its_child(database: Database, tenant: Tenant) -> None:
    claim = _trained(database, tenant)
    life.cancel(database, tenant, claim.job.id, mode="graceful")
    assert life.wish(database, claim) == life.renew(database, claim, lease=LEASE) == life.Renewal("cancel", False, graceful=True)
    life.cancel(database, tenant, claim.job.id)
    assert life.wish(database, claim) == life.renew(database, claim, lease=LEASE) == life.Renewal("cancel", False, graceful=False)


def test_a_job_that_was_cancelled_can_still_forget_its_checkpoints(database: Database, tenant: Tenant) -> None:
    claim = _trained(database, tenant)
    life.cancel(database, tenant, claim.job.id)
    life.yield_(database, claim)
    for _ in range(2):
        job = life.cancel(database, tenant, claim.job.id, keep="nothing")
        assert job is not None
        assert (job.state, job.checkpoint) == ("cancelled", None)
    assert [event.data["state"] for event in told(database, claim.job, "status")] == [
        "queued",
        "running",
        "running",
        "cancelled",
        "cancelled",
    ]


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_a_job_that_ended_otherwise_takes_no_cancel_however_hard(database: Database, tenant: Tenant, state: str) -> None:
    job = reread(database, IN_EACH_STATE[state](database, tenant).job)
    for mode, keep in product(("graceful", "now"), ("checkpoint", "nothing")):
        assert life.cancel(database, tenant, job.id, mode=mode, keep=keep) is None  # type: ignore[arg-type]
    assert reread(database, job) == job


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_work_is_cancelled_alike(database: Database, tenant: Tenant, kind: str) -> None:
    waiting, gentle = (submitted(database, tenant, kind=kind) for _ in range(2))  # type: ignore[arg-type]
    claim = claimed(database)
    assert claim.job.id == waiting.id
    assert (life.cancel(database, tenant, waiting.id, mode="graceful", keep="nothing") or waiting).desired == "cancel"
    assert life.yield_(database, claim) == "cancelled"
    assert (life.cancel(database, tenant, gentle.id, mode="graceful") or gentle).state == "cancelled"


def test_a_cancelled_inspection_rejects_its_asset_with_the_reason(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant)
    life.cancel(database, tenant, asset.job)
    rejected = assets.get_asset(database, tenant, asset.id)
    assert rejected is not None
    assert rejected.status == "rejected"
    assert rejected.problem == {
        "where": "",
        "reason": "the inspection was cancelled",
        "hint": "create the asset again",
        "code": "cancelled",
    }
