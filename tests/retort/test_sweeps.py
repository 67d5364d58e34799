"""Sweeps through the client and the command, against a staged service."""

import json
from pathlib import Path
from typing import Any

import pytest

from retort.cli import run
from retort.client import Client
from retort.errors import TookTooLong
from tests.retort.stage import Answer, Request, script, stage

SPACE = {"methods.0.temperature": {"choice": [1, 4]}, "recipe.optimizer.lr": {"log": [0.01, 1]}}
PROGRESS = {"of": 3, "made": 3, "unfinished": 1, "completed": 1, "pruned": 0, "failed": 1, "cancelled": 0, "reruns": 0}
BEST = {"trial": 0, "job": "job_0", "params": {"methods.0.temperature": 4.0, "recipe.optimizer.lr": 0.123456}, "value": 0.912345}
RUNNING: dict[str, Any] = {
    "id": "swp_1", "name": "warm", "status": "running", "is_terminal": False, "problem": None, "result": None, "best": None,
    "progress": PROGRESS, "created_at": "2026-01-01T00:00:00Z",
    "request": {"space": SPACE, "strategy": "tpe", "objective": {"metric": "validation_accuracy", "goal": None}},
}  # fmt: skip
SPREAD = {"n": 2, "mean": 0.9, "sd": 0.014142, "values": [0.89, 0.91]}
ENDED: dict[str, Any] = {
    **RUNNING, "status": "succeeded", "is_terminal": True, "best": BEST,
    "progress": {**PROGRESS, "unfinished": 0, "completed": 2, "reruns": 2},
    "result": {
        "best": BEST,
        "reruns": {**SPREAD, "seeds": [1, 2], "jobs": ["job_3", "job_4"], "test_accuracy": {**SPREAD, "mean": 0.85}},
        "importances": {"methods.0.temperature": 0.25, "recipe.optimizer.lr": 0.75},
        "importances_reason": None,
    },
}  # fmt: skip
TRIAL = {
    "trial": 0, "role": "trial", "job": "job_0", "status": "succeeded", "outcome": "completed", "seed": 0, "value": 0.912345,
    "problem": None,
}  # fmt: skip
TRIALS = [
    {**TRIAL, "params": BEST["params"]},
    {
        **TRIAL, "trial": 1, "params": {"methods.0.temperature": 1.0, "recipe.optimizer.lr": 0.5}, "job": None, "status": None,
        "outcome": "failed", "seed": None, "value": None, "problem": {"reason": "a step is larger than the training set"},
    },
    {**TRIAL, "trial": 2, "role": "rerun", "seed": 1, "job": "job_3", "value": 0.89, "params": BEST["params"]},
]  # fmt: skip


def answering(*sweeps: dict[str, Any]) -> Any:
    """The sweep as it goes on from one look to the next, and its trials."""
    turns = script(*(Answer(200, json.dumps(each).encode()) for each in sweeps))
    trials = Answer(200, json.dumps({"data": TRIALS}).encode())
    return lambda request: trials if request.path.endswith("/jobs") else turns(request)


def test_a_sweep_is_started_waited_for_and_read(tmp_path: Path) -> None:
    with stage(answering(RUNNING, RUNNING, ENDED)) as service, Client(service.url, key="k") as client:
        sweep = client.sweeps.create({"space": SPACE})
        assert (sweep.id, sweep.status, sweep.best) == ("swp_1", "running", {})
        sweep = sweep.wait(interval=0.01)
        assert sweep.best["value"] == 0.912345
        assert sweep.result["importances"]["recipe.optimizer.lr"] == 0.75
        assert [each["outcome"] for each in sweep.trials()] == ["completed", "failed", "completed"]
        sweep.cancel()
    asked = [(each.method, each.path) for each in service.requests]
    assert asked[0] == ("POST", "/v1/sweeps")
    assert asked[-2:] == [("GET", "/v1/sweeps/swp_1/jobs"), ("POST", "/v1/sweeps/swp_1/cancel")]
    assert "idempotency-key" in {name.lower() for name in service.requests[0].headers}


def test_a_wait_that_takes_too_long_touches_nothing() -> None:
    with stage(answering(RUNNING)) as service, Client(service.url, key="k") as client:
        with pytest.raises(TookTooLong, match="swp_1 still runs"):
            client.sweeps.get("swp_1").wait(timeout=0.05, interval=0.01)
        assert {each.method for each in service.requests} == {"GET"}


def test_a_watched_sweep_ends_with_its_best_trial_its_reruns_and_what_mattered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweep.yaml").write_text("base: {}\nspace: {recipe.optimizer.lr: {log: [1e-2, 1]}}\n")
    with stage(answering({**RUNNING, "warnings": ["two methods"]}, ENDED)) as service:
        assert run(["sweep", str(tmp_path / "sweep.yaml"), "--watch", "--url", service.url, "--key", "k"]) == 0
        sent = json.loads(service.requests[0].body)
    assert sent["space"] == {"recipe.optimizer.lr": {"log": [0.01, 1]}}
    told = capsys.readouterr()
    assert "warning: two methods" in told.err
    assert "warm: running  3 of 3 trials, 1 completed, 1 failed, 1 unfinished" in told.err
    lines = [line.split(maxsplit=1)[1].strip() for line in told.out.splitlines() if " " in line.strip()]
    assert "trial 0: methods.0.temperature = 4, recipe.optimizer.lr = 0.1235, 0.9123 (job_0)" in lines
    assert "0.9000 ± 0.0141 (n = 2), seeds 1, 2" in told.out
    assert "recipe.optimizer.lr 0.75, methods.0.temperature 0.25 (an estimate, from 2 trials)" in lines
    assert "none: a step is larger than the training set" in told.out


def test_a_choice_is_shown_as_it_may_be_written_into_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    tried = {"methods.0.temperature": [{"name": "kd", "on": True}], "recipe.optimizer.lr": None}
    ended = {**ENDED, "best": {**BEST, "params": tried}, "progress": {**ENDED["progress"], "reruns": 1}}
    with stage(answering(ended)) as service:
        assert run(["get", "swp_1", "--url", service.url, "--key", "k"]) == 0
    told = capsys.readouterr().out
    assert 'methods.0.temperature = [{"name": "kd", "on": true}], recipe.optimizer.lr = null' in told
    assert "1 re-run of the best" in told


def test_a_sweep_that_failed_ends_with_1_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"where": "", "reason": "none of 3 trials completed", "hint": "narrow the space", "code": "no_trial_completed"}
    with stage(answering({**ENDED, "status": "failed", "best": None, "result": None, "problem": problem})) as service:
        assert run(["watch", "swp_1", "--url", service.url, "--key", "k"]) == 1
        assert run(["get", "swp_1", "--url", service.url, "--key", "k"]) == 0
        told = capsys.readouterr().out
        assert told.count("none of 3 trials completed") == 2
        assert "narrow the space" in told
        assert run(["get", "swp_1", "--json", "--url", service.url, "--key", "k"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["problem"], document["trials"]) == (problem, TRIALS)


def test_sweeps_are_listed_and_cancelled_by_the_commands_of_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(request: Request) -> Answer:
        listed = {"data": [ENDED], "has_more": False} if request.path.startswith("/v1/sweeps?") else {**RUNNING, "status": "cancelled"}
        return Answer(200, json.dumps(listed).encode())

    with stage(answer) as service:
        assert run(["ls", "sweeps", "--url", service.url, "--key", "k"]) == 0
        assert "swp_1 warm succeeded 0.9123" in " ".join(capsys.readouterr().out.split())
        assert run(["cancel", "swp_1", "--url", service.url, "--key", "k"]) == 0
    assert "swp_1: cancelled" in capsys.readouterr().out
    assert [each.path for each in service.requests if each.method == "POST"] == ["/v1/sweeps/swp_1/cancel"]
