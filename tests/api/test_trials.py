"""What a trial measured is read from the events of its job."""

from typing import Any

import pytest

from api.search import SweepSpec, search_of
from api.trials import Trial, best_of, reports_of, trial_of
from db.states import State
from db.sweeps import TrialRow
from tests.api.player import evaluated, phase

BASE = {"student": {"architecture": "arc_1"}, "dataset": {"id": "ds_1"}}
SEARCH, _ = search_of(
    SweepSpec.model_validate({"base": BASE, "space": {"recipe.optimizer.lr": {"choice": [0.1, 0.2]}}, "strategy": "grid", "pruner": None})
)


def row(state: State, *, number: int = 0, **more: Any) -> TrialRow:
    spec = SEARCH.spec_of({"recipe.optimizer.lr": 0.2}).model_dump(mode="json")
    fields: dict[str, Any] = {"refusal": None, "job": "job_1", "desired": "run", "problem": None, "result": None}
    return TrialRow(number=number, state=state, spec=spec, **fields | more)


def test_only_the_validation_of_the_training_itself_counts_and_of_an_epoch_told_twice_the_later() -> None:
    events = [
        phase("transfer"), evaluated(0, 0.9), evaluated(7, 0.9), phase("train", fit=1), evaluated(0, 0.1, fit=1), evaluated(1, 0.2, fit=1),
        phase("train", fit=1), evaluated(1, 0.3, fit=1), evaluated(2, None, fit=1), phase("evaluate", fit=1),
        evaluated(1, 0.8, fit=1, split="test"),
    ]  # fmt: skip
    assert reports_of(events, "validation_accuracy") == {0: 0.1, 1: 0.3}
    assert reports_of(events, "validation_loss") == {0: 1.0, 1: 1.0, 2: 1.0}
    assert reports_of(events[:3], "validation_accuracy") == {}


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("queued", "unfinished"), ("running", "unfinished"), ("paused", "unfinished"), ("succeeded", "completed"), ("failed", "failed"),
        ("quarantined", "failed"), ("cancelled", "cancelled"),
    ],
)  # fmt: skip
def test_the_state_of_its_job_says_what_became_of_a_trial(state: State, outcome: str) -> None:
    trial = trial_of(row(state), [phase("train"), evaluated(0, 0.4), evaluated(1, 0.3)], SEARCH)
    assert trial.outcome == outcome
    assert trial.params == {"recipe.optimizer.lr": 0.2}
    assert trial.value == (0.3 if outcome == "completed" else None)


def test_a_job_that_succeeded_without_the_metric_is_a_failed_trial_with_a_reason() -> None:
    trial = trial_of(row("succeeded"), [phase("train")], SEARCH)
    assert (trial.outcome, trial.value) == ("failed", None)
    assert trial.problem is not None


def test_test_figures_are_read_of_reruns_alone() -> None:
    measured: dict[str, Any] = {"result": {"test": {"accuracy": 0.9}}}
    events = [phase("train"), evaluated(0, 0.4)]
    assert trial_of(row("succeeded", **measured), events, SEARCH).test == {}
    assert trial_of(row("succeeded", number=2, **measured), events, SEARCH).test["accuracy"] == 0.9


def completed(number: int, value: float, lr: float, *, is_rerun: bool = False) -> Trial:
    return Trial(
        number=number, is_rerun=is_rerun, job="job", state="succeeded", outcome="completed", params={"recipe.optimizer.lr": lr}, value=value
    )


def test_the_best_of_equals_is_the_first_and_what_is_being_run_again_stays_the_best() -> None:
    trials = [completed(0, 0.5, 0.1), completed(1, 0.5, 0.2)]
    assert best_of(SEARCH, []) is None
    assert best_of(SEARCH, trials) == trials[0]
    again = completed(2, 0.1, 0.2, is_rerun=True)
    assert best_of(SEARCH, [*trials, again]) == trials[1]
