import json
from collections.abc import Callable
from pathlib import Path

import pytest

from retort.cli import run
from tests.retort.stage import Answer, Request, script, stage

NOBODY = "http://127.0.0.1:1"
JOB = {"id": "job_1", "name": "small", "status": "running", "phase": "train", "is_terminal": False, "created_at": "2026-01-01T00:00:00Z"}


def test_nothing_listening_ends_with_3_and_says_what_to_try(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retort.connection.time.sleep", lambda seconds: None)
    assert run(["ls", "--url", NOBODY, "--key", "k"]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert NOBODY in told.err
    assert "retort up" in told.err
    assert "Traceback" not in told.err


def test_a_refusal_ends_with_1_and_is_json_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"detail": "there is no job job_9", "code": "not_found", "fault": "user"}
    with stage(script(Answer(404, json.dumps(problem).encode()))) as service:
        assert run(["get", "job_9", "--json", "--url", service.url, "--key", "k"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["error"]["code"] == "not_found"
    assert "there is no job job_9" in told.err


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["get"],
        ["ls", "--nonsense"],
        ["ls", "cats"],
        ["submit", "--epochs", "0"],
        ["submit"],
        ["submit", "-f", "nowhere.yaml"],
        ["submit", "--student", "arc_1", "--method", "kd:4"],
        ["submit", "--student", "arc_1", "--dry-run", "--watch"],
        ["upload", "teacher", "nowhere", "--architecture", "{}"],
        ["upload", "teacher", "nowhere", "--architecture", "{}", "--mean", "0.5"],
        ["upload", "teacher", "nowhere", "--architecture", "{}", "--mean", "a", "--std", "1"],
        ["upload", "architecture", "{"],
        ["upload", "dataset", "digits.tar"],
        ["upload", "dataset", "digits.zip", "--size", "32"],
        ["up", "--device", "tpu"],
        ["up", "--port", "70000"],
    ],
)
def test_wrong_use_ends_with_2_before_anything_is_sent(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    where = [] if words[0] in ("up", "nonsense") else ["--url", NOBODY, "--key", "k"]
    assert run([*words, *where]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err
    assert "Traceback" not in told.err


def test_every_command_takes_json_and_names_the_service_alike(capsys: pytest.CaptureFixture[str]) -> None:
    commands = ["submit", "ls", "get", "watch", "logs", "download", "cancel", "pause", "resume", "release", "retry", "methods", "presets"]
    for words in [*([each] for each in commands), ["key", "make"], ["upload", "dataset"]]:
        assert run([*words, "--help"]) == 0
        told = capsys.readouterr().out
        assert all(option in told for option in ("--json", "--url", "--key", "--data")), words


def watched(statuses: list[str]) -> Callable[[Request], Answer]:
    left = list(statuses)

    def play(request: Request) -> Answer:
        status = left.pop(0) if len(left) > 1 else left[0]
        job = {**JOB, "status": status, "is_terminal": status in ("succeeded", "failed", "cancelled")}
        if status == "succeeded":
            job["result"] = {"test": {"accuracy": 0.915, "n": 600}}
        if status == "failed":
            job["problem"] = {
                "code": "diverged",
                "fault": "user",
                "where": "/recipe",
                "reason": "the loss is not finite",
                "hint": "a lower lr",
                "lines": ["nan"],
            }
        return Answer(200, json.dumps(job).encode())

    return play


def test_watching_ends_with_0_when_the_job_succeeded(capsys: pytest.CaptureFixture[str]) -> None:
    with stage(watched(["queued", "running", "succeeded"])) as service:
        assert run(["watch", "job_1", "--url", service.url, "--key", "k"]) == 0
    told = capsys.readouterr()
    assert "succeeded, test accuracy 0.9150" in told.out
    assert "small: queued" in told.err


def test_watching_ends_with_1_when_the_job_failed_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    with stage(watched(["running", "failed"])) as service:
        assert run(["watch", "job_1", "--url", service.url, "--key", "k"]) == 1
        told = capsys.readouterr().out
        assert all(word in told for word in ("the loss is not finite", "/recipe", "diverged", "yours", "a lower lr", "nan"))
        assert run(["watch", "job_1", "--json", "--url", service.url, "--key", "k"]) == 1
    assert json.loads(capsys.readouterr().out)["problem"]["code"] == "diverged"


@pytest.mark.parametrize("status", ["paused", "quarantined"])
def test_watching_does_not_wait_for_what_only_a_person_can_move(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    with stage(watched([status])) as service:
        assert run(["watch", "job_1", "--url", service.url, "--key", "k"]) == 1
    assert {"paused": "retort resume job_1", "quarantined": "retort release job_1"}[status] in capsys.readouterr().out


def test_ctrl_c_while_watching_detaches_and_touches_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("retort.watch.time.sleep", interrupt)
    with stage(watched(["running"])) as service:
        assert run(["watch", "job_1", "--url", service.url, "--key", "k"]) == 130
    assert "retort watch job_1" in capsys.readouterr().err
    assert {request.method for request in service.requests} == {"GET"}


def test_the_key_is_never_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retort.connection.time.sleep", lambda seconds: None)
    run(["ls", "--url", NOBODY, "--key", "rt_secret", "--json"])
    told = capsys.readouterr()
    assert "rt_secret" not in told.out + told.err
