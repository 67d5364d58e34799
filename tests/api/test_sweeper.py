"""Sweeps from the first trial to the result, over a server and a worker that trains nothing."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.settings import Settings
from db import life
from db.session import Database
from tests.api.conftest import QUICK
from tests.api.lab import Lab, User
from tests.api.player import best_at_four, ended, evaluated, phase, play, playing, start, take, trials, until


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    quick = {**QUICK, "sweep_seconds": 0.05}
    return Settings(database_url=database_url, broker_url=f"filesystem://{tmp_path / 'broker'}", data=tmp_path / "data", **quick)


@pytest.fixture
def another(settings: Settings, user: User, serve: Callable[[Settings], str]) -> Iterator[httpx.Client]:
    """The user's client of a second service on the same database, which remembers nothing of the first."""
    with httpx.Client(base_url=serve(settings), headers=user.headers, trust_env=False) as client:
        yield client


def test_a_grid_tries_every_point_and_runs_the_best_again_with_fresh_seeds(http: httpx.Client, lab: Lab, database: Database) -> None:
    id = start(http, lab, seeds=2)["id"]
    with playing(database, best_at_four):
        sweep = ended(http, id)
    assert sweep["status"] == "succeeded", sweep
    assert sweep["progress"] == {
        "of": 4, "made": 4, "unfinished": 0, "completed": 4, "pruned": 0, "failed": 0, "cancelled": 0, "reruns": 2,
    }  # fmt: skip
    result = sweep["result"]
    assert result["best"]["params"] == {"methods.0.temperature": 4.0, "recipe.optimizer.lr": 0.1}
    assert result["best"]["value"] == pytest.approx(0.8)
    again = result["reruns"]
    assert again["seeds"] == [1, 2]
    assert again["values"] == pytest.approx([0.801, 0.802])
    assert (again["n"], again["mean"], again["sd"]) == (2, pytest.approx(0.8015), pytest.approx(0.001 / 2**0.5))
    assert again["test_accuracy"]["values"] == [0.5, 0.5]
    assert sum(result["importances"].values()) == pytest.approx(1)
    listed = trials(http, id)
    assert [(each["role"], each["trial"]) for each in listed] == [("trial", n) for n in range(4)] + [("rerun", 4), ("rerun", 5)]
    assert {tuple(each["params"].values()) for each in listed[:4]} == {(1, 0.01), (1, 0.1), (4, 0.01), (4, 0.1)}
    job = http.get(f"/v1/jobs/{listed[3]['job']}").json()
    assert (job["sweep"], job["trial"], job["name"]) == (id, 3, "warm (trial 3)")


def test_no_more_trials_wait_or_run_at_one_time_than_were_allowed(http: httpx.Client, lab: Lab, database: Database) -> None:
    id = start(http, lab, max_parallel=2)["id"]
    until(lambda: len(trials(http, id)) == 2)
    claims = [take(database), take(database)]
    time.sleep(0.3)  # six looks
    assert [each["status"] for each in trials(http, id)] == ["running", "running"]
    assert take(database) is None
    for claim in claims:
        assert claim is not None
        play(database, claim, best_at_four)
    until(lambda: len(trials(http, id)) == 4)


def test_a_failed_trial_and_a_refused_one_do_not_fail_the_sweep(http: httpx.Client, lab: Lab, database: Database) -> None:
    space = {"recipe.batch_size": {"choice": [50, 4000]}, "recipe.optimizer.lr": {"choice": [0.01, 0.1]}}
    id = start(http, lab, space=space, seeds=1)["id"]

    def judge(spec: dict[str, Any]) -> list[float] | str:
        return "diverged" if spec["recipe"]["optimizer"]["lr"] == 0.1 else [0.3]

    with playing(database, judge):
        sweep = ended(http, id)
    assert sweep["status"] == "succeeded"
    assert (sweep["progress"]["completed"], sweep["progress"]["failed"]) == (1, 3)
    assert sweep["result"]["best"]["params"] == {"recipe.batch_size": 50, "recipe.optimizer.lr": 0.01}
    assert sweep["result"]["importances"] is None
    assert "1 completed trials" in sweep["result"]["importances_reason"]
    listed = trials(http, id)
    assert listed[1]["problem"]["code"] == "diverged"
    for refused in listed[2:4]:
        assert (refused["job"], refused["status"], refused["problem"]["where"]) == (None, None, "/recipe/batch_size")


def test_a_sweep_with_no_trial_that_completed_has_failed_with_the_reason_of_the_last(
    http: httpx.Client, lab: Lab, database: Database
) -> None:
    id = start(http, lab)["id"]
    with playing(database, lambda spec: "diverged"):
        sweep = ended(http, id)
    assert (sweep["status"], sweep["result"]) == ("failed", None)
    assert sweep["problem"]["code"] == "no_trial_completed"
    assert "none of 4 trials completed; the last that failed: it went wrong" in sweep["problem"]["reason"]


def test_a_sweep_whose_first_twenty_trials_are_all_refused_tries_no_more(http: httpx.Client, lab: Lab) -> None:
    id = start(http, lab, space={"recipe.batch_size": {"int": [4000, 5000]}}, strategy="random", max_jobs=400)["id"]
    sweep = ended(http, id)
    assert sweep["status"] == "failed"
    assert sweep["progress"]["made"] == 20
    assert sweep["problem"]["where"] == "/base/recipe/batch_size"


def test_a_best_trial_whose_rerun_fails_is_not_reported(http: httpx.Client, lab: Lab, database: Database) -> None:
    id = start(http, lab, seeds=2)["id"]
    with playing(database, lambda spec: [0.1] if spec["seed"] == 0 else "diverged"):
        sweep = ended(http, id)
    assert (sweep["status"], sweep["problem"]["code"]) == ("failed", "not_confirmed")
    assert sweep["best"]["trial"] == 0


def test_the_pruner_gives_a_bad_trial_up_and_another_service_still_tells_it_from_one_that_was_cancelled(
    http: httpx.Client, user: User, lab: Lab, database: Database, another: httpx.Client
) -> None:
    pruner = {"name": "median", "startup_trials": 2}
    id = start(http, lab, pruner=pruner, seeds=1)["id"]
    claims = [until(lambda: take(database)) for _ in range(4)]
    for claim in claims[:2]:
        play(database, claim, lambda spec: [0.5, 0.6])
    life.record(database, claims[2], [phase("train"), evaluated(0, 0.1)])
    life.record(database, claims[3], [phase("train"), evaluated(0, 0.7)])
    until(lambda: life.wish(database, claims[2]) and life.wish(database, claims[2]).desired == "cancel")  # type: ignore[union-attr]
    life.cancel(database, user.tenant, claims[3].job.id)
    for claim in claims[2:]:
        assert life.yield_(database, claim) == "cancelled"
    assert [each["outcome"] for each in trials(another, id)[:4]] == ["completed", "completed", "pruned", "cancelled"]
    assert another.get(f"/v1/jobs/{claims[2].job.id}").json()["status"] == "cancelled"
    with playing(database, lambda spec: [0.5, 0.6]):
        sweep = ended(another, id)
    assert (sweep["status"], sweep["progress"]["pruned"], sweep["progress"]["cancelled"]) == ("succeeded", 1, 1)


def test_what_was_cancelled_before_the_pruner_looked_stays_cancelled(database: Database, http: httpx.Client, user: User, lab: Lab) -> None:
    id = start(http, lab, max_parallel=1)["id"]
    [trial] = until(lambda: trials(http, id))
    assert http.post(f"/v1/jobs/{trial['job']}/cancel").status_code == 200
    assert not life.prune(database, user.tenant, trial["job"])
    assert trials(http, id)[0]["outcome"] == "cancelled"


def test_a_paused_trial_holds_the_end_up_and_no_place(http: httpx.Client, lab: Lab, database: Database) -> None:
    id = start(http, lab, max_parallel=1, seeds=1)["id"]
    [trial] = until(lambda: trials(http, id))
    http.post(f"/v1/jobs/{trial['job']}/pause").raise_for_status()
    with playing(database, best_at_four):
        until(lambda: http.get(f"/v1/sweeps/{id}").json()["progress"]["completed"] == 3)
        assert http.get(f"/v1/sweeps/{id}").json()["status"] == "running"
        http.post(f"/v1/jobs/{trial['job']}/resume").raise_for_status()
        assert ended(http, id)["progress"]["completed"] == 4


def test_a_cancelled_sweep_cancels_its_jobs_and_makes_no_more(http: httpx.Client, lab: Lab, database: Database) -> None:
    id = start(http, lab, max_parallel=2)["id"]
    until(lambda: len(trials(http, id)) == 2)
    claim = take(database)
    assert claim is not None
    cancelled = http.post(f"/v1/sweeps/{id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"], cancelled.json()["is_terminal"]) == (200, "cancelled", True)
    assert {http.get(f"/v1/jobs/{each['job']}").json()["status"] for each in trials(http, id)} == {"cancelling", "cancelled"}
    assert life.yield_(database, claim) == "cancelled"
    time.sleep(0.3)  # six looks
    assert [each["outcome"] for each in trials(http, id)] == ["cancelled", "cancelled"]
    again = http.post(f"/v1/sweeps/{id}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")


def test_a_sweep_that_ended_cannot_be_cancelled(http: httpx.Client, lab: Lab, database: Database) -> None:
    id = start(http, lab, seeds=1)["id"]
    with playing(database, best_at_four):
        ended(http, id)
    refused = http.post(f"/v1/sweeps/{id}/cancel")
    assert (refused.status_code, refused.json()["current_status"], refused.json()["code"]) == (409, "succeeded", "not_applicable")
