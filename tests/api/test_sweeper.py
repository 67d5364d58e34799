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
from tests.api.lab import Lab, Server, User
from tests.api.player import paths_of, phase, evaluated, play, playing, take

GRID = {"methods.0.temperature": {"choice": [1, 4]}, "recipe.optimizer.lr": {"choice": [0.01, 0.1]}}


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    quick = {**QUICK, "sweep_seconds": 0.05}
    return Settings(database_url=database_url, broker_url=f"filesystem://{tmp_path / 'broker'}", data=tmp_path / "data", **quick)


def best_at_four(spec: dict[str, Any]) -> list[float]:
    """A temperature of 4 and a rate of 0.1 are best; the seed moves the third decimal."""
    temperature, lr = paths_of(spec)
    return [0.1, 0.2 * (temperature == 4) + 0.6 * (lr == 0.1) + spec["seed"] / 1000]


def start(http: httpx.Client, lab: Lab, **more: Any) -> dict[str, Any]:
    body = {"name": "warm", "base": lab.spec(), "space": GRID, "strategy": "grid", **more}
    answer = http.post("/v1/sweeps", json=body)
    assert answer.status_code == 201, answer.text
    sweep: dict[str, Any] = answer.json()
    return sweep


def until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return answer


def ended(http: httpx.Client, id: str) -> dict[str, Any]:
    def over() -> dict[str, Any] | None:
        sweep: dict[str, Any] = http.get(f"/v1/sweeps/{id}").json()
        return sweep if sweep["is_terminal"] else None

    found: dict[str, Any] = until(over)
    return found


def trials(http: httpx.Client, id: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = http.get(f"/v1/sweeps/{id}/jobs").raise_for_status().json()["data"]
    return listed


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
