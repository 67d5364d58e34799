"""Teachers as people have them: formats, how names are mended, and how well one does on a dataset."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api.deps import Service
from api.scores import teacher_score
from api.settings import Settings
from core.anatomy import Anatomy
from db import access, assets, life
from db.session import Database
from tests.api.lab import ONE_DATABASE, TEACHER, Lab, User, anatomy_report, claim_of, inspected, upload, weights

SCORE = {"dataset": "ds_x", "split": "test", "accuracy": 0.9, "loss": 0.3, "n": 100, "of": 100, "chance": 0.1, "near_chance": False}


def teacher(http: httpx.Client, **changes: Any) -> httpx.Response:
    body = {"name": "t", "upload": upload(http, weights(), "teacher"), "architecture": TEACHER, "normalization": None, **changes}
    return http.post("/v1/teachers", json={name: value for name, value in body.items() if value is not ...})


def frozen_report() -> dict[str, Any]:
    """What the inspection of an ONNX model reports."""
    anatomy = Anatomy(
        family="onnx", input=(1, 8, 8), classes=10, parameters=650, flops=0, taps={}, calls={}, ops=frozenset(), weights={}, stages=(),
        mean=None, std=None, frozen=True,
    )  # fmt: skip
    return {"anatomy": anatomy.to_json(), "parameters": 650, "bytes": 2600, "format": "onnx", "notes": ["no taps and no gradient"]}


@ONE_DATABASE
def test_a_checkpoint_is_refused_with_what_the_person_and_the_operator_can_do(http: httpx.Client) -> None:
    answer = teacher(http, format="torch")
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/format"
    assert "weights_only=True" in error["hint"]
    assert "RETORT_CONVERT=isolated" in error["hint"]
    assert http.get("/readyz").json()["conversion"] == "off"


@ONE_DATABASE
def test_a_checkpoint_is_converted_first_where_the_operator_allows_it(
    serve: Callable[[Settings], str], settings: Settings, database: Database
) -> None:
    url = serve(settings.model_copy(update={"convert": "isolated"}))
    tenant = access.create_tenant(database, "eve")
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {access.create_key(database, tenant, name='k')}"}) as http:
        asset = teacher(http, format="torch", weights={"select": "ema", "rename": {"net.": ""}}).json()
    claim = claim_of(database, asset["job"])
    assert (claim.job.kind, claim.job.inputs["task"]["kind"]) == ("convert", "convert")
    assert claim.job.inputs["task"]["request"]["weights"] == {"select": "ema", "rename": {"net.": ""}}


@ONE_DATABASE
@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"architecture": ...}, "/architecture"),
        ({"format": "onnx"}, "/architecture"),
        ({"format": "onnx", "architecture": ..., "weights": {"rename": {"a": "b"}}}, "/weights"),
        ({"weights": {"select": "ema"}}, "/weights/select"),
        ({"input": [1, 8, 8]}, "/input"),
        ({"dataset": "ds_0"}, "/dataset"),
        ({"format": "pickle"}, "/format"),
    ],
)
def test_what_does_not_belong_together_is_refused_at_its_field(http: httpx.Client, changes: dict[str, Any], pointer: str) -> None:
    answer = teacher(http, **changes)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


@ONE_DATABASE
def test_an_onnx_teacher_teaches_logits_and_is_refused_for_the_rest(http: httpx.Client, lab: Lab, user: User, database: Database) -> None:
    asset = teacher(http, format="onnx", architecture=...).json()
    assert asset["request"]["architecture"] == {"family": "onnx", "input": None}
    inspected(database, user, asset, report=frozen_report())
    answer = http.post("/v1/jobs", json=lab.spec(teacher=asset["id"]))
    assert answer.status_code == 201, answer.text
    claim = claim_of(database, answer.json()["id"])
    assert claim.job.inputs["blobs"]["in/teacher.onnx"] == assets.get_asset(database, user.tenant, asset["id"]).blob  # type: ignore[union-attr]
    spec = lab.spec(teacher=asset["id"], methods=[{"name": "kd"}, {"name": "bss"}, {"name": "net2net"}])
    refused = http.post("/v1/jobs", json=spec).json()["errors"]
    assert [each["pointer"] for each in refused] == ["/methods/1", "/methods/2"]
    assert "no taps, no gradient" in refused[0]["detail"]


@ONE_DATABASE
def test_a_job_says_that_the_teachers_outputs_were_put_in_order(http: httpx.Client, lab: Lab, user: User, database: Database) -> None:
    asset = teacher(http, labels=list("1023456789")).json()
    inspected(database, user, asset, report=anatomy_report(TEACHER))
    job = http.post("/v1/jobs", json=lab.spec(teacher=asset["id"])).json()
    assert any("for '0' answers output 1" in warning for warning in job["warnings"])
    wrong = http.post("/v1/jobs", json=lab.spec(label_map={"0": 0})).json()["errors"]
    assert wrong[0]["pointer"] == "/label_map"


def running_on(database: Database, settings: Settings) -> Service:
    """As much of a service as a look at the database needs."""
    return Service(settings=settings, database=database, doorbell=None, feeds=None, receiving=None)  # type: ignore[arg-type]


def test_a_teacher_is_evaluated_once_for_a_dataset_and_its_score_is_found(
    http: httpx.Client, lab: Lab, user: User, database: Database, settings: Settings
) -> None:
    def known() -> dict[str, Any] | None:
        found = [assets.get_asset(database, user.tenant, id) for id in (lab.teacher, lab.dataset)]
        assert found[0] is not None
        assert found[1] is not None
        return teacher_score(running_on(database, settings), user.tenant, *found)  # type: ignore[arg-type]

    assert known() is None
    asked = [http.post(f"/v1/teachers/{lab.teacher}/evaluate", json={"dataset": lab.dataset}) for _ in range(2)]
    assert [answer.status_code for answer in asked] == [202, 202]
    job = asked[0].json()
    assert (job["kind"], job["id"]) == ("evaluate", asked[1].json()["id"])
    other = http.post(f"/v1/teachers/{lab.teacher}/evaluate", json={"dataset": lab.dataset, "label_map": {"0": 1}}).json()
    assert other["id"] != job["id"]
    claim = claim_of(database, job["id"])
    assert set(claim.job.inputs["blobs"]) == {"in/teacher.safetensors", "in/dataset.safetensors"}
    assert known() is None
    assert life.complete(database, claim, result={"evaluation": SCORE})
    assert known() == SCORE


@ONE_DATABASE
def test_the_score_on_arrival_is_found_and_near_chance_warns(http: httpx.Client, lab: Lab, user: User, database: Database) -> None:
    asset = teacher(http, dataset=lab.dataset).json()
    assert "in/dataset.safetensors" in claim_of(database, asset["job"]).job.inputs["blobs"]
    again = teacher(http, dataset=lab.dataset).json()
    low = {**SCORE, "dataset": lab.dataset, "accuracy": 0.11, "near_chance": True}
    inspected(database, user, again, report=anatomy_report(TEACHER) | {"evaluation": low})
    job = http.post("/v1/jobs", json=lab.spec(teacher=again["id"])).json()
    assert any("guessing reaches 10.0%" in warning for warning in job["warnings"])
