"""How a claim ends, also when the answer to the first call was lost and the caller asks again."""

import pytest

from db import assets, jobs, life
from db.access import Tenant
from db.assets import Asset
from db.session import Database
from tests.db.given import LEASE, OVER, PROBLEM, claimed, created, reread, running, submitted, told, uploaded


def _file(sha256: str, name: str = "model.safetensors") -> life.NewArtifact:
    return life.NewArtifact(name=name, format="safetensors", sha256=sha256, bytes=7, facts={"parity": 0.0})


def test_a_completed_job_has_its_result_and_its_artifacts(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    blob = uploaded(database, tenant)
    assert life.complete(database, claim, result={"test": {"accuracy": 0.9}}, artifacts=[_file(blob), _file(blob, "README.md")])
    done = reread(database, claim.job)
    assert (done.state, done.result, done.code, done.owner) == ("succeeded", {"test": {"accuracy": 0.9}}, None, None)
    found = assets.list_artifacts(database, tenant, done.id)
    assert [(one.name, one.sha256, one.job, one.facts) for one in found] == [
        ("README.md", blob, done.id, {"parity": 0.0}),
        ("model.safetensors", blob, done.id, {"parity": 0.0}),
    ]
    assert assets.get_artifact(database, tenant, found[0].id) == found[0]
    kinds = [(event.kind, event.data.get("name", event.data.get("state"))) for event in told(database, done)[2:]]
    assert kinds == [("artifact", "model.safetensors"), ("artifact", "README.md"), ("succeeded", "succeeded")]


def test_a_completion_asked_for_again_is_the_same_one(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    made = [_file(uploaded(database, tenant))]
    assert [life.complete(database, claim, result={}, artifacts=made) for _ in range(2)] == [True, True]
    assert len(assets.list_artifacts(database, tenant, claim.job.id)) == 1
    assert len(told(database, claim.job, "succeeded")) == 1


def test_a_job_that_is_to_be_cancelled_is_not_completed(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    life.cancel(database, tenant, claim.job.id)
    assert not life.complete(database, claim, result={})
    assert life.yield_(database, claim) == "cancelled"
    assert reread(database, claim.job).code == "cancelled"


def test_every_ending_asked_for_again_answers_the_same(database: Database, tenant: Tenant) -> None:
    failing, crashing, yielding = (running(database, tenant) for _ in range(3))
    assert [life.fail(database, failing, code="diverged", problem=PROBLEM) for _ in range(2)] == ["failed", "failed"]
    crash = {"code": "native_crash", "problem": PROBLEM, "backoff": 60.0, "max_crashes": 3}
    assert [life.retry(database, crashing, **crash) for _ in range(2)] == ["queued", "queued"]  # type: ignore[arg-type]
    assert [life.yield_(database, yielding) for _ in range(2)] == ["queued", "queued"]
    assert [reread(database, claim.job).crashes for claim in (failing, crashing, yielding)] == [0, 1, 0]


def test_a_failed_job_says_why(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    life.fail(database, claim, code="diverged", problem=PROBLEM)
    failed = reread(database, claim.job)
    assert (failed.state, failed.code, failed.problem) == ("failed", "diverged", PROBLEM)
    assert told(database, failed)[-1].data == {"state": "failed", "desired": "run", "code": "diverged"}


def test_a_job_that_keeps_crashing_is_put_in_quarantine_with_the_problem(database: Database, tenant: Tenant) -> None:
    submitted(database, tenant)
    states = [life.retry(database, claimed(database), code="oom_gpu", problem=PROBLEM, backoff=0, max_crashes=3) for _ in range(3)]
    assert states == ["queued", "queued", "quarantined"]
    (job,) = jobs.list_jobs(database, tenant, states=["quarantined"], limit=9)
    assert (job.code, job.problem, job.crashes, job.attempt) == ("oom_gpu", PROBLEM, 3, 3)
    assert [event.data.get("code") for event in told(database, job, "status")] == [None, None, "oom_gpu", None, "oom_gpu", None, "oom_gpu"]


def test_handing_a_job_back_spends_no_attempt(database: Database, tenant: Tenant) -> None:
    submitted(database, tenant)
    for fence in range(1, 4):
        claim = claimed(database)
        assert (claim.job.attempt, claim.fence) == (1, fence)
        life.yield_(database, claim)


def test_a_crash_after_the_last_second_is_the_end(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant, seconds_limit=-1.0)
    assert life.retry(database, claim, code="worker_lost", problem=PROBLEM, backoff=0, max_crashes=9) == "failed"
    failed = reread(database, claim.job)
    assert failed.code == "deadline"
    assert failed.problem is not None
    assert failed.problem["where"] == "/limits/seconds"


def test_the_end_of_an_attempt_is_kept_and_told_once(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    tail = "x" * 70_000 + "\0 and half a pair \ud800"
    for _ in range(2):
        life.end_attempt(database, claim, exit_code=None, signal=11, max_rss=1 << 40, code="native_crash", log_tail=tail)
    (attempt,) = jobs.attempts(database, tenant, claim.job.id)
    assert (attempt.exit_code, attempt.signal, attempt.max_rss, attempt.code) == (None, 11, 1 << 40, "native_crash")
    assert attempt.ended_at is not None
    assert attempt.log_tail is not None
    assert len(attempt.log_tail) == 65536
    assert attempt.log_tail.endswith("x\N{REPLACEMENT CHARACTER} and half a pair ?")
    ends = told(database, claim.job, "attempt")
    assert [event.data for event in ends] == [{"fence": 1, "code": "native_crash", "exit_code": None, "signal": 11}]


def test_an_inspection_that_succeeds_makes_its_asset_ready(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant, kind="dataset")
    canonical = uploaded(database, tenant, b"canonical form")
    claim = claimed(database)
    assert (claim.job.id, claim.job.kind, claim.job.queue) == (asset.job, "inspect", "cpu")
    assert claim.job.inputs == {"task": {"kind": "inspect", "asset": "teacher"}, "blobs": {"in/upload": asset.blob}}
    life.complete(database, claim, result={"report": {"classes": 10}}, canonical=canonical)
    ready = assets.get_asset(database, tenant, asset.id)
    assert ready is not None
    assert (ready.status, ready.report, ready.problem, ready.blob, ready.bytes) == ("ready", {"classes": 10}, None, canonical, 14)


def test_an_inspected_teacher_keeps_the_bytes_that_were_uploaded(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant)
    life.complete(database, claimed(database), result={"report": {"parameters": 3}})
    ready = assets.get_asset(database, tenant, asset.id)
    assert ready is not None
    assert (ready.status, ready.blob, ready.bytes) == ("ready", asset.blob, 7)


def converting(database: Database, tenant: Tenant) -> Asset:
    """A teacher whose upload is converted first."""
    return created(database, tenant, task={"kind": "convert", "asset": "teacher", "request": {"labels": None}})


def test_a_conversion_hands_its_asset_on_to_an_inspection_of_what_it_made(database: Database, tenant: Tenant) -> None:
    asset = converting(database, tenant)
    converted = uploaded(database, tenant, b"safetensors")
    claim = claimed(database)
    assert (claim.job.id, claim.job.kind) == (asset.job, "convert")
    for _ in range(2):  # the answer of the first commit may have been lost
        assert life.complete(database, claim, result={"report": {"selected": "ema"}}, canonical=converted)
    waiting = assets.get_asset(database, tenant, asset.id)
    assert waiting is not None
    assert (waiting.status, waiting.blob, waiting.report) == ("processing", converted, None)
    inspection = claimed(database)
    assert (inspection.job.id, inspection.job.kind, inspection.job.asset) == (waiting.job, "inspect", asset.id)
    task = {"kind": "inspect", "asset": "teacher", "request": {"labels": None}, "safety": {"selected": "ema"}}
    assert inspection.job.inputs == {"task": task, "blobs": {"in/upload": converted}}
    life.complete(database, inspection, result={"report": {"parameters": 3}})
    ready = assets.get_asset(database, tenant, asset.id)
    assert ready is not None
    assert (ready.status, ready.blob) == ("ready", converted)


def test_a_conversion_that_fails_rejects_its_asset(database: Database, tenant: Tenant) -> None:
    asset = converting(database, tenant)
    life.fail(database, claimed(database), code="invalid_input", problem=PROBLEM)
    rejected = assets.get_asset(database, tenant, asset.id)
    assert rejected is not None
    assert (rejected.status, rejected.problem) == ("rejected", PROBLEM)


def test_a_conversion_of_an_asset_that_is_gone_leaves_no_inspection(database: Database, tenant: Tenant) -> None:
    asset = converting(database, tenant)
    claim = claimed(database)
    assets.delete_asset(database, tenant, asset.id)
    assert not life.complete(database, claim, result={"report": {}}, canonical=uploaded(database, tenant, b"safetensors"))
    assert life.claim(database, worker="w2", queues=["cpu"], lease=LEASE) is None


@pytest.mark.parametrize("end", ["fail", "retry", "reap"])
def test_an_inspection_that_ends_badly_rejects_its_asset_by_name(database: Database, tenant: Tenant, end: str) -> None:
    asset = created(database, tenant)
    claim = claimed(database, lease=OVER)
    if end == "fail":
        life.fail(database, claim, code="invalid_input", problem=PROBLEM)
    elif end == "retry":
        life.retry(database, claim, code="native_crash", problem=PROBLEM, backoff=0, max_crashes=1)
    else:
        life.reap(database, max_crashes=1, since=LEASE, lease=LEASE)
    rejected = assets.get_asset(database, tenant, asset.id)
    assert rejected is not None
    assert rejected.status == "rejected"
    assert rejected.problem is not None
    assert set(rejected.problem) == {"where", "reason", "hint", "code"}
    assert rejected.problem["code"] == ("worker_lost" if end == "reap" else "native_crash")


def test_an_inspection_that_is_tried_again_leaves_its_asset_in_processing(database: Database, tenant: Tenant) -> None:
    asset = created(database, tenant)
    life.retry(database, claimed(database), code="native_crash", problem=PROBLEM, backoff=0, max_crashes=2)
    waiting = assets.get_asset(database, tenant, asset.id)
    assert waiting is not None
    assert waiting.status == "processing"
