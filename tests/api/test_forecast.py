"""A dry run: what the job would be, what it would take on the workers that live, how good its teacher is, and what to know before."""

import json
from typing import Any

import httpx

from core.anatomy import measure
from core.calibrate import Calibration
from core.estimate import estimate
from core.networks import parse
from core.plan import plan
from core.spec import JobSpec
from db import workers
from db.session import Database
from tests.api.lab import ONE_DATABASE, STUDENT, TEACHER, Lab, User, anatomy_report, digits, inspected, upload, weights
from tests.api.test_generations import finish, submit

pytestmark = ONE_DATABASE

SLOW = Calibration(
    device="cpu", hardware="a slow one", threads=2, torch="2", conv=[(9, 1e9), (576, 1e9)], matmul=[(64, 1e9), (512, 1e9)],
    elements=[(1 << 20, 1e9)], copy_rate=1e9, operation=1e-5, step=1e-4, start=2.0, held=200_000_000, memory=8 << 30,
)  # fmt: skip
FAST = SLOW.model_copy(update={"hardware": "a fast one", "conv": ((9, 1e10), (576, 1e10)), "operation": 1e-6, "start": 1.0})


def beats(database: Database, id: str, calibration: Calibration | None, *, queues: Any = ("cpu",), busy: int = 0) -> None:
    """A worker says that it lives."""
    known = json.loads(calibration.model_dump_json()) if calibration else None
    workers.heartbeat(database, id=id, host="here", pid=1, queues=queues, device="cpu", slots=1, threads=2, busy=busy, calibration=known)


def dry(http: httpx.Client, spec: dict[str, Any]) -> dict[str, Any]:
    answer = http.post("/v1/jobs?dry_run=true", json=spec)
    assert answer.status_code == 200, answer.text
    assert http.get("/v1/jobs").json()["data"] == [] or spec.get("teacher", "").startswith("job_")
    told: dict[str, Any] = answer.json()
    return told


def test_without_a_worker_it_says_so_and_plans_all_the_same(http: httpx.Client, lab: Lab) -> None:
    told = dry(http, lab.spec())
    assert told["valid"]
    assert told["plan"]["epochs"] == 2
    estimates = told["estimates"]
    assert (estimates["seconds"], estimates["peak_memory_bytes"], estimates["worker"]) == (None, None, None)
    assert "no worker lives" in estimates["reason"]
    assert "has not" not in estimates["reason"]


def test_a_worker_that_has_not_measured_yet_is_no_ground_for_an_estimate(http: httpx.Client, lab: Lab, database: Database) -> None:
    beats(database, "wrk_a", None)
    assert "has measured its device yet" in dry(http, lab.spec())["estimates"]["reason"]


def test_the_range_is_that_of_the_worker_that_would_take_the_job(http: httpx.Client, lab: Lab, database: Database) -> None:
    beats(database, "wrk_a", SLOW)
    told = dry(http, lab.spec())
    spec = JobSpec.model_validate(lab.spec())
    teacher, student = measure(parse(TEACHER)), measure(parse(STUDENT))
    expected = estimate(plan(spec, teacher, student, dataset=digits()), spec, teacher, student, dataset=digits(), device=SLOW)
    estimates = told["estimates"]
    assert estimates["seconds"] == list(expected.seconds)
    assert estimates["peak_memory_bytes"] == [round(bytes) for bytes in expected.peak_memory_bytes]
    assert [(fit["phase"], fit["steps"]) for fit in estimates["per_fit"]] == [("train", told["plan"]["steps"])]
    assert estimates["worker"] == {"id": "wrk_a", "host": "here", "device": "cpu", "hardware": "a slow one", "threads": 2}
    assert "a slow one" in estimates["basis"]


def test_of_several_kinds_the_range_spans_all_and_a_busy_one_counts_only_where_all_are(
    http: httpx.Client, lab: Lab, database: Database
) -> None:
    beats(database, "wrk_a", SLOW)
    slow = dry(http, lab.spec())["estimates"]["seconds"]
    beats(database, "wrk_b", FAST)
    both = dry(http, lab.spec())["estimates"]
    assert both["worker"]["id"] == "wrk_b"
    assert (both["seconds"][0] < slow[0], both["seconds"][1]) == (True, slow[1])
    beats(database, "wrk_a", SLOW, busy=1)
    fast = dry(http, lab.spec())["estimates"]["seconds"]
    assert (fast[0], fast[1] < slow[1]) == (both["seconds"][0], True)
    beats(database, "wrk_b", FAST, busy=1)
    assert dry(http, lab.spec())["estimates"]["seconds"] == both["seconds"]


def test_a_queue_that_no_worker_serves_is_named(http: httpx.Client, lab: Lab, database: Database) -> None:
    beats(database, "wrk_a", SLOW)
    assert "'gpu'" in dry(http, lab.spec(device="cuda"))["estimates"]["reason"]


def test_what_the_job_will_hardly_keep_within_is_a_warning(http: httpx.Client, lab: Lab, database: Database) -> None:
    beats(database, "wrk_a", SLOW.model_copy(update={"memory": 1 << 20}))
    told = dry(http, lab.spec(limits={"seconds": 0.5}))
    assert {warning["code"] for warning in told["warnings"]} == {"memory", "limit"}


def test_a_teacher_that_nobody_evaluated_says_how(http: httpx.Client, lab: Lab) -> None:
    assert dry(http, lab.spec())["teacher"] == {"reason": f"not evaluated: POST /v1/teachers/{lab.teacher}/evaluate"}
    assert dry(http, lab.spec(teacher=None, methods=[]))["teacher"] is None


def test_a_teacher_that_was_evaluated_on_this_dataset_tells_its_score(http: httpx.Client, user: User, lab: Lab, database: Database) -> None:
    body = {"name": "t", "upload": upload(http, weights(TEACHER), "teacher"), "architecture": TEACHER, "normalization": None}
    found = {"dataset": lab.dataset, "split": "test", "accuracy": 0.125, "n": 100, "chance": 0.1, "near_chance": True}
    asset = http.post("/v1/teachers", json=body).json()
    teacher = inspected(database, user, asset, report={**anatomy_report(TEACHER), "evaluation": found})["id"]
    told = dry(http, lab.spec(teacher=teacher))
    assert told["teacher"] == found
    [warning] = told["warnings"]
    assert warning["code"] == "teacher_near_chance"
    assert "12.5%" in warning["detail"]


def test_a_finished_student_has_the_score_of_its_own_test(http: httpx.Client, user: User, lab: Lab, database: Database) -> None:
    first = submit(http, lab.spec())
    finish(database, user, first["id"], accuracy=0.9)
    told = dry(http, lab.spec(teacher=first["id"]))
    assert (told["teacher"]["accuracy"], told["teacher"]["n"], told["teacher"]["near_chance"]) == (0.9, 100, False)
    assert told["warnings"] == []


def test_a_teacher_near_chance_is_a_warning_before_the_job_and_on_its_card(
    http: httpx.Client, user: User, lab: Lab, database: Database
) -> None:
    """Of ten classes chance is 0.1, its deviation over 100 images 0.03: 0.18 is within three of them and 0.2 is not."""
    for accuracy, near in ((0.18, True), (0.2, False)):
        first = submit(http, lab.spec(seed=round(100 * accuracy)))
        finish(database, user, first["id"], accuracy=accuracy)
        told = dry(http, lab.spec(teacher=first["id"]))
        assert told["teacher"]["near_chance"] is near
        assert [warning["code"] for warning in told["warnings"]] == ["teacher_near_chance"] * near
        card = submit(http, lab.spec(teacher=first["id"]))
        assert ["guessing reaches 10.0%" in warning for warning in card["warnings"]] == [True] * near
        http.post(f"/v1/jobs/{card['id']}/cancel")


def test_what_a_workers_device_does_is_shown(http: httpx.Client, database: Database) -> None:
    beats(database, "wrk_a", SLOW)
    beats(database, "wrk_b", None)
    shown = {worker["id"]: worker["calibration"] for worker in http.get("/v1/capabilities").json()["workers"]}
    assert shown["wrk_a"]["hardware"] == "a slow one"
    assert shown["wrk_b"] is None
