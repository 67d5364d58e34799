"""Jobs: planned before they are queued, read as their history tells, steered by wishes."""

import threading
from typing import Any

import httpx
import pytest

from db import jobs, life, workers
from db.session import Database
from tests.api.lab import Lab, User, claim_of


def block(*, first: int, last: int, of: int, **curves: float) -> tuple[str, dict[str, Any]]:
    """A block of points as a supervisor records it."""
    done = list(range(first, last + 1))
    columns: dict[str, list[float]] = {"done": [*map(float, done)], "epoch": [0.0] * len(done), "step": [*map(float, done)]}
    columns |= {name: [value] * len(done) for name, value in curves.items()}
    data = {"phase": "train", "fit": 0, "first": first, "last": last, "of": of, "columns": columns, "min": {}, "max": {}}
    return "metrics", {**data, "samples_per_second": 1000.0}


def test_a_submitted_job_is_queued_with_all_that_it_needs(
    http: httpx.Client, user: User, lab: Lab, submitted: dict[str, Any], database: Database
) -> None:
    assert (submitted["object"], submitted["status"], submitted["is_terminal"]) == ("distillation.job", "queued", False)
    assert submitted["actions"] == ["pause", "cancel", "clone"]
    assert submitted["spec"]["methods"][0]["name"] == "kd"
    assert http.get(f"/v1/jobs/{submitted['id']}").json() == submitted
    job = jobs.get_job(database, user.tenant, submitted["id"])
    assert job is not None
    assert job.queue == "any"
    assert sorted(job.inputs["blobs"]) == ["in/dataset.safetensors", "in/teacher.safetensors"]
    task = job.inputs["task"]
    assert task["spec"] == submitted["spec"]
    assert task["teacher"]["architecture"]["hidden"] == [16]
    assert task["student"] == {
        "architecture": http.get(f"/v1/architectures/{lab.student}").json()["request"]["architecture"],
        "normalization": None,
    }
    assert task["dataset"]["classes"] == 10


def test_a_dry_run_plans_and_queues_nothing(http: httpx.Client, lab: Lab) -> None:
    answer = http.post("/v1/jobs?dry_run=true", json=lab.spec())
    assert answer.status_code == 200, answer.text
    assert answer.json()["valid"]
    # 500 images, a tenth set aside, batches of 50, two epochs
    assert answer.json()["plan"]["steps"] == 2 * 450 // 50
    assert http.get("/v1/jobs").json()["data"] == []


def test_the_same_request_twice_with_a_key_is_one_job(http: httpx.Client, lab: Lab) -> None:
    answers = [http.post("/v1/jobs", json=lab.spec(), headers={"Idempotency-Key": key}) for key in ('"k1"', "k1", "k2")]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    one, same, other = (answer.json()["id"] for answer in answers)
    assert one == same != other
    reused = http.post("/v1/jobs", json=lab.spec(seed=1), headers={"Idempotency-Key": "k1"})
    assert (reused.status_code, reused.json()["code"]) == (422, "key_reused")


def test_many_at_once_with_one_key_are_one_job(http: httpx.Client, user: User, lab: Lab) -> None:
    ids: list[str] = []

    def send() -> None:
        headers = {**user.headers, "Idempotency-Key": "k"}
        answer = httpx.post(f"{http.base_url}/v1/jobs", json=lab.spec(), headers=headers, trust_env=False, timeout=60)
        ids.append(answer.json()["id"])

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_progress_is_derived_from_what_the_worker_told(http: httpx.Client, submitted: dict[str, Any], database: Database) -> None:
    claim = claim_of(database, submitted["id"])
    life.record(database, claim, [("phase", {"phase": "train", "fit": 0, "of": 18})])
    life.record(database, claim, [block(first=1, last=9, of=18, loss=2.5, kd=0.5)])
    life.record(database, claim, [("evaluated", {"fit": 0, "epoch": 0, "done": 9, "split": "validation", "values": {"accuracy": 0.7}})])
    job = http.get(f"/v1/jobs/{submitted['id']}").json()
    assert (job["status"], job["phase"], job["attempt"], job["worker"]) == ("running", "train", 1, {"id": "wrk_test"})
    assert (job["progress"]["percent"], job["progress"]["step"], job["progress"]["total_steps"]) == (50.0, 9, 18)
    assert (job["progress"]["epoch"], job["message"]) == (1, "epoch 1 of 2")
    assert job["progress"]["eta_at"] > job["progress"]["updated_at"]
    assert job["latest_metrics"] == {"loss": 2.5, "kd": 0.5, "validation_accuracy": 0.7}
    assert job["started_at"]
    assert job["finished_at"] is None


def test_a_job_that_succeeded_is_told_whole(http: httpx.Client, user: User, submitted: dict[str, Any], database: Database) -> None:
    claim = claim_of(database, submitted["id"])
    life.record(database, claim, [block(first=1, last=18, of=18, loss=1.0)])
    assert http.get(f"/v1/jobs/{submitted['id']}").json()["progress"]["percent"] == 99.9
    result = {"test": {"accuracy": 0.9, "n": 100}}
    life.complete(database, claim, result=result)
    job = http.get(f"/v1/jobs/{submitted['id']}").json()
    assert (job["status"], job["is_terminal"], job["result"], job["actions"]) == ("succeeded", True, result, ["clone"])
    again = http.post(f"/v1/jobs/{submitted['id']}/retry")
    assert (again.status_code, "POST …/clone" in again.json()["hint"]) == (409, True)
    assert job["progress"]["percent"] == 100.0
    assert job["finished_at"] >= job["started_at"]


def test_a_job_that_failed_says_why_with_its_last_lines(http: httpx.Client, submitted: dict[str, Any], database: Database) -> None:
    claim = claim_of(database, submitted["id"])
    problem = {"where": "/recipe", "reason": "the loss is not finite", "hint": "a lower rate", "code": "diverged"}
    life.end_attempt(
        database, claim, exit_code=11, signal=None, max_rss=1, code="diverged", log_tail="\n".join(f"line {i}" for i in range(99))
    )
    life.fail(database, claim, code="diverged", problem=problem)
    job = http.get(f"/v1/jobs/{submitted['id']}").json()
    assert (job["status"], job["code"], job["fault"], job["message"]) == ("failed", "diverged", "user", "the loss is not finite")
    assert {name: job["problem"][name] for name in problem} == problem
    assert job["problem"]["lines"] == [f"line {i}" for i in range(49, 99)]
    assert job["actions"] == ["retry", "clone"]


def test_a_queued_job_says_why_nobody_takes_it(http: httpx.Client, lab: Lab, database: Database) -> None:
    job = http.post("/v1/jobs", json=lab.spec(device="cuda")).json()
    assert "no worker lives" in job["queue_reason"]
    beat: dict[str, Any] = {"host": "box", "pid": 1, "device": "cpu", "slots": 1, "threads": 2, "busy": 0}
    workers.heartbeat(database, id="wrk_1", queues=["cpu"], **beat)
    assert "gpu" in http.get(f"/v1/jobs/{job['id']}").json()["queue_reason"]
    workers.heartbeat(database, id="wrk_2", queues=["gpu"], **beat)
    assert http.get(f"/v1/jobs/{job['id']}").json()["queue_reason"] is None


def test_a_job_that_waits_for_another_attempt_says_how_the_last_one_ended(
    http: httpx.Client, submitted: dict[str, Any], database: Database
) -> None:
    claim = claim_of(database, submitted["id"])
    life.end_attempt(database, claim, exit_code=None, signal=11, max_rss=1, code="native_crash", log_tail="")
    life.retry(database, claim, code="native_crash", problem={}, backoff=60, max_crashes=3)
    job = http.get(f"/v1/jobs/{submitted['id']}").json()
    assert job["status"] == "queued"
    assert "native_crash" in job["queue_reason"]


def test_a_queued_job_is_paused_resumed_and_cancelled_each_as_often_as_one_likes(http: httpx.Client, submitted: dict[str, Any]) -> None:
    path = f"/v1/jobs/{submitted['id']}"
    for wish, status in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        for _ in range(2):
            answer = http.post(f"{path}/{wish}")
            assert (answer.status_code, answer.json()["status"]) == (200, status), answer.text
    for wish in ("pause", "resume", "release"):
        answer = http.post(f"{path}/{wish}")
        assert (answer.status_code, answer.json()["code"], answer.json()["current_status"]) == (409, "not_applicable", "cancelled")


def test_a_running_job_follows_a_wish_when_its_worker_does(http: httpx.Client, submitted: dict[str, Any], database: Database) -> None:
    path = f"/v1/jobs/{submitted['id']}"
    claim = claim_of(database, submitted["id"])
    pausing = http.post(f"{path}/pause")
    assert (pausing.status_code, pausing.json()["status"], pausing.json()["actions"]) == (202, "pausing", ["resume", "cancel", "clone"])
    assert http.post(f"{path}/resume").json()["status"] == "running"
    cancelling = http.post(f"{path}/cancel", json={"mode": "now"})
    assert (cancelling.status_code, cancelling.json()["status"], cancelling.json()["actions"]) == (202, "cancelling", ["clone"])
    assert http.post(f"{path}/resume").status_code == 409
    life.yield_(database, claim)
    assert http.get(path).json()["status"] == "cancelled"
    assert http.post(f"{path}/cancel").status_code == 200


def test_a_retry_is_a_new_job_that_names_its_parent(http: httpx.Client, submitted: dict[str, Any]) -> None:
    path = f"/v1/jobs/{submitted['id']}"
    early = http.post(f"{path}/retry")
    assert (early.status_code, early.json()["current_status"]) == (409, "queued")
    http.post(f"{path}/cancel")
    new = http.post(f"{path}/retry")
    assert new.status_code == 201, new.text
    assert new.json()["parent"] == submitted["id"]
    assert new.json()["spec"] == submitted["spec"]
    assert new.headers["Location"] == f"/v1/jobs/{new.json()['id']}"
    assert http.get(path).json()["status"] == "cancelled"


def test_a_quarantined_job_is_released(http: httpx.Client, submitted: dict[str, Any], database: Database) -> None:
    problem = {"where": "", "reason": "it crashed", "hint": "", "code": "native_crash"}
    life.retry(database, claim_of(database, submitted["id"]), code="native_crash", problem=problem, backoff=0, max_crashes=1)
    path = f"/v1/jobs/{submitted['id']}"
    job = http.get(path).json()
    assert (job["status"], job["fault"], job["actions"], job["is_terminal"]) == (
        "quarantined",
        "system",
        ["release", "cancel", "clone"],
        False,
    )
    assert http.post(f"{path}/release").json()["status"] == "queued"


def test_the_baseline_is_one_ordinary_job_without_a_teacher(http: httpx.Client, lab: Lab, submitted: dict[str, Any]) -> None:
    made = http.post(f"/v1/jobs/{submitted['id']}/baseline")
    assert made.status_code == 201, made.text
    spec = made.json()["spec"]
    assert (spec["teacher"], spec["methods"], spec["recipe"]["epochs"], spec["recipe"]["task_weight"]) == (None, [], 2, 1.0)
    again = http.post(f"/v1/jobs/{submitted['id']}/baseline")
    assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])
    hotter = http.post("/v1/jobs", json=lab.spec(methods=[{"name": "kd", "temperature": 8.0}])).json()
    assert http.post(f"/v1/jobs/{hotter['id']}/baseline").json()["id"] == made.json()["id"]


def test_a_baseline_is_answered_again_where_it_measures_as_much(http: httpx.Client, lab: Lab) -> None:
    plain, curved, compared = (
        http.post("/v1/jobs", json=lab.spec(evaluate=asked)).json()["id"] for asked in (["accuracy"], ["accuracy", "fgsm"], ["boundary"])
    )
    first = http.post(f"/v1/jobs/{plain}/baseline").json()["id"]
    more = http.post(f"/v1/jobs/{curved}/baseline")
    assert more.status_code == 201
    assert more.json()["spec"]["evaluate"] == ["accuracy", "fgsm"]
    assert http.post(f"/v1/jobs/{compared}/baseline").status_code == 200
    assert more.json()["id"] != first


def test_jobs_are_listed_by_status_newest_first(http: httpx.Client, lab: Lab) -> None:
    ids = [http.post("/v1/jobs", json=lab.spec(seed=i)).json()["id"] for i in range(3)]
    http.post(f"/v1/jobs/{ids[1]}/cancel")
    assert [job["id"] for job in http.get("/v1/jobs").json()["data"]] == ids[::-1]
    assert [job["id"] for job in http.get("/v1/jobs?status=cancelled").json()["data"]] == [ids[1]]
    assert [job["id"] for job in http.get("/v1/jobs?status=queued&status=cancelled&limit=1").json()["data"]] == [ids[2]]
    page = http.get("/v1/jobs?limit=2").json()
    assert [job["id"] for job in http.get(f"/v1/jobs?after={page['next_cursor']}").json()["data"]] == [ids[0]]


def test_an_inspection_can_be_read_and_takes_no_wishes(http: httpx.Client, lab: Lab) -> None:
    id = http.get(f"/v1/teachers/{lab.teacher}").json()["job"]
    job = http.get(f"/v1/jobs/{id}").json()
    assert (job["kind"], job["status"], job["actions"]) == ("inspect", "succeeded", [])
    assert id not in [each["id"] for each in http.get("/v1/jobs").json()["data"]]
    answer = http.post(f"/v1/jobs/{id}/cancel")
    assert answer.status_code == 409
    assert "asset" in answer.json()["hint"]
    assert http.post(f"/v1/jobs/{id}/baseline").status_code == 404


@pytest.mark.parametrize("key", ["", '""', "x" * 300, 'a"b'])
def test_an_idempotency_key_is_a_short_text(http: httpx.Client, lab: Lab, key: str) -> None:
    answer = http.post("/v1/jobs", json=lab.spec(), headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert http.get("/v1/jobs").json()["data"] == []
