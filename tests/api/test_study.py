"""The study that is rebuilt from trials: the same history asks for the same, whatever was asked before."""

import math
import subprocess
import sys
from typing import Any

import pytest

from api.search import Search, SweepSpec, search_of
from api.study import importances, suggest, unpromising
from api.trials import Outcome, Trial
from db.states import State

STATES: dict[Outcome, State] = {
    "completed": "succeeded", "pruned": "cancelled", "failed": "failed", "cancelled": "cancelled", "unfinished": "running",
}  # fmt: skip


BASE: dict[str, Any] = {
    "student": {"architecture": "arc_1"}, "dataset": {"id": "ds_1"}, "methods": [{"name": "kd"}], "teacher": "tch_1",
}  # fmt: skip


def search(**more: Any) -> Search:
    space = {
        "recipe.optimizer.lr": {"log": [0.001, 1]},
        "methods.0.temperature": {"uniform": [1, 8]},
        "recipe.batch_size": {"int": [8, 64], "step": 8},
        "recipe.schedule": {"choice": [{"name": "constant"}, {"name": "cosine"}]},
    }
    found, wrong = search_of(SweepSpec.model_validate({"base": BASE, "space": space, "strategy": "tpe", **more}))
    assert not wrong
    return found


def trial(number: int, params: dict[str, Any], outcome: Outcome = "completed", *, value: float | None = None, **more: Any) -> Trial:
    return Trial(
        number=number, is_rerun=False, job=f"job_{number}", state=STATES[outcome], outcome=outcome, params=params, value=value, **more
    )


def history(of: Search, n: int) -> list[Trial]:
    """Trials that were suggested one after the other; the rate decides, best at 0.1."""
    trials: list[Trial] = []
    for number in range(n):
        params = suggest(of, trials)
        trials.append(trial(number, params, value=-abs(math.log10(params["recipe.optimizer.lr"]) + 1)))
    return trials


@pytest.mark.parametrize("strategy", ["random", "tpe"])
def test_every_suggestion_is_a_function_of_the_trials_before_it(strategy: str) -> None:
    asked = search(strategy=strategy)
    whole = history(asked, 14)
    for number in (13, 3, 0, 13):
        assert suggest(asked, whole[:number]) == whole[number].params
    assert len({str(each.params) for each in whole}) == 14


def test_suggestions_lie_in_the_space_and_make_a_spec_that_reads_back_as_they_are() -> None:
    asked = search()
    for each in history(asked, 12):
        assert 0.001 <= each.params["recipe.optimizer.lr"] <= 1
        assert each.params["recipe.batch_size"] in range(8, 65, 8)
        spec = asked.spec_of(each.params).model_dump(mode="json")
        assert spec["recipe"]["schedule"]["name"] in ("constant", "cosine")
        assert asked.params_of(spec) == each.params


def test_tpe_learns_from_what_completed_where_random_does_not() -> None:
    def late(strategy: str) -> float:
        chosen = [each.params["recipe.optimizer.lr"] for each in history(search(strategy=strategy, max_jobs=40), 40)[20:]]
        return sum(abs(math.log10(lr) + 1) for lr in chosen) / len(chosen)

    assert late("tpe") < 0.5 * late("random")


def test_a_grid_is_gone_through_point_by_point_the_last_field_fastest() -> None:
    asked = search(strategy="grid", space={"recipe.batch_size": {"int": [8, 16], "step": 8}, "recipe.optimizer.lr": {"choice": [0.1, 1]}})
    assert asked.total == 4
    got = [tuple(suggest(asked, [trial(n, {}) for n in range(number)]).values()) for number in range(4)]
    assert got == [(8, 0.1), (8, 1.0), (16, 0.1), (16, 1.0)]


@pytest.mark.parametrize("strategy", ["random", "tpe"])
def test_no_point_is_tried_twice_and_there_are_no_more_trials_than_points(strategy: str) -> None:
    asked = search(strategy=strategy, space={"recipe.batch_size": {"int": [8, 16], "step": 8}, "recipe.optimizer.lr": {"choice": [0.1, 1]}})
    assert asked.total == 4
    trials: list[Trial] = []
    for number in range(4):
        trials.append(trial(number, suggest(asked, trials), value=0.5))
        assert suggest(asked, trials[:number]) == trials[number].params
    assert sorted(tuple(each.params.values()) for each in trials) == [(8, 0.1), (8, 1.0), (16, 0.1), (16, 1.0)]
    assert search(strategy=strategy, space={"recipe.batch_size": {"int": [8, 64]}}).total == 24


def test_points_are_counted_where_they_would_not_fit_in_memory() -> None:
    asked = search(space={"teacher_dataset.seed": {"int": [0, 2**53 - 1]}}, base={**BASE, "teacher_dataset": {"id": "ds_2"}})
    assert next(asked.points()) == {"teacher_dataset.seed": 0}


def reporting(number: int, values: dict[int, float], outcome: Outcome = "completed") -> Trial:
    value = values[max(values)] if outcome == "completed" else None
    return trial(number, suggest(search(), history(search(), number)), outcome, value=value, reports=values)


@pytest.mark.parametrize(
    ("goal", "pruner", "given_up"),
    [
        # At epoch 1 the completed ones have 0.2, 0.4, 0.6, with the median 0.4; the running ones have at best 0.3, 0.5 and 0.7.
        ("max", {"startup_trials": 3}, [3]),
        ("min", {"startup_trials": 3}, [4, 5]),
        ("max", {"startup_trials": 4}, []),
        ("max", {"startup_trials": 3, "warmup_epochs": 2}, []),
        ("max", {"startup_trials": 3, "name": "percentile", "percentile": 1}, [3, 4]),
        ("max", None, []),
    ],
)
def test_what_is_worse_than_the_completed_at_the_same_epoch_is_given_up(
    goal: str, pruner: dict[str, Any] | None, given_up: list[int]
) -> None:
    asked = search(objective={"goal": goal}, pruner=pruner)
    flat = {0: 0.0, 1: 0.0} if goal == "max" else {0: 1.0, 1: 1.0}
    completed = [reporting(n, {**flat, 1: at, 2: 0.9}) for n, at in enumerate((0.2, 0.4, 0.6))]
    running = [reporting(n, {**flat, 1: at}, "unfinished") for n, at in zip((3, 4, 5), (0.3, 0.5, 0.7), strict=True)]
    assert [each.number for each in unpromising(asked, [*completed, *running])] == given_up


def test_the_field_that_decides_has_the_greatest_importance() -> None:
    told, reason = importances(asked := search(max_jobs=40), history(asked, 40))
    assert told is not None
    assert reason is None
    assert max(told, key=told.__getitem__) == "recipe.optimizer.lr"
    assert sum(told.values()) == pytest.approx(1)


def test_no_importance_is_told_of_too_few_trials_or_of_equal_ones() -> None:
    asked = search()
    few = history(asked, 3)
    assert importances(asked, few) == (None, "3 completed trials are too few: it takes 4")
    equal = [trial(n, each.params, value=0.5) for n, each in enumerate(history(asked, 5))]
    assert importances(asked, equal) == (None, "every completed trial has the same value")


def test_a_service_without_sweeps_starts_without_optuna() -> None:
    code = "import sys, api.app; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
