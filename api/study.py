"""The study of a sweep, rebuilt from its trials whenever it is asked: what to try next, what to give up, and which field mattered.

Optuna keeps a study only in memory here, and only for the length of one question. The seed of its sampler is a function of the sweep's seed
and of the trial's number, so that the same trials always have the same next one, whoever asks and however often the service was restarted.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.pruners import BasePruner, NopPruner, PercentilePruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from api.search import Axis, Choice, Int, Log, Params, Search
from api.trials import Outcome, Trial

optuna.logging.disable_default_handler()
optuna.logging.enable_propagation()
optuna.logging.set_verbosity(optuna.logging.WARNING)

FEWEST = 4
"""Completed trials below which no importance is told."""

ASKS = 20
"""How often a sampler is asked for what was not tried yet, before the first such point is taken."""

_STATES: dict[Outcome, TrialState] = {
    "unfinished": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "cancelled": TrialState.FAIL,
}


def suggest(search: Search, trials: Sequence[Trial]) -> Params:
    """What the trial after these tries: nothing that one of them tried, for it would be the same job again."""
    number = len(trials)
    if search.spec.strategy == "grid":
        # Optuna's own grid remembers what it gave in attributes of its storage, which no job has; the order of the points is memory enough.
        return list(search.points())[number]
    study, tried = _study(search, trials), [trial.params for trial in trials]
    distributions = {axis.path: _distribution(axis) for axis in search.axes}
    for _ in range(ASKS):
        suggested = study.ask(distributions).params
        params = {axis.path: _value(axis, suggested[axis.path]) for axis in search.axes}
        if params not in tried:
            return params
    return next((point for point in search.points() if point not in tried), params)


def unpromising(search: Search, trials: Sequence[Trial]) -> list[Trial]:
    """The running trials that the pruner gives up."""
    running = [trial for trial in trials if trial.state == "running" and trial.reports and not trial.is_rerun]
    if search.spec.pruner is None or not running:
        return []
    study = _study(search, trials)
    known = study.get_trials(deepcopy=False)
    return [trial for trial in running if study.pruner.prune(study, known[trial.number])]


def importances(search: Search, trials: Sequence[Trial]) -> tuple[dict[str, float] | None, str | None]:
    """How much of reaching the best values each field accounts for (PED-ANOVA: Watanabe, Bansal & Hutter, IJCAI 2023), adding up to 1;
    or None and why there is nothing to tell."""
    values = [trial.value for trial in trials if trial.outcome == "completed" and not trial.is_rerun]
    if len(values) < FEWEST:
        return None, f"{len(values)} completed trials are too few: it takes {FEWEST}"
    if len(set(values)) == 1:
        return None, "every completed trial has the same value"
    found = get_param_importances(_study(search, trials), evaluator=PedAnovaImportanceEvaluator())
    return {axis.path: float(found[axis.path]) for axis in search.axes}, None


def _study(search: Search, trials: Sequence[Trial]) -> optuna.Study:
    study = optuna.create_study(
        direction="maximize" if search.spec.objective.maximizes else "minimize",
        sampler=_sampler(search, len(trials)),
        pruner=_pruner(search),
    )
    distributions = {axis.path: _distribution(axis) for axis in search.axes}
    study.add_trials(
        create_trial(
            state=_STATES[trial.outcome],
            value=trial.value if trial.outcome == "completed" else None,
            params={axis.path: _word(axis, trial.params[axis.path]) for axis in search.axes},
            distributions=distributions,
            intermediate_values=dict(trial.reports),
        )
        for trial in trials
        if not trial.is_rerun
    )
    return study


def _sampler(search: Search, number: int) -> BaseSampler:
    seed = int.from_bytes(hashlib.sha256(f"{search.spec.seed}/{number}".encode()).digest()[:4])
    return TPESampler(seed=seed) if search.spec.strategy == "tpe" else RandomSampler(seed=seed)


def _pruner(search: Search) -> BasePruner:
    asked = search.spec.pruner
    if asked is None:
        return NopPruner()
    return PercentilePruner(asked.percentile, n_startup_trials=asked.startup_trials, n_warmup_steps=asked.warmup_epochs)


def _distribution(axis: Axis) -> BaseDistribution:
    domain = axis.domain
    if isinstance(domain, Choice):
        return CategoricalDistribution([_text(value) for value in axis.values])
    if isinstance(domain, Int):
        return IntDistribution(*domain.int, step=domain.step)
    return FloatDistribution(*domain.log, log=True) if isinstance(domain, Log) else FloatDistribution(*domain.uniform)


def _word(axis: Axis, value: Any) -> Any:
    """A value as Optuna is told it: a choice may be a list or an object, which Optuna does not take."""
    return _text(value) if isinstance(axis.domain, Choice) else value


def _value(axis: Axis, word: Any) -> Any:
    return json.loads(word) if isinstance(axis.domain, Choice) else word


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
