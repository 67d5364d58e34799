"""The suite can fail: with a safeguard taken away, it finds what that safeguard prevents."""

from pathlib import Path

import pytest

from tests.chaos import power
from tests.chaos.invariants import counted
from tests.chaos.lab import Dialect

pytestmark = pytest.mark.servers


def test_without_the_fence_a_job_is_completed_twice(dialect: Dialect, tmp_path: Path) -> None:
    outcome = power.detect(tmp_path, power.without_fence, dialect, n=1, seed=1)
    assert counted(outcome.violations).get("I2") == 1, outcome.violations


def test_the_index_alone_refuses_the_second_completion(dialect: Dialect, tmp_path: Path) -> None:
    outcome = power.detect(tmp_path, power.with_index_alone, dialect, n=1, seed=1)
    assert "I2" not in counted(outcome.violations), outcome.violations
    refused = ("one_completion", "UNIQUE constraint failed: job_event.job_id")
    assert any(words in log.read_text() for log in (tmp_path / "lab").glob("worker*.log") for words in refused)


def test_a_toy_that_forgets_its_momentum_leaves_a_wrong_student(tmp_path: Path) -> None:
    outcome = power.detect(tmp_path, power.without_momentum, "sqlite", n=1, seed=1)
    assert counted(outcome.violations) == {"I3": 1}, outcome.violations


def test_an_engine_that_forgets_its_optimiser_leaves_a_wrong_student(tmp_path: Path) -> None:
    outcome = power.detect(tmp_path, power.without_optimiser, "sqlite", n=1, seed=1)
    assert counted(outcome.violations) == {"I3": 1}, outcome.violations


def test_without_reconciler_and_poll_a_flush_loses_jobs(tmp_path: Path) -> None:
    outcome = power.detect(tmp_path, power.without_reconciler, "sqlite", n=2, seed=1)
    assert counted(outcome.violations) == {"I1": 2}, outcome.violations
