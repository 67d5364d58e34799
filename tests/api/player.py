"""A worker that trains nothing: it takes the jobs of sweeps and tells of each what a test says it measured."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from db import life
from db.life import Claim
from db.session import Database
from tests.api.lab import Lab

Judge = Callable[[dict[str, Any]], Sequence[float | None] | str]
"""From a job's spec to its validation accuracy after each epoch, or the code that it fails with."""
TEST = 0.5
"""The test accuracy of every job: had a sweep looked at it, all trials would be equal."""


def evaluated(
    epoch: int, value: float | None, *, fit: int = 0, split: str = "validation", figure: str = "accuracy"
) -> tuple[str, dict[str, Any]]:
    """A measurement as a supervisor records it."""
    return "evaluated", {
        "fit": fit,
        "epoch": epoch,
        "done": epoch + 1,
        "split": split,
        "values": {figure: value, **({"loss": 1.0} if figure == "accuracy" else {})},
        "curves": {},
    }


def phase(name: str, *, fit: int = 0) -> tuple[str, dict[str, Any]]:
    """The begin of a phase as a supervisor records it."""
    return "phase", {"phase": name, "fit": fit, "of": 2}


def take(database: Database) -> Claim | None:
    """The next job of anybody."""
    return life.claim(database, worker="wrk_play", queues=["cpu"], lease=60)


def play(database: Database, claim: Claim, judge: Judge, figure: str = "accuracy") -> None:
    """A whole life of a job; `figure` is what its measurements are of."""
    measured = judge(claim.job.spec)
    if isinstance(measured, str):
        problem = {"where": "", "reason": "it went wrong", "hint": "", "code": measured}
        life.fail(database, claim, code=measured, problem=problem)  # type: ignore[arg-type]
        return
    validated = (evaluated(epoch, value, figure=figure) for epoch, value in enumerate(measured))
    events = [phase("train"), *validated, evaluated(9, TEST, split="test", figure=figure)]
    assert life.record(database, claim, events)
    if not life.complete(database, claim, result={"test": {figure: TEST, "n": 100}}):
        life.yield_(database, claim)


@contextmanager
def playing(database: Database, judge: Judge, figure: str = "accuracy") -> Iterator[None]:
    """A worker that plays every job as it comes."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            claim = take(database)
            if claim:
                play(database, claim, judge, figure)
            else:
                stop.wait(0.02)

    thread = threading.Thread(target=run, name="player")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def paths_of(spec: dict[str, Any]) -> tuple[float, float]:
    """What the sweeps of these tests vary: temperature and learning rate."""
    return spec["methods"][0]["temperature"], spec["recipe"]["optimizer"]["lr"]


GRID = {"methods.0.temperature": {"choice": [1, 4]}, "recipe.optimizer.lr": {"choice": [0.01, 0.1]}}


def best_at_four(spec: dict[str, Any]) -> list[float]:
    """A temperature of 4 and a rate of 0.1 are best; the seed moves the third decimal."""
    temperature, lr = paths_of(spec)
    return [0.1, 0.2 * (temperature == 4) + 0.6 * (lr == 0.1) + spec["seed"] / 1000]


def start(http: httpx.Client, lab: Lab, **more: Any) -> dict[str, Any]:
    """A sweep over the grid, or what is asked for."""
    body = {"name": "warm", "base": lab.spec(), "space": GRID, "strategy": "grid", **more}
    answer = http.post("/v1/sweeps", json=body)
    assert answer.status_code == 201, answer.text
    sweep: dict[str, Any] = answer.json()
    return sweep


def until(what: Callable[[], Any]) -> Any:
    """The first answer that is true."""
    deadline = time.monotonic() + 60
    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return answer


def ended(http: httpx.Client, id: str) -> dict[str, Any]:
    """The sweep once it has ended."""

    def over() -> dict[str, Any] | None:
        sweep: dict[str, Any] = http.get(f"/v1/sweeps/{id}").json()
        return sweep if sweep["is_terminal"] else None

    found: dict[str, Any] = until(over)
    return found


def trials(http: httpx.Client, id: str) -> list[dict[str, Any]]:
    """The trials of a sweep, the re-runs last."""
    listed: list[dict[str, Any]] = http.get(f"/v1/sweeps/{id}/jobs").raise_for_status().json()["data"]
    return listed
