"""Sweeps as a user asks for them: what is wrong with one is refused at once with its field named, and what is there can be read."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from db.session import Database
from tests.api.lab import ONE_DATABASE, Lab, User, digits, equip, inspected, upload
from tests.api.player import GRID, start

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"space": {"methods.0.temprature": {"choice": [1]}}}, "/space/methods.0.temprature", "it ends at 'temprature'"),
    ({"space": {"methods.3.temperature": {"choice": [1]}}}, "/space/methods.3.temperature", "it ends at '3'"),
    ({"space": {"/methods/0/nothing": {"choice": [1]}}}, "/space/~1methods~10~1nothing", "it ends at 'nothing'"),
    ({"space": {"recipe.optimizer.lr": {"choice": [0.1, -1]}}}, "/space/recipe.optimizer.lr/choice/1", "greater than 0"),
    ({"space": {"recipe.optimizer.lr": {"log": [0.1, 1000]}}}, "/space/recipe.optimizer.lr/log/1", "less than or equal to 100"),
    ({"space": {"recipe.optimizer.lr": {"log": [0, 1]}}}, "/space/recipe.optimizer.lr", "0 < lo < hi"),
    ({"space": {"recipe.optimizer.lr": {"uniform": [1, 0.1]}}}, "/space/recipe.optimizer.lr", "lo < hi"),
    ({"space": {"recipe.optimizer.lr": {"uniform": ["a", 1]}}}, "/space/recipe.optimizer.lr/uniform/0", "valid number"),
    ({"space": {"recipe.batch_size": {"uniform": [16, 64]}}}, "/space/recipe.batch_size/uniform", "integer"),
    ({"space": {"recipe.batch_size": {"int": [16, 64], "step": 9}}}, "/space/recipe.batch_size", "do not reach 64"),
    ({"space": {"recipe.batch_size": {"int": [0, 64]}}}, "/space/recipe.batch_size/int/0", "greater than or equal to 2"),
    ({"space": {"recipe.batch_size": {"choice": []}}}, "/space/recipe.batch_size/choice", "at least 1"),
    ({"space": {"recipe.batch_size": {"choice": [50, 50.0]}}}, "/space/recipe.batch_size/choice", "mean the same"),
    ({"space": {"recipe.batch_size": {"int": [16, 64], "step": 0}}}, "/space/recipe.batch_size/step", "greater than or equal to 1"),
    ({"space": {"recipe.batch_size": {"int": [16, 64], "step": -8}}}, "/space/recipe.batch_size/step", "greater than or equal to 1"),
    ({"space": {"recipe.batch_size": {"range": [1, 2]}}}, "/space/recipe.batch_size", "one of choice, uniform, log and int"),
    ({"space": {"recipe.batch_size": {"choice": [16], "int": [16, 64]}}}, "/space/recipe.batch_size", "one of choice"),
    ({"space": {"recipe.batch_size": [16, 64]}}, "/space/recipe.batch_size", '{"choice": [1, 2]}'),
    ({"space": {"methods.00.temperature": {"choice": [1]}}}, "/space/methods.00.temperature", "it ends at '00'"),
    ({"space": {"methods.٠.temperature": {"choice": [1]}}}, "/space/methods.٠.temperature", "it ends at '٠'"),
    ({"space": {"methods.0.name": {"choice": ["at"]}}}, "/space/methods.0.name/choice/0", "/methods/0/temperature does not fit"),
    ({"space": {"recipe.schedule": {"choice": [{"name": "wavy"}]}}}, "/space/recipe.schedule/choice/0", "no 'wavy' here"),
    ({"space": {}}, "/space", "at least 1"),
    ({"space": {"seed": {"int": [0, 9]}}}, "/space/seed", "luck"),
    ({"space": {"dataset.view_seed": {"int": [0, 9]}}}, "/space/dataset.view_seed", "luck"),
    ({"space": {"dataset.validation": {"choice": [0.1, 0.2]}}}, "/space/dataset.validation", "other images"),
    ({"space": {"dataset": {"choice": [{"id": "ds_1"}]}}}, "/space/dataset", "other images"),
    ({"space": {"evaluate": {"choice": [["accuracy"]]}}}, "/space/evaluate", "better or worse"),
    ({"space": {"methods.0": {"choice": [{"name": "kd"}]}, **GRID}}, "/space/methods.0.temperature", "lies within"),
    ({"space": {**GRID, "/methods/0/temperature": {"choice": [2]}}}, "/space/~1methods~10~1temperature", "already"),
    ({"strategy": "grid", "space": {"recipe.optimizer.lr": {"log": [0.1, 1]}}}, "/space/recipe.optimizer.lr", "can be listed"),
    ({"strategy": "grid", "max_jobs": 3}, "/max_jobs", "the grid has 4 points"),
    ({"strategy": "annealing"}, "/strategy", "'grid', 'random' or 'tpe'"),
    ({"max_jobs": 0}, "/max_jobs", "greater than or equal to 1"),
    ({"seeds": 0}, "/seeds", "greater than or equal to 1"),
    ({"objective": {"metric": "test_accuracy"}}, "/objective/metric", "validation_accuracy"),
    ({"pruner": {"name": "median", "percentile": 20}}, "/pruner", "percentile 50"),
    ({"pruner": {"name": "hyperband"}}, "/pruner/name", "'median' or 'percentile'"),
    ({"sapce": 1}, "/sapce", "no field 'sapce'"),
]  # fmt: skip


@ONE_DATABASE
@pytest.mark.parametrize(("change", "pointer", "words"), WRONG, ids=[f"{pointer} {words}" for _, pointer, words in WRONG])
def test_what_is_wrong_is_refused_by_its_field(http: httpx.Client, lab: Lab, change: dict[str, Any], pointer: str, words: str) -> None:
    answer = http.post("/v1/sweeps", json={"base": lab.spec(), "space": GRID, **change})
    assert answer.status_code == 422, answer.text
    found = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
    assert pointer in found, found
    assert words in found[pointer], found
    assert http.get("/v1/sweeps").json()["data"] == []


@ONE_DATABASE
@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"methods": [{"name": "kd", "temperature": 0}]}, "/base/methods/0/temperature"),
        ({"teacher": None}, "/base/teacher"),
        ({"teacher": "tch_0"}, "/base/teacher"),
        ({"recipe": {"epochs": 1, "batch_size": 5000}}, "/base/recipe/batch_size"),
    ],
)
def test_a_base_that_could_not_run_is_refused_by_its_field(http: httpx.Client, lab: Lab, change: dict[str, Any], pointer: str) -> None:
    answer = http.post("/v1/sweeps", json={"base": {**lab.spec(), **change}, "space": {"recipe.optimizer.lr": {"log": [0.01, 1]}}})
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert answer.json()["detail"].startswith(f"{pointer}: ")


@ONE_DATABASE
def test_a_new_sweep_says_what_its_base_warns_of(http: httpx.Client, lab: Lab) -> None:
    base = lab.spec(teacher_dataset={"id": lab.dataset, "validation": 0})
    made = http.post("/v1/sweeps", json={"base": base, "space": {"recipe.optimizer.lr": {"log": [0.01, 1]}}}).json()
    assert made["warnings"] == ["no method trains on the teacher_dataset: it changes nothing"]


@ONE_DATABASE
def test_a_value_that_leaves_its_own_field_out_of_the_spec_is_refused(http: httpx.Client, lab: Lab) -> None:
    base = lab.spec(student={"architecture": lab.student, "weights": {"initialiser": "xavier"}})
    body = {"base": base, "space": {"student.weights.initialiser": {"choice": ["xavier", "default"]}}}
    answer = http.post("/v1/sweeps", json=body)
    assert (answer.status_code, answer.json()["hint"]) == (422, "vary student.weights whole")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/space/student.weights.initialiser/choice/1"]
    body["space"] = {"student.weights": {"choice": [{"initialiser": "xavier"}, {"initialiser": "default"}]}}
    assert http.post("/v1/sweeps", json=body).status_code == 201


@ONE_DATABASE
def test_without_validation_data_there_is_nothing_to_judge_by(http: httpx.Client, user: User, lab: Lab, database: Database) -> None:
    base = lab.spec(dataset={"id": lab.dataset, "validation": 0})
    answer = http.post("/v1/sweeps", json={"base": base, "space": GRID})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/base/dataset/validation"]
    assert "test data" in answer.json()["detail"]

    body = {"name": "d", "upload": upload(http, b"npz", "dataset"), "format": "npz"}
    split = http.post("/v1/datasets", json=body).json()
    report = digits().model_dump(mode="json")
    report["counts"]["validation"], report["per_class"]["validation"] = 50, [5] * 10
    inspected(database, user, split, report=report)
    base = lab.spec(dataset={"id": split["id"], "validation": 0})
    assert http.post("/v1/sweeps", json={"base": base, "space": GRID}).status_code == 201


def test_a_sweep_reads_as_it_was_asked_for_with_its_defaults(http: httpx.Client, lab: Lab) -> None:
    sweep = start(http, lab, strategy="tpe", metadata={"for": "me"})
    assert http.get(f"/v1/sweeps/{sweep['id']}").headers["Retry-After"] == "2"
    assert (sweep["object"], sweep["status"], sweep["metadata"], sweep["best"]) == ("sweep", "running", {"for": "me"}, None)
    asked = sweep["request"]
    assert (asked["max_jobs"], asked["max_parallel"], asked["seeds"]) == (24, 4, 3)
    assert asked["pruner"]["name"] == "median"
    assert asked["base"]["recipe"]["epochs"] == 2
    assert sweep["progress"]["of"] == 4  # points: none is tried twice
    assert start(http, lab, strategy="tpe", space={"recipe.optimizer.lr": {"log": [0.1, 1]}})["progress"]["of"] == 24
    assert start(http, lab, strategy="random")["request"]["pruner"] is None
    assert start(http, lab, strategy="tpe", pruner=None)["request"]["pruner"] is None


def test_sweeps_are_listed_page_by_page_the_newest_first(http: httpx.Client, lab: Lab) -> None:
    ids = [start(http, lab, name=str(n))["id"] for n in range(3)]
    first = http.get("/v1/sweeps", params={"limit": 2}).json()
    assert [each["id"] for each in first["data"]] == ids[:0:-1]
    assert first["has_more"]
    second = http.get("/v1/sweeps", params={"limit": 2, "after": first["next_cursor"]}).json()
    assert ([each["id"] for each in second["data"]], second["has_more"]) == (ids[:1], False)


def test_the_same_request_with_one_key_is_one_sweep_and_another_one_is_refused(http: httpx.Client, lab: Lab) -> None:
    body = {"base": lab.spec(), "space": GRID}
    headers = {"Idempotency-Key": "mine"}
    once, twice = (http.post("/v1/sweeps", json=body, headers=headers) for _ in range(2))
    assert (once.status_code, twice.status_code) == (201, 201)
    assert once.json()["id"] == twice.json()["id"]
    assert len(http.get("/v1/sweeps").json()["data"]) == 1
    for path, other in (("/v1/sweeps", {**body, "seed": 1}), ("/v1/jobs", lab.spec())):
        reused = http.post(path, json=other, headers=headers)
        assert (reused.status_code, reused.json()["code"]) == (422, "key_reused")


def test_a_tenant_has_only_so_many_sweeps_at_once(http: httpx.Client, lab: Lab) -> None:
    for _ in range(16):
        start(http, lab)
    many = http.post("/v1/sweeps", json={"base": lab.spec(), "space": GRID})
    assert (many.status_code, many.json()["code"], many.headers["Retry-After"]) == (429, "too_many_sweeps", "30")


def test_what_is_not_there_is_404(http: httpx.Client) -> None:
    for method, path in (("GET", "swp_0"), ("GET", "swp_0/jobs"), ("POST", "swp_0/cancel")):
        answer = http.request(method, f"/v1/sweeps/{path}")
        assert (answer.status_code, answer.json()["detail"]) == (404, "there is no sweep swp_0")


def test_another_tenants_assets_cannot_be_searched_over(users: Callable[[str], User], database: Database) -> None:
    ada, eve = users("ada"), users("eve")
    theirs, own = equip(database, ada), equip(database, eve)
    answer = eve.http.post("/v1/sweeps", json={"base": {**own.spec(), "teacher": theirs.teacher}, "space": GRID})
    assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [("/base/teacher", "not_found")]
