"""Bad jobs: each refused with the field named, and nothing queued."""

from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from db import life
from db.session import Database
from tests.api.lab import ONE_DATABASE, STUDENT, TEACHER, Lab, User, anatomy_report, claim_of, equip, inspected, upload, weights

CONVNET = {"family": "convnet", "channels": [2, 4], "input": [1, 8, 8], "classes": 10}


def refused(http: httpx.Client, spec: dict[str, Any], status: int = 422) -> dict[str, Any]:
    """The problem of a job that must be refused, whether it is only planned or submitted; nothing may be queued."""
    dry = http.post("/v1/jobs?dry_run=true", json=spec)
    answer = http.post("/v1/jobs", json=spec)
    assert answer.status_code == dry.status_code == status, answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["errors"] == dry.json()["errors"]
    assert problem["fault"] == "user"
    assert http.get("/v1/jobs").json()["data"] == []
    return problem


@ONE_DATABASE
@pytest.mark.parametrize(
    ("change", "pointer", "word"),
    [
        ({"methods": [{"name": "kdd"}]}, "/methods/0/name", "did you mean kd?"),
        ({"methods": [{"name": "kd", "temprature": 4}]}, "/methods/0/temprature", "did you mean temperature?"),
        ({"methods": [{"name": "kd", "temperature": 0}]}, "/methods/0/temperature", "greater than"),
        ({"methods": [{"name": "kd", "temperature": "hot"}]}, "/methods/0/temperature", "number"),
        ({"methods": [{"name": "kd"}, {"name": "kd"}]}, "/methods/1/name", "kd"),
        ({"methods": "kd"}, "/methods", ""),
        ({"methdos": []}, "/methdos", "did you mean methods?"),
        ({"recipe": {"epochs": 0}}, "/recipe/epochs", "greater than"),
        ({"recipe": {"epoch": 5}}, "/recipe/epoch", "did you mean epochs?"),
        ({"recipe": {"optimizer": {"name": "adm"}}}, "/recipe/optimizer/name", "adamw"),
        ({"recipe": {"optimizer": {"name": "sgd", "lr": -1}}}, "/recipe/optimizer/lr", "greater than"),
        ({"recipe": {"optimizer": {"name": "sgd", "momentun": 0.9}}}, "/recipe/optimizer/momentun", "did you mean momentum?"),
        ({"recipe": {"batch_size": 100_000}}, "/recipe/batch_size", ""),
        ({"recipe": {"task_weight": "heavy"}}, "/recipe/task_weight", ""),
        ({"device": "tpu"}, "/device", "cuda"),
        ({"seed": -1}, "/seed", "greater than"),
        ({"student": {}}, "/student/architecture", "required"),
        ({"student": {"architecture": 5}}, "/student/architecture", "string"),
        ({"metadata": {"k": 1}}, "/metadata/k", "string"),
        ({"limits": {"seconds": 0}}, "/limits/seconds", "greater than"),
        ({"evaluate": ["fgms"]}, "/evaluate/0", "did you mean fgsm?"),
        ({"evaluate": [{"name": "fgms"}]}, "/evaluate/0/name", "did you mean fgsm?"),
        ({"evaluate": ["accuracy", {"name": "fgsm", "epsilon": [1]}]}, "/evaluate/1/epsilon", "did you mean epsilons?"),
        ({"evaluate": [{"name": "boundary", "samples": 0}]}, "/evaluate/0/samples", "greater than"),
        ({"evaluate": [{}]}, "/evaluate/0/name", "boundary"),
        ({"evaluate": [5]}, "/evaluate/0", "accuracy"),
        ({"evaluate": ["fgsm", {"name": "fgsm"}]}, "/evaluate", "once"),
        ({"teacher": None, "methods": [], "evaluate": ["accuracy", "boundary"]}, "/evaluate/1", "teacher"),
        ({"exports": ["onxx"]}, "/exports/0", "safetensors"),
        ({"name": 5}, "/name", "string"),
        ({"teacher": None}, "/teacher", "kd"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_by_field(
    http: httpx.Client, lab: Lab, change: dict[str, Any], pointer: str, word: str
) -> None:
    problem = refused(http, lab.spec(**change))
    assert pointer in [each["pointer"] for each in problem["errors"]], problem
    assert word in str(problem)


@ONE_DATABASE
@pytest.mark.parametrize("body", [[], "spec", 5, None])
def test_a_body_that_is_no_object_is_refused(http: httpx.Client, body: Any) -> None:
    answer = http.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == ""


@ONE_DATABASE
def test_everything_that_is_wrong_is_told_at_once(http: httpx.Client, lab: Lab) -> None:
    problem = refused(http, lab.spec(device="tpu", seed=-1, recipe={"epochs": 0}))
    assert {each["pointer"] for each in problem["errors"]} == {"/device", "/seed", "/recipe/epochs"}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"teacher": "tch_none"}, "/teacher"),
        ({"student": {"architecture": "arc_none"}}, "/student/architecture"),
        ({"dataset": {"id": "ds_none"}}, "/dataset/id"),
        ({"teacher_dataset": {"id": "ds_none"}}, "/teacher_dataset/id"),
    ],
)
def test_what_is_not_there_is_named(http: httpx.Client, lab: Lab, change: dict[str, Any], pointer: str) -> None:
    [error] = refused(http, lab.spec(**change))["errors"]
    assert (error["pointer"], error["code"]) == (pointer, "not_found")


@ONE_DATABASE
@pytest.mark.parametrize("id", ["upl_none", "art_none"])
def test_weights_that_are_not_there_are_named(http: httpx.Client, lab: Lab, id: str) -> None:
    [error] = refused(http, lab.spec(student={"architecture": lab.student, "weights": id}))["errors"]
    assert (error["pointer"], error["code"]) == ("/student/weights", "not_found")


def test_a_student_may_start_from_uploaded_weights(http: httpx.Client, lab: Lab, database: Database) -> None:
    id = upload(http, weights(STUDENT), "student")
    job = http.post("/v1/jobs", json=lab.spec(student={"architecture": lab.student, "weights": id})).json()
    assert "in/student.safetensors" in claim_of(database, job["id"]).job.inputs["blobs"]


def test_a_student_may_start_from_weights_that_are_drawn_by_name(http: httpx.Client, lab: Lab, database: Database) -> None:
    errors = refused(http, lab.spec(student={"architecture": lab.student, "weights": {"initialiser": "glorot"}}))["errors"]
    assert {error["pointer"] for error in errors} >= {"/student/weights/initialiser"}
    student = {"architecture": lab.student, "weights": {"initialiser": "xavier"}}
    job = http.post("/v1/jobs", json=lab.spec(student=student)).json()
    assert job["spec"]["student"] == student
    assert "in/student.safetensors" not in claim_of(database, job["id"]).job.inputs["blobs"]


def test_what_may_not_be_meant_is_told_and_not_refused(http: httpx.Client, lab: Lab, user: User, database: Database) -> None:
    wide = ready_architecture(http, user, database, {**TEACHER, "hidden": [20]})
    spec = lab.spec(student={"architecture": wide}, methods=[{"name": "padding", "fill": "zero"}])
    [warning] = http.post("/v1/jobs?dry_run=true", json=spec).json()["plan"]["warnings"]
    assert "never learn" in warning
    job = http.post("/v1/jobs", json=spec).json()
    assert job["warnings"] == http.get(f"/v1/jobs/{job['id']}").json()["warnings"] == [warning]
    assert http.post("/v1/jobs", json=lab.spec()).json()["warnings"] == []


@ONE_DATABASE
@pytest.mark.parametrize("method", ["net2net", "padding", "transfer"])
def test_a_student_that_cannot_hold_the_teacher_is_refused_with_the_layer_named(http: httpx.Client, lab: Lab, method: str) -> None:
    [error] = refused(http, lab.spec(methods=[{"name": method}]))["errors"]
    assert error["pointer"] == "/methods/0/name"
    assert "'linear1'" in error["detail"]


def test_what_is_not_ready_is_a_conflict_that_passes(http: httpx.Client, lab: Lab) -> None:
    arc = http.post("/v1/architectures", json={"name": "late", "architecture": STUDENT}).json()["id"]
    problem = refused(http, lab.spec(student={"architecture": arc}), 409)
    assert (problem["code"], problem["current_status"], problem["retryable"]) == ("not_ready", "processing", True)
    assert problem["errors"][0]["pointer"] == "/student/architecture"


def test_what_was_rejected_is_a_conflict_that_says_why(http: httpx.Client, lab: Lab, database: Database) -> None:
    arc = http.post("/v1/architectures", json={"name": "bad", "architecture": STUDENT}).json()
    why = {"where": "/architecture", "reason": "it is absurdly large", "hint": "", "code": "invalid_input"}
    life.fail(database, claim_of(database, arc["job"]), code="invalid_input", problem=why)
    problem = refused(http, lab.spec(student={"architecture": arc["id"]}), 409)
    assert (problem["current_status"], problem["retryable"]) == ("rejected", False)
    assert "absurdly large" in problem["detail"]


def ready_architecture(http: httpx.Client, user: User, database: Database, architecture: dict[str, Any]) -> str:
    asset = http.post("/v1/architectures", json={"name": "a", "architecture": architecture}).json()
    id: str = inspected(database, user, asset, report=anatomy_report(architecture))["id"]
    return id


def ready_teacher(http: httpx.Client, user: User, database: Database, architecture: dict[str, Any]) -> str:
    body = {"name": "t", "upload": upload(http, weights(architecture), "teacher"), "architecture": architecture, "normalization": None}
    asset = http.post("/v1/teachers", json=body).json()
    id: str = inspected(database, user, asset, report=anatomy_report(architecture))["id"]
    return id


def test_networks_and_dataset_of_different_shapes_are_refused(http: httpx.Client, user: User, lab: Lab, database: Database) -> None:
    wide = ready_teacher(http, user, database, {**TEACHER, "input": [3, 8, 8]})
    problem = refused(http, lab.spec(teacher=wide))
    assert [each["pointer"] for each in problem["errors"]] == ["/teacher"]
    assert problem["hint"]
    assert "3 × 8 × 8" in problem["detail"]
    student = ready_architecture(http, user, database, {**STUDENT, "input": [1, 9, 9]})
    problem = refused(http, lab.spec(student={"architecture": student}))
    assert problem["errors"][0]["pointer"].startswith("/student")


def test_other_classes_than_the_dataset_are_refused(http: httpx.Client, user: User, lab: Lab, database: Database) -> None:
    more = ready_teacher(http, user, database, {**TEACHER, "classes": 100})
    problem = refused(http, lab.spec(teacher=more))
    assert "100" in problem["detail"]
    assert "10" in problem["detail"]
    student = ready_architecture(http, user, database, {**STUDENT, "classes": 12})
    assert refused(http, lab.spec(student={"architecture": student}))["errors"][0]["pointer"].startswith("/student")


@ONE_DATABASE
@pytest.mark.parametrize(("pair", "place"), [(["blok1", "block1"], 0), (["block1", "blok1"], 1)])
def test_a_wrong_tap_is_refused_by_its_place_with_the_nearest_names(
    http: httpx.Client, user: User, database: Database, pair: list[str], place: int
) -> None:
    lab = equip(database, user, teacher={**CONVNET, "channels": [4, 8]}, student=CONVNET)
    problem = refused(http, lab.spec(methods=[{"name": "kd"}, {"name": "at", "pairs": [["block2", "block2"], pair]}]))
    assert [each["pointer"] for each in problem["errors"]] == [f"/methods/1/pairs/1/{place}"]
    assert "'blok1'" in problem["detail"]
    assert "block1" in problem["hint"]


def test_more_images_than_there_are_cannot_be_taken(http: httpx.Client, lab: Lab) -> None:
    problem = refused(http, lab.spec(dataset={"id": lab.dataset, "take": {"total": 10_000}}))
    assert problem["errors"][0]["pointer"] == "/dataset/take/total"


def test_above_the_cap_no_more_jobs_are_queued(http: httpx.Client, lab: Lab, serve: Any, settings: Any) -> None:
    small = serve(settings.model_copy(update={"max_queued": 1}))
    assert http.post(f"{small}/v1/jobs", json=lab.spec()).status_code == 201
    answer = http.post(f"{small}/v1/jobs", json=lab.spec(seed=1))
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_queued")
    assert answer.headers["Retry-After"]
    assert len(http.get("/v1/jobs").json()["data"]) == 1


def test_bytes_that_were_cleared_away_are_asked_for_again(http: httpx.Client, database: Database) -> None:
    late = http.post("/v1/uploads", json={"purpose": "dataset", "filename": "f", "bytes": 1, "sha256": "0" * 64}).json()["id"]
    with database.begin() as tx:
        tx.execute(sa.text("UPDATE upload SET status = 'completed' WHERE id = :id"), {"id": late})
    answer = http.post("/v1/datasets", json={"name": "d", "upload": late, "format": "npz"})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_kept")


@ONE_DATABASE
def test_networks_data_and_methods_that_do_not_fit_are_told_at_once(http: httpx.Client, user: User, lab: Lab, database: Database) -> None:
    spec = lab.spec(
        teacher=ready_teacher(http, user, database, {**TEACHER, "classes": 100}),
        student={"architecture": ready_architecture(http, user, database, {**STUDENT, "classes": 12})},
        methods=[{"name": "kd"}, {"name": "fitnet", "pairs": [["nowhere", "here"]]}],
        recipe={"batch_size": 50, "augmentation": [{"name": "cutout", "size": 8}]},
        dataset={"id": lab.dataset, "take": {"total": 10_000}},
    )
    problem = refused(http, spec)
    assert {each["pointer"] for each in problem["errors"]} == {
        "/teacher",
        "/student/architecture",
        "/methods/1/pairs/0/0",
        "/methods/1/pairs/0/1",
        "/recipe/augmentation/0/size",
        "/dataset/take/total",
    }
    assert all(each["detail"] and each["code"] == "invalid_input" for each in problem["errors"])
    cloned = http.post("/v1/jobs", json=lab.spec()).json()
    answer = http.post(f"/v1/jobs/{cloned['id']}/clone", json={"overrides": spec}).json()
    assert {each["pointer"] for each in answer["errors"]} == {f"/overrides{each['pointer']}" for each in problem["errors"]}


@ONE_DATABASE
def test_all_that_is_missing_is_told_at_once(http: httpx.Client, lab: Lab) -> None:
    arc = http.post("/v1/architectures", json={"name": "late", "architecture": STUDENT}).json()["id"]
    weights = {"architecture": arc, "weights": "upl_none"}
    problem = refused(http, lab.spec(teacher="tch_none", dataset={"id": "ds_none"}, student=weights))
    assert [(each["pointer"], each["code"]) for each in problem["errors"]] == [
        ("/teacher", "not_found"),
        ("/student/architecture", "not_ready"),
        ("/dataset/id", "not_found"),
        ("/student/weights", "not_found"),
    ]
    assert not problem["retryable"]
    waits = refused(http, lab.spec(student={"architecture": arc}), 409)
    assert [each["code"] for each in waits["errors"]] == ["not_ready"]
