"""A sweep does not depend on the process that moves it on: stopped at any moment, or done by several at once, it is the same sweep."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.settings import Settings
from db.session import Database
from tests.api.conftest import QUICK
from tests.api.lab import Lab, Server
from tests.api.player import best_at_four, ended, paths_of, play, playing, start, take, trials, until

SPACE = {
    "methods.0.temperature": {"uniform": [1, 8]},
    "recipe.optimizer.lr": {"log": [0.001, 1]},
    "recipe.batch_size": {"int": [10, 60], "step": 10},
    "recipe.schedule": {"choice": [{"name": "constant"}, {"name": "cosine"}]},
}


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """A service that answers requests and leaves every sweep to the others."""
    slow = {**QUICK, "sweep_seconds": 3600}
    return Settings(database_url=database_url, broker_url=f"filesystem://{tmp_path / 'broker'}", data=tmp_path / "data", **slow)


@pytest.fixture
def moving(settings: Settings) -> Settings:
    """One that moves sweeps on."""
    return settings.model_copy(update={"sweep_seconds": 0.05})


def judge(spec: dict[str, Any]) -> list[float]:
    """Best at a temperature of 3 and a rate of 0.1."""
    temperature, lr = paths_of(spec)
    return [1 / (1 + abs(temperature - 3) + abs(lr - 0.1))]


@pytest.mark.parametrize("strategy", ["random", "tpe"])
def test_a_search_that_is_stopped_and_started_at_every_trial_tries_what_one_in_one_piece_tries(
    strategy: str, moving: Settings, http: httpx.Client, lab: Lab, database: Database
) -> None:
    asked = {"space": SPACE, "strategy": strategy, "max_jobs": 13, "max_parallel": 1, "seeds": 1, "seed": 7}
    whole = start(http, lab, **asked)["id"]
    server = Server(moving)
    with playing(database, judge):
        ended(http, whole)
    server.close()
    expected = [each["params"] for each in trials(http, whole)]
    assert len({str(each) for each in expected[:13]}) == 13

    parts = start(http, lab, **asked)["id"]
    for number in range(14):  # a service lives from one trial to the next, and the job itself runs while there is none
        server = Server(moving)
        until(lambda number=number: len(trials(http, parts)) > number)  # type: ignore[misc]
        server.close()
        claim = take(database)
        assert claim is not None
        play(database, claim, judge)
    server = Server(moving)
    ended(http, parts)
    server.close()
    assert [each["params"] for each in trials(http, parts)] == expected
    results = [http.get(f"/v1/sweeps/{id}").json()["result"] for id in (whole, parts)]
    assert results[0]["importances"] == results[1]["importances"]
    assert results[0]["best"]["params"] == results[1]["best"]["params"]


def test_another_seed_is_another_search(moving: Settings, http: httpx.Client, lab: Lab, serve: Callable[[Settings], str]) -> None:
    serve(moving)
    first, second = (start(http, lab, space=SPACE, strategy="random", max_parallel=1, seed=seed)["id"] for seed in (1, 2))
    both = until(lambda: (trials(http, first) and trials(http, second)) and [trials(http, id)[0]["params"] for id in (first, second)])
    assert both[0] != both[1]


def test_several_services_at_once_make_each_trial_once(
    moving: Settings, http: httpx.Client, lab: Lab, database: Database, serve: Callable[[Settings], str]
) -> None:
    asked = {"space": {"recipe.optimizer.lr": {"log": [0.01, 1]}}, "strategy": "random", "max_jobs": 30, "max_parallel": 3, "seeds": 2}
    id = start(http, lab, **asked)["id"]
    for _ in range(3):
        serve(moving)
    most = 0
    with playing(database, best_at_four):
        while not http.get(f"/v1/sweeps/{id}").json()["is_terminal"]:
            most = max(most, sum(each["status"] in ("queued", "running") for each in trials(http, id)))
    listed = trials(http, id)
    assert http.get(f"/v1/sweeps/{id}").json()["status"] == "succeeded"
    assert [each["trial"] for each in listed] == list(range(32))
    assert len({each["job"] for each in listed}) == 32
    assert len(http.get("/v1/jobs", params={"limit": 100}).json()["data"]) == 32
    assert 1 <= most <= 3
