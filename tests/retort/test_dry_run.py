"""`retort submit --dry-run`: what a person reads of a job that is only planned."""

import json
from typing import Any

import pytest

from retort.cli import run
from tests.retort.stage import Answer, script, stage


def test_a_dry_run_tells_fits_epochs_and_steps(capsys: pytest.CaptureFixture[str]) -> None:
    transfer = {"phase": "transfer", "data": "job", "terms": ["fitnet"], "epochs": 20, "rows": 1180, "steps": 200}
    train = {"phase": "train", "data": "job", "terms": ["kd", "task"], "epochs": 3, "rows": 1180, "steps": 30}
    taps = {"teacher_taps": ["b2"], "student_taps": []}
    decided = {"surgeries": 0, "fits": [transfer, train], "epochs": 23, "steps": 230, **taps, "warnings": ["they never learn"]}
    with stage(script(Answer(200, json.dumps({"valid": True, "plan": decided}).encode()))) as service:
        assert run(["submit", "--student", "arc_1", "--dry-run", "--url", service.url, "--key", "k"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["transfer", "fitnet", "20", "1,180", "200"] in lines
    assert ["train", "kd,", "task", "3", "1,180", "30"] in lines
    assert ["in", "all", "23", "230"] in lines
    assert ["taps", "of", "the", "teacher:", "b2"] in lines
    assert ["warning:", "they", "never", "learn"] in lines
    assert not any("student:" in line for line in lines)


FORESEEN = {
    "valid": True,
    "plan": {
        "surgeries": 0,
        "fits": [{"phase": "train", "data": "job", "terms": ["kd", "task"], "epochs": 3, "rows": 1180, "steps": 30}],
        "epochs": 3, "steps": 30, "teacher_taps": [], "student_taps": [], "warnings": ["they never learn"],
    },
    "estimates": {
        "peak_memory_bytes": [300 << 20, 700 << 20], "seconds": [30.0, 150.0],
        "per_fit": [{"phase": "train", "epochs": 3, "steps": 30, "seconds": [24.0, 96.0]}],
        "worker": {"id": "wrk_1", "host": "here", "device": "cpu", "hardware": "a CPU, 2 threads", "threads": 2},
        "reason": None, "basis": "by hand",
    },
    "teacher": {"accuracy": 0.12, "n": 1000, "chance": 0.1, "near_chance": True},
    "warnings": [{"code": "plan", "detail": "they never learn"}, {"code": "teacher_near_chance", "detail": "it knows nothing"}],
    "queue": {"waiting": 4},
}  # fmt: skip


def dry_run(told: dict[str, Any], capsys: pytest.CaptureFixture[str], *, status: int = 200) -> tuple[int, str]:
    """The exit code of a dry run that is answered so, and what a person then reads, on one line."""
    with stage(script(Answer(status, json.dumps(told).encode()))) as service:
        code = run(["submit", "--student", "arc_1", "--dry-run", "--url", service.url, "--key", "k"])
    shown = capsys.readouterr()
    return code, " ".join((shown.out + shown.err).split())


def test_a_dry_run_tells_time_memory_the_teacher_and_every_warning(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = dry_run(FORESEEN, capsys)
    assert code == 0
    assert "0.5 to 2.5 min, from the start of its process to its end" in text
    assert "24 to 96 s" in text
    assert "300 to 700 MiB at its peak" in text
    assert "wrk_1 on here: cpu, 2 threads" in text
    assert "accuracy 0.1200 on this dataset (n = 1,000; chance 0.1)" in text
    assert "4 waiting before it" in text
    assert text.count("warning: they never learn") == 1
    assert "warning: it knows nothing" in text
    none: dict[str, Any] = {
        "peak_memory_bytes": None,
        "seconds": None,
        "per_fit": [],
        "worker": None,
        "reason": "no worker lives",
        "basis": "",
    }
    _, text = dry_run({**FORESEEN, "estimates": none, "teacher": {"reason": "not evaluated: POST …"}}, capsys)
    assert "unknown: no worker lives" in text
    assert "not evaluated: POST" in text


def test_a_dry_run_that_is_refused_tells_everything_with_what_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    faults = [
        {"pointer": "/teacher", "code": "invalid_input", "detail": "it has 100 outputs", "hint": "another one"},
        {"pointer": "/dataset/take/total", "code": "invalid_input", "detail": "there are 500", "hint": ""},
    ]
    problem = {"status": 422, "code": "invalid_input", "detail": "d", "hint": "another one", "errors": faults}
    code, text = dry_run(problem, capsys, status=422)
    assert code == 1
    assert "error: 2 things are wrong: /teacher: it has 100 outputs try: another one /dataset/take/total: there are 500" in text
