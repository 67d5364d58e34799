"""The trials of a sweep as they stand: everything is read back from their jobs, their specs and their events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from api.search import Params, Search
from db import sweeps
from db.access import Tenant
from db.session import Database
from db.states import State
from db.sweeps import TrialRow

Outcome = Literal["unfinished", "completed", "pruned", "failed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial, or one re-run of the best (`is_rerun`).

    `reports` are the objective after each epoch of training, by epoch from 0; `value` is that of the last one, once the job succeeded.
    `problem` says why it failed. `test`, its figures on the test split, is for re-runs alone: nothing chooses by it.
    """

    number: int
    is_rerun: bool
    job: str | None
    state: State | None
    outcome: Outcome
    params: Params
    seed: int | None = None
    reports: Mapping[int, float] = field(default_factory=dict)
    value: float | None = None
    problem: Mapping[str, Any] | None = None
    test: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_busy(self) -> bool:
        """Whether it takes one of the places of `max_parallel`: a paused one does not."""
        return self.state in ("queued", "running")


Events = Sequence[tuple[str, Mapping[str, Any]]]
_NO_VALUE = {"where": "", "reason": "the job succeeded without the metric that it is judged by", "hint": "", "code": "internal_error"}


def read_trials(database: Database, tenant: Tenant, id: str, search: Search, *, known: dict[int, Trial] | None = None) -> list[Trial]:
    """The trials of a sweep by number, re-runs last. `known` keeps those that can change no more between two calls."""
    known = {} if known is None else known
    rows = sweeps.list_trials(database, tenant, id)
    events = sweeps.told(database, tenant, id, without=[trial.job for trial in known.values() if trial.job])
    trials = []
    for row in rows:
        trial = known.get(row.number) or trial_of(row, events.get(row.job or "", ()), search)
        # The row was read before its events: what has ended between the two is whole.
        if row.is_terminal:
            known[row.number] = trial
        trials.append(trial)
    return trials


def trial_of(row: TrialRow, events: Events, search: Search) -> Trial:
    """What one trial is, from its row and its job's events."""
    is_rerun = row.number >= search.total
    if row.refusal is not None or row.spec is None:
        refusal = row.refusal or {}
        return Trial(
            number=row.number, is_rerun=is_rerun, job=None, state=None, outcome="failed", params=refusal["params"],
            problem={name: word for name, word in refusal.items() if name != "params"},
        )  # fmt: skip
    reports = reports_of(events, search.spec.objective.metric)
    value = reports[max(reports)] if reports and row.state == "succeeded" else None
    pruned = any(kind == "status" and data.get("pruned") for kind, data in events)
    outcomes: dict[State | None, Outcome] = {
        "succeeded": "failed" if value is None else "completed",
        "failed": "failed",
        "quarantined": "failed",
        "cancelled": "pruned" if pruned else "cancelled",
    }
    return Trial(
        number=row.number,
        is_rerun=is_rerun,
        job=row.job,
        state=row.state,
        outcome=outcomes.get(row.state, "unfinished"),
        params=search.params_of(row.spec),
        seed=row.spec["seed"],
        reports=reports,
        value=value,
        problem=_NO_VALUE if row.state == "succeeded" and value is None else row.problem,
        test=((row.result or {}).get("test") or {}) if is_rerun else {},
    )


def reports_of(events: Events, metric: str) -> dict[int, float]:
    """The metric after each epoch of the training itself: what a transfer fit measures on the way is not what is sought. Of an epoch that
    was told twice the later one counts; what was not finite is left out."""
    name = metric.removeprefix("validation_")
    training = next((data["fit"] for kind, data in reversed(events) if kind == "phase" and data["phase"] == "train"), None)
    measured = [data for kind, data in events if kind == "evaluated" and data["split"] == "validation" and data["fit"] == training]
    return {data["epoch"]: data["values"][name] for data in measured if isinstance(data["values"].get(name), (int, float))}


def best_of(search: Search, trials: Sequence[Trial]) -> Trial | None:
    """The completed trial that the re-runs repeat, or, before there are any, the one with the best value; of equals the first."""
    completed = [trial for trial in trials if trial.outcome == "completed" and not trial.is_rerun]
    repeated = next((trial.params for trial in trials if trial.is_rerun), None)
    if repeated is not None:
        completed = [trial for trial in completed if trial.params == repeated]
    sign = 1.0 if search.spec.objective.maximizes else -1.0
    return max(completed, key=lambda trial: (sign * (trial.value or 0.0), -trial.number), default=None)
