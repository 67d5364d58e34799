"""A clone: a job of its own, with the spec of another one and some fields otherwise, planned and refused as any other."""

from typing import Any

import httpx
import pytest

from db.session import Database
from tests.api.lab import ONE_DATABASE, Lab, User, claim_of
from tests.db.given import IN_EACH_STATE

pytestmark = ONE_DATABASE


def test_a_clone_is_the_same_job_but_for_its_overrides(http: httpx.Client, submitted: dict[str, Any]) -> None:
    path = f"/v1/jobs/{submitted['id']}/clone"
    overrides = {"name": "hotter", "methods": [{"name": "kd", "temperature": 8.0}], "recipe": {"epochs": 1}, "metadata": {"of": "digits"}}
    plain, changed = http.post(path), http.post(path, json={"overrides": overrides})
    assert (plain.status_code, changed.status_code) == (201, 201), changed.text
    assert plain.json()["spec"] == submitted["spec"]
    assert changed.headers["Location"] == f"/v1/jobs/{changed.json()['id']}"
    old, new = submitted["spec"], changed.json()["spec"]
    assert new["methods"][0]["temperature"] == 8.0
    assert new["recipe"] == {**old["recipe"], "epochs": 1}
    assert (changed.json()["name"], changed.json()["metadata"]) == ("hotter", {"of": "digits"})
    alike = set(old) - set(overrides)
    assert {name: new[name] for name in alike} == {name: old[name] for name in alike}
    assert (changed.json()["parent"], changed.json()["status"]) == (None, "queued")


def test_null_removes_a_field_so_that_its_default_holds(http: httpx.Client, lab: Lab) -> None:
    old = http.post("/v1/jobs", json=lab.spec(seed=7, metadata={"a": "1", "b": "2"}, dataset={"id": lab.dataset, "validation": 0.5})).json()
    overrides = {"seed": None, "metadata": {"a": None}, "dataset": {"validation": None}}
    spec = http.post(f"/v1/jobs/{old['id']}/clone", json={"overrides": overrides}).json()["spec"]
    assert (spec["seed"], spec["metadata"], spec["dataset"]["validation"]) == (0, {"b": "2"}, 0.1)


@pytest.mark.parametrize(
    ("overrides", "pointer"),
    [
        ({"recipe": {"epochs": 0}}, "/overrides/recipe/epochs"),
        ({"recipe": {"epohcs": 3}}, "/overrides/recipe/epohcs"),
        ({"methods": [{"name": "kd", "temperature": 0}]}, "/overrides/methods/0/temperature"),
        ({"teacher": None}, "/overrides/teacher"),
        ({"dataset": {"id": "ds_0"}}, "/overrides/dataset/id"),
        ({"recipe": {"batch_size": 5000}}, "/overrides/recipe/batch_size"),
        ({"dataset": None}, "/overrides/dataset"),
        ({"recipe": {"optimizer": {"name": "adamw"}}}, "/overrides/recipe/optimizer/momentum"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_field_in_the_overrides(
    http: httpx.Client, submitted: dict[str, Any], overrides: dict[str, Any], pointer: str
) -> None:
    refused = http.post(f"/v1/jobs/{submitted['id']}/clone", json={"overrides": overrides})
    assert refused.status_code == 422, refused.text
    assert pointer in [each["pointer"] for each in refused.json()["errors"]], refused.text
    assert refused.json()["detail"].startswith("/overrides/")
    assert [job["id"] for job in http.get("/v1/jobs").json()["data"]] == [submitted["id"]]


def test_what_the_old_spec_has_too_much_is_removed_by_null(http: httpx.Client, submitted: dict[str, Any]) -> None:
    path = f"/v1/jobs/{submitted['id']}/clone"
    adamw: dict[str, Any] = {"name": "adamw"}
    refused = http.post(path, json={"overrides": {"recipe": {"optimizer": adamw}}}).json()
    assert "null" in refused["hint"]
    adamw |= {each["pointer"].rpartition("/")[2]: None for each in refused["errors"]}
    cloned = http.post(path, json={"overrides": {"recipe": {"optimizer": adamw}}})
    assert cloned.status_code == 201, cloned.text
    assert cloned.json()["spec"]["recipe"]["optimizer"]["name"] == "adamw"


def test_an_old_job_is_cloned_whatever_became_of_it_and_stays_as_it_is(
    http: httpx.Client, user: User, submitted: dict[str, Any], database: Database
) -> None:
    claim_of(database, submitted["id"])
    for state, make in IN_EACH_STATE.items():
        old = make(database, user.tenant, spec=submitted["spec"]).job
        before = http.get(f"/v1/jobs/{old.id}").json()
        cloned = http.post(f"/v1/jobs/{old.id}/clone", json={"overrides": {"seed": 1}})
        assert (state, cloned.status_code) == (state, 201), cloned.text
        assert http.get(f"/v1/jobs/{old.id}").json() == before
        for id in (old.id, cloned.json()["id"]):
            http.post(f"/v1/jobs/{id}/cancel")


def test_a_clone_of_what_is_no_distillation_is_refused(http: httpx.Client, lab: Lab) -> None:
    inspection = http.get(f"/v1/teachers/{lab.teacher}").json()["job"]
    refused = http.post(f"/v1/jobs/{inspection}/clone")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_applicable")
    assert "inspection" in refused.json()["detail"]
    assert http.post("/v1/jobs/job_0/clone").status_code == 404
