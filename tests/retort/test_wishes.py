"""What the command and the client send to change a job, or to make a new one of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from retort.cli import run
from retort.client import Client
from tests.retort.stage import Answer, script, stage

SPEC = {"seed": 0, "methods": [{"name": "kd", "temperature": 4}, {"name": "at"}], "recipe": {"epochs": 9, "batch_size": 50}}
JOB = {"id": "job_1", "name": "", "status": "cancelled", "phase": None, "is_terminal": True, "created_at": "", "spec": SPEC}


def _sent(words: list[str]) -> tuple[str, Any]:
    """The address and the body of the one POST that a call makes."""
    with stage(script(Answer(200, json.dumps(JOB).encode()))) as service:
        assert run([*words, "--url", service.url, "--key", "k"]) == 0
    (asked,) = [request for request in service.requests if request.method == "POST"]
    assert asked.headers["idempotency-key"]
    return asked.path, json.loads(asked.body)


@pytest.mark.parametrize(
    ("flags", "mode", "keep"),
    [
        ([], "now", "checkpoint"),
        (["--graceful"], "graceful", "checkpoint"),
        (["--keep-nothing"], "now", "nothing"),
        (["--graceful", "--keep-nothing"], "graceful", "nothing"),
    ],
)
def test_cancel_says_how(flags: list[str], mode: str, keep: str) -> None:
    assert _sent(["cancel", "job_1", *flags]) == ("/v1/jobs/job_1/cancel", {"mode": mode, "keep": keep})


def test_retry_says_where_to_begin() -> None:
    assert _sent(["retry", "job_1"]) == ("/v1/jobs/job_1/retry", {"from": "checkpoint"})
    assert _sent(["retry", "job_1", "--from-start"]) == ("/v1/jobs/job_1/retry", {"from": "start"})


def test_clone_sends_overrides_from_a_file_and_from_flags(tmp_path: Path) -> None:
    file = tmp_path / "overrides.yaml"
    file.write_text("recipe: {epochs: 2, batch_size: null}\n")
    for flags, overrides in (
        ([], {}),
        (["-s", "seed=3", "-s", "name=hot"], {"seed": 3, "name": "hot"}),
        (["--set", "methods.0.temperature=8"], {"methods": [{"name": "kd", "temperature": 8}, {"name": "at"}]}),
        (["-f", str(file)], {"recipe": {"epochs": 2, "batch_size": None}}),
        (["-f", str(file), "-s", "recipe.epochs=3"], {"recipe": {"epochs": 3, "batch_size": None}}),
        (["-s", "recipe.epochs=null"], {"recipe": {"epochs": None, "batch_size": 50}}),
    ):
        assert _sent(["clone", "job_1", *flags]) == ("/v1/jobs/job_1/clone", {"overrides": overrides})


def test_a_clone_cannot_set_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with stage(script(Answer(200, json.dumps(JOB).encode()))) as service:
        assert run(["clone", "job_1", "-s", "methods.2.temperature=8", "--url", service.url, "--key", "k"]) == 2
    assert "methods.2.temperature" in capsys.readouterr().err
    assert {request.method for request in service.requests} == {"GET"}


def test_the_client_asks_for_the_last_lines_of_each_attempt() -> None:
    answers = script(Answer(200, json.dumps(JOB).encode()), Answer(200, json.dumps({"data": [{"fence": 1, "lines": ["bye"]}]}).encode()))
    with stage(answers) as service:
        (attempt,) = Client(service.url, key="k").jobs.get("job_1").attempts(lines=5)
    assert attempt["lines"] == ["bye"]
    assert service.requests[-1].path == "/v1/jobs/job_1/attempts?lines=5"
