"""A dataset without labels as a user meets it: jobs, plans, baselines and sweeps of a transfer set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.settings import Settings
from db.session import Database
from tests.api.conftest import QUICK
from tests.api.lab import ONE_DATABASE, Lab, User, digits, inspected, upload
from tests.api.player import GRID, best_at_four, ended, playing, start

TAUGHT: dict[str, Any] = {"epochs": 2, "batch_size": 50, "task_weight": 0}


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    quick = {**QUICK, "sweep_seconds": 0.05}
    return Settings(database_url=database_url, broker_url=f"filesystem://{tmp_path / 'broker'}", data=tmp_path / "data", **quick)


@pytest.fixture
def asked(http: httpx.Client, user: User, lab: Lab, database: Database) -> Callable[..., dict[str, Any]]:
    """A job on digits that nobody labelled, with whatever else is asked for."""
    body = {"name": "u", "upload": upload(http, b"npz", "dataset"), "format": "npz"}
    made = http.post("/v1/datasets", json=body).raise_for_status().json()
    nothing = {"classes": 0, "class_names": (), "per_class": {"train": (), "test": ()}, "labelled": False}
    inspected(database, user, made, report=digits().model_copy(update=nothing).model_dump(mode="json"))
    return lambda **more: lab.spec(**{"dataset": {"id": made["id"]}, "recipe": TAUGHT, **more})


def test_a_job_of_kd_alone_is_taken_and_its_student_has_the_teachers_classes(
    http: httpx.Client, asked: Callable[..., dict[str, Any]]
) -> None:
    answer = http.post("/v1/jobs", json=asked())
    assert answer.status_code == 201, answer.text
    told = http.post("/v1/jobs", params={"dry_run": True}, json=asked()).raise_for_status().json()
    assert [(fit["terms"], fit["rows"]) for fit in told["plan"]["fits"]] == [(["kd", "task"], 450)]  # a tenth of 500 is set aside
    assert told["teacher"] == {"reason": "the dataset has no labels to score it by"}


@ONE_DATABASE
@pytest.mark.parametrize(
    ("change", "pointer", "words"),
    [
        ({"recipe": {**TAUGHT, "task_weight": 1}}, "/recipe/task_weight", "no labels"),
        ({"teacher": None, "methods": []}, "/teacher", "nothing to learn from"),
        ({"methods": [{"name": "kd"}, {"name": "bss"}]}, "/methods/1", "'bss' reads labels"),
        ({"evaluate": ["boundary"]}, "/evaluate/0", "boundary counts right answers"),
    ],
)
def test_what_needs_labels_is_refused_by_its_field(
    http: httpx.Client, asked: Callable[..., dict[str, Any]], change: dict[str, Any], pointer: str, words: str
) -> None:
    answer = http.post("/v1/jobs", json=asked(**change))
    assert answer.status_code == 422, answer.text
    found = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
    assert words in found[pointer], found


@ONE_DATABASE
def test_it_has_no_baseline_because_nothing_is_learnt_without_the_teacher(http: httpx.Client, asked: Callable[..., dict[str, Any]]) -> None:
    job = http.post("/v1/jobs", json=asked()).raise_for_status().json()
    answer = http.post(f"/v1/jobs/{job['id']}/baseline")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_applicable")
    assert "nothing to learn from" in answer.json()["detail"]
    assert len(http.get("/v1/jobs").json()["data"]) == 1


@ONE_DATABASE
@pytest.mark.parametrize("metric", ["validation_accuracy", "validation_loss"])
def test_a_sweep_that_would_judge_by_labels_is_refused_with_what_to_judge_by(
    http: httpx.Client, asked: Callable[..., dict[str, Any]], metric: str
) -> None:
    answer = http.post("/v1/sweeps", json={"base": asked(), "space": GRID, "objective": {"metric": metric}})
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/objective/metric"]
    assert "validation_agreement" in answer.json()["hint"]


@ONE_DATABASE
def test_a_sweep_over_labelled_data_is_not_judged_by_agreement(http: httpx.Client, lab: Lab) -> None:
    answer = http.post("/v1/sweeps", json={"base": lab.spec(), "space": GRID, "objective": {"metric": "validation_agreement"}})
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/objective/metric"]


@ONE_DATABASE
def test_a_sweep_finds_the_student_that_agrees_most(
    http: httpx.Client, lab: Lab, database: Database, asked: Callable[..., dict[str, Any]]
) -> None:
    id = start(http, lab, base=asked(), objective={"metric": "validation_agreement"}, seeds=1)["id"]
    with playing(database, best_at_four, "agreement"):
        sweep = ended(http, id)
    assert sweep["status"] == "succeeded", sweep
    assert sweep["result"]["best"]["params"] == {"methods.0.temperature": 4.0, "recipe.optimizer.lr": 0.1}
    again = sweep["result"]["reruns"]
    assert again["values"] == pytest.approx([0.801])
    assert again["test_agreement"]["values"] == [0.5]
    assert "test_accuracy" not in again
