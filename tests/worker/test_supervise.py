"""One attempt at a job, with a real child and a real database."""

import os
import sys
import threading
from typing import Any

import pytest

from db import assets, life
from db.life.submission import UPLOADED
from tests.worker.lab import Lab, lives, unreachable, until


def test_a_job_succeeds_with_its_curve_its_measurements_and_its_files(lab: Lab) -> None:
    id = lab.submit(steps=20, blobs={"in/teacher.safetensors": lab.blobs.put([b"teacher"])})
    with lab.means() as means:
        job = lab.work(id, means)
    assert (job.state, job.code, job.problem) == ("succeeded", None, None)
    assert job.result is not None
    assert job.result["done"] == 20
    assert job.result["runtime"] == {"device": "cpu", "threads": 1, "checkpoint_seconds": 0.1, "report_seconds": 0.01}
    assert "teacher.safetensors" in job.result["files"]
    assert [event.data["phase"] for event in lab.events(id, "phase")] == ["staging", "train"]
    assert lab.steps(id) == list(range(1, 21))
    measured = lab.events(id, "evaluated")[0].data
    assert measured["values"] == {"accuracy": 0.5}
    assert measured["curves"] == {"fgsm": {"epsilon": [0.0, 0.1], "accuracy": [0.5, 0.25]}}
    (artifact,) = assets.list_artifacts(lab.database, lab.tenant, id)
    assert (artifact.name, artifact.format, artifact.facts) == ("model.safetensors", "safetensors", {"max_abs_diff": 0.0})
    assert b"".join(lab.blobs.get(artifact.sha256)) == b"weights" * 1000
    (attempt,) = lab.attempts(id)
    assert (attempt.exit_code, attempt.signal, attempt.code) == (0, None, None)
    assert attempt.ended_at is not None
    assert attempt.max_rss is not None
    assert attempt.max_rss > 1 << 20


def test_an_inspection_makes_its_asset_ready_and_keeps_the_canonical_file(lab: Lab) -> None:
    upload = lab.blobs.put([b"rows"])
    task = {"kind": "inspect", "asset": "dataset", "toy": {}}
    asset = assets.create_asset(
        lab.database, lab.tenant, kind="dataset", name="rows", request={}, task=task, blobs={UPLOADED: upload}
    )  # fmt: skip
    with lab.means() as means:
        assert lab.work(asset.job, means).state == "succeeded"
    found = assets.get_asset(lab.database, lab.tenant, asset.id)
    assert found is not None
    assert (found.status, found.report) == ("ready", {"length": 4})
    assert found.blob is not None
    assert b"".join(lab.blobs.get(found.blob)) == b"dataset rows"
    (preview,) = assets.list_artifacts(lab.database, lab.tenant, asset.job)
    assert (preview.name, preview.format) == ("preview.png", "preview")
    assert b"".join(lab.blobs.get(preview.sha256)) == b"preview rows"


def test_the_engine_itself_speaks_the_same_contract_as_the_toy(lab: Lab) -> None:
    task = {
        "kind": "inspect",
        "asset": "architecture",
        "request": {"architecture": {"family": "mlp", "input": [4], "hidden": [3], "classes": 2}},
    }
    asset = assets.create_asset(lab.database, lab.tenant, kind="architecture", name="mlp", request={}, task=task, blobs={})
    with lab.means(child=(sys.executable, "-I", "-m", "core"), max_crashes=1) as means:
        job = lab.work(asset.job, means)
    assert job.state == "succeeded", job.problem
    found = assets.get_asset(lab.database, lab.tenant, asset.id)
    assert found is not None
    assert found.report is not None
    assert found.report["parameters"] == 4 * 3 + 3 + 3 * 2 + 2


def test_an_inspection_whose_child_always_dies_ends_in_a_named_rejection(lab: Lab) -> None:
    task = {"kind": "inspect", "asset": "dataset", "toy": {"die": "segfault"}}
    asset = assets.create_asset(lab.database, lab.tenant, kind="dataset", name="rows", request={}, task=task, blobs={})
    with lab.means(max_crashes=2, backoff=0) as means:
        assert lab.work(asset.job, means).state == "queued"
        assert lab.work(asset.job, means).state == "quarantined"
    found = assets.get_asset(lab.database, lab.tenant, asset.id)
    assert found is not None
    assert found.status == "rejected"
    assert found.problem is not None
    assert found.problem["code"] == "native_crash"


def test_the_child_knows_no_credentials_and_only_its_own_threads(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETORT_DATABASE_URL", "postgresql://u:secret@h/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with lab.means(threads=3, nice=2) as means:
        result = lab.work(lab.submit(), means).result
    assert result is not None
    seen: dict[str, str] = result["environment"]
    assert "secret" not in "".join(seen.values())
    assert not [name for name in seen if name.startswith("RETORT")]
    assert (seen["OMP_NUM_THREADS"], seen["MKL_NUM_THREADS"], seen["CUDA_VISIBLE_DEVICES"]) == ("3", "3", "")
    assert result["arguments"][2:] == ["--parent", str(os.getpid()), "--nice", "2"]


@pytest.mark.parametrize(
    ("die", "state", "code", "fault"),
    [
        ("refuse", "failed", "incompatible_pair", "user"),
        ("diverge", "failed", "diverged", "user"),
        ("segfault", "quarantined", "native_crash", "system"),
        ("abort", "quarantined", "native_crash", "system"),
        ("kill", "quarantined", "worker_lost", "system"),
        ("raise", "quarantined", "internal_error", "system"),
        ("memory", "quarantined", "oom_host", "user"),
        ("starve", "quarantined", "oom_gpu", "user"),
        ("leave", "quarantined", "internal_error", "system"),
    ],
)
def test_every_end_has_its_code_its_fault_and_the_last_lines(lab: Lab, die: str, state: str, code: str, fault: str) -> None:
    id = lab.submit(die=die)
    with lab.means(max_crashes=1) as means:
        job = lab.work(id, means)
    assert (job.state, job.code) == (state, code)
    assert job.problem is not None
    assert (job.problem["code"], job.problem["fault"]) == (code, fault)
    assert job.problem["reason"]
    assert job.problem["hint"]
    assert f"the toy is about to {die}" in "\n".join(job.problem["lines"])
    (attempt,) = lab.attempts(id)
    assert attempt.code == code
    assert attempt.log_tail is not None
    assert f"the toy is about to {die}" in attempt.log_tail


def test_a_refusal_keeps_its_field_and_its_hint(lab: Lab) -> None:
    with lab.means() as means:
        problem = lab.work(lab.submit(die="refuse"), means).problem
    assert problem is not None
    assert (problem["where"], problem["reason"]) == ("/methods/0/temperature", "a toy has no temperature")
    assert problem["hint"] == "leave it out"


def test_poison_is_quarantined_when_it_dies_at_one_place_again_and_again(lab: Lab) -> None:
    id = lab.submit(die="raise")
    with lab.means(max_crashes=3) as means:
        assert [lab.work(id, means).state for _ in range(3)] == ["queued", "queued", "quarantined"]
    assert [attempt.code for attempt in lab.attempts(id)] == ["internal_error"] * 3


def test_a_job_that_dies_goes_on_from_its_last_checkpoint_and_is_not_punished_for_progress(lab: Lab) -> None:
    id = lab.submit(steps=9, every=1, die="raise", at=6)
    with lab.means(max_crashes=2) as means:
        first = lab.work(id, means)
        assert (first.state, first.crashes) == ("queued", 1)
        assert "broken on purpose" in lab.events(id, "log")[-1].data["message"]  # while it waits it has no problem: its log says why
        assert first.checkpoint is not None
        assert first.checkpoint["done"] == 6
        assert lab.work(id, means).state == "quarantined"  # it resumed at 6 and died there
    assert [done for event in lab.events(id, "metrics") for done in event.data["columns"]["done"]] == [1, 2, 3, 4, 5, 6]


def test_a_job_that_ran_out_of_memory_is_not_tried_again_unchanged(lab: Lab) -> None:
    id = lab.submit(die="starve")
    with lab.means(max_crashes=9) as means:
        assert lab.work(id, means).state == "quarantined"


def test_the_first_retry_is_at_once_and_the_second_waits(lab: Lab) -> None:
    id = lab.submit(die="raise", at=0)
    with lab.means(max_crashes=9, backoff=1000) as means:
        first = lab.work(id, means)
        again = lab.work(id, means)  # it could be claimed
    assert (first.crashes, again.crashes) == (1, 2)
    assert 700 < again.run_after - first.run_after < 1260  # 1000 +- 20 %, and the time that the attempt took


def test_a_job_that_progressed_since_its_last_crash_is_tried_again_at_once(lab: Lab) -> None:
    id = lab.submit(steps=9, every=1, die="raise", at=2, afresh=True)
    with lab.means(max_crashes=9, backoff=1000) as means:
        for _ in range(3):  # each time two steps further: were it not tried at once, it could not be claimed
            job = lab.work(id, means)
            assert (job.state, job.crashes) == ("queued", 1)


def test_a_child_over_its_memory_is_ended(lab: Lab) -> None:
    id = lab.submit(die="hog")
    with lab.means(memory=128 << 20, max_crashes=1) as means:
        job = lab.work(id, means)
    assert (job.state, job.code) == ("quarantined", "oom_host")


def test_a_silent_child_is_ended_with_the_place_where_it_hangs(lab: Lab) -> None:
    id = lab.submit(die="hang")
    with lab.means(silence=3, max_crashes=1) as means:
        job = lab.work(id, means)
    assert (job.state, job.code) == ("quarantined", "stalled")
    assert job.problem is not None
    assert "in die" in "\n".join(job.problem["lines"])  # what faulthandler writes of the stack


def test_a_job_that_has_used_up_its_seconds_fails(lab: Lab) -> None:
    id = lab.submit(steps=10_000, pause=0.01, seconds_limit=0.5)
    with lab.means() as means:
        job = lab.work(id, means)
    assert (job.state, job.code) == ("failed", "deadline")


def test_what_is_no_event_and_what_is_too_long_for_one_harms_nothing(lab: Lab) -> None:
    with lab.means() as means:
        assert lab.work(lab.submit(die="babble"), means).state == "succeeded"


@pytest.mark.parametrize("deaf", [False, True])
def test_a_cancelled_job_is_cancelled_only_when_its_child_and_all_it_started_are_dead(lab: Lab, deaf: bool) -> None:
    id = lab.submit(steps=100_000, pause=0.01, grandchild=True, deaf=deaf)
    with lab.means() as means:
        working = _in_background(lab, id, means)
        pid = lab.pid(id)
        child = until(lambda: "".join(path.read_text() for path in lab.folder.glob(f"*/jobs/*/{id}.*/in/grandchild")))
        assert life.cancel(lab.database, lab.tenant, id)
        assert lab.reaches(id, "cancelled").code == "cancelled"
        assert not lives(pid)
        assert not lives(int(child))
        working.join()


def test_a_paused_job_keeps_a_checkpoint_and_goes_on_from_it(lab: Lab) -> None:
    id = lab.submit(steps=100, pause=0.01)
    with lab.means() as means:
        working = _in_background(lab, id, means)
        until(lambda: lab.steps(id))
        assert life.pause(lab.database, lab.tenant, id)
        paused = lab.reaches(id, "paused")
        working.join()
        assert (paused.attempt, paused.crashes) == (0, 0)
        assert paused.checkpoint is not None
        assert life.resume(lab.database, lab.tenant, id)
        assert lab.work(id, means).state == "succeeded"
    assert lab.steps(id) == list(range(1, 101))
    assert next(event.data["first"] for event in lab.events(id, "metrics") if event.fence == 2) == paused.checkpoint["done"] + 1


def test_a_supervisor_that_lost_its_claim_kills_its_child_at_once_and_writes_nothing_more(lab: Lab) -> None:
    id = lab.submit(steps=100_000, pause=0.01)
    with lab.means(renew=600, lease=1201, wish=0.1, flush=600) as means:
        working = _in_background(lab, id, means)
        pid = lab.pid(id)
        _expire_lease(lab, id)
        life.reap(lab.database, max_crashes=9, since=1, lease=0)
        working.join()
        assert not lives(pid)
    job = lab.job(id)
    assert (job.state, job.fence) == ("queued", 2)


@pytest.mark.parametrize("lie", [{"sha256": "0" * 64}, {"path": "../../../../../../etc/passwd"}, {"path": "out/nothing"}])
def test_files_that_are_not_what_the_child_said_complete_nothing(lab: Lab, lie: dict[str, str]) -> None:
    id = lab.submit(lie=lie)
    with lab.means(max_crashes=1) as means:
        job = lab.work(id, means)
    assert (job.state, job.code) == ("quarantined", "internal_error")
    assert assets.list_artifacts(lab.database, lab.tenant, id) == []


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
@pytest.mark.servers
def test_a_child_goes_on_while_the_database_is_away_and_nothing_it_told_is_lost(lab: Lab, database_url: str) -> None:
    id = lab.submit(steps=60, pause=0.02, every=10)
    with lab.means() as means:
        working = _in_background(lab, id, means)
        pid = lab.pid(id)
        until(lambda: lab.steps(id))
        with unreachable(database_url):
            until(lambda: not lives(pid))  # it came to its end alone
        assert lab.reaches(id, "succeeded").fence == 1
        working.join()
    assert lab.steps(id) == list(range(1, 61))


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
@pytest.mark.servers
def test_a_child_is_ended_when_the_database_stays_away_for_too_long(lab: Lab, database_url: str) -> None:
    id = lab.submit(steps=100_000, pause=0.01)
    with lab.means(outage=1) as means:
        working = _in_background(lab, id, means)
        pid = lab.pid(id)
        with unreachable(database_url):
            until(lambda: not lives(pid))
            working.join()
    assert lab.job(id).state == "running"  # its lease will run out


def _in_background(lab: Lab, id: str, means: Any) -> threading.Thread:
    thread = threading.Thread(target=lab.attempt, args=(id, means))
    thread.start()
    return thread


def _expire_lease(lab: Lab, id: str) -> None:
    """As if the database had waited for longer than the lease."""
    claim = life.Claim(lab.job(id), lab.job(id).fence)
    assert life.renew(lab.database, claim, lease=-1.0)
