"""What watching shows of a job, in words and on a terminal of any width."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from retort.client import Client
from retort.job import Job
from retort.watch import news, watch
from tests.retort.stage import Answer, script, stage

RUNNING: dict[str, Any] = {
    "id": "job_1",
    "name": "first (baseline)",
    "status": "running",
    "phase": "train",
    "is_terminal": False,
    "progress": {"percent": 40.0, "epoch": 10},
    "latest_metrics": {"loss": 2.125, "validation_accuracy": 0.75},
}


def jobs(*raw: dict[str, Any]) -> list[Job]:
    with stage(script(Answer(200, json.dumps({"data": raw, "has_more": False}).encode()))) as service:
        return list(Client(service.url, key="k").jobs.list())


def test_what_a_running_job_does_is_told_with_the_time_left_before_its_numbers() -> None:
    eta = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    [job] = jobs({**RUNNING, "progress": {"epoch": 10, "eta_at": eta}})
    assert news(job) == "train, epoch 10, 60 min left, loss 2.12, validation accuracy 0.75"


def test_without_labels_the_agreement_with_the_teacher_is_told() -> None:
    running = {**RUNNING, "latest_metrics": {"loss": 2.125, "validation_agreement": 0.75, "validation_max_abs_diff": 3.0}}
    done = {**RUNNING, "status": "succeeded", "is_terminal": True, "result": {"test": {"agreement": 0.875, "max_abs_diff": 1.0, "n": 8}}}
    assert [news(job) for job in jobs(running, done)] == [
        "train, epoch 10, loss 2.12, validation agreement 0.75",
        "agreement with the teacher 0.8750",
    ]


def test_a_transfer_fit_shows_no_accuracy_because_it_teaches_no_classes() -> None:
    [job] = jobs({**RUNNING, "phase": "transfer"})
    assert news(job) == "transfer, epoch 10, loss 2.12"


@pytest.mark.parametrize("width", [70, 80, 130])
def test_a_narrow_terminal_cuts_the_news_and_neither_the_name_nor_how_far_it_is(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("retort.watch.time.sleep", interrupt)
    terminal = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        watch(jobs(RUNNING), Console(width=width, file=terminal, force_terminal=True, color_system=None))
    *_, shown = (line for line in terminal.getvalue().splitlines() if "%" in line)
    assert "first (baseline) running" in shown
    assert "━━━ " in shown
    assert " 40 % train, epoch 10" in shown
    assert ("validation accuracy 0.75" in shown) == (width == 130)
