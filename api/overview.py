"""How a sweep reads: its row, and what the jobs of its trials say about how far it is and which is best so far."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.deps import Service
from api.search import Search, SweepSpec, search_of
from api.shapes import when
from api.trials import Outcome, Trial, best_of, read_trials
from db.access import Tenant
from db.states import State, SweepState
from db.sweeps import Sweep


class SweepSummary(BaseModel):
    """A sweep as it is listed."""

    object: Literal["sweep"] = "sweep"
    id: str
    name: str
    status: SweepState
    is_terminal: bool
    problem: dict[str, Any] | None = Field(description="why it failed: where, reason, hint, code")
    result: dict[str, Any] | None = Field(
        description=(
            "what came of it: `best` is the trial with the best `value` of the objective, a figure of the validation data; `reruns` what "
            "its settings gave with fresh seeds (`mean`, `sd`, `n` of the same figure, and `test_accuracy` or `test_agreement` of the same "
            "jobs, which nothing was chosen by); `importances` says how much each field mattered, or is null for the `importances_reason`"
        )
    )
    request: dict[str, Any] = Field(description="what was asked for, defaults written out")
    metadata: dict[str, str]
    created_at: datetime
    finished_at: datetime | None


class SweepProgress(BaseModel):
    """How many trials there are; `of` is how many there will be, re-runs of the best not counted."""

    of: int
    made: int
    unfinished: int
    completed: int
    pruned: int
    failed: int
    cancelled: int
    reruns: int = Field(description="re-runs of the best that completed")


class BestSoFar(BaseModel):
    """The trial with the best value of the objective."""

    trial: int
    job: str | None
    params: dict[str, Any]
    value: float | None


class SweepCard(SweepSummary):
    """A sweep as it stands."""

    progress: SweepProgress
    best: BestSoFar | None = Field(description="so far; after the end it is the result's")
    warnings: list[str] = Field(default=[], description="of a new sweep: what the plan of its base warns of; later its trials' jobs say it")
    jobs: str = Field(description="where its trials are")


class TrialCard(BaseModel):
    """A trial, or a re-run of the best one; everything else about it is in its job."""

    object: Literal["sweep.trial"] = "sweep.trial"
    trial: int
    role: Literal["trial", "rerun"]
    job: str | None = Field(description="null where no job could be made of these values: `problem` says why")
    status: State | None
    outcome: Outcome = Field(description="`pruned` is what the sweep gave up, `cancelled` what somebody cancelled; neither is a failure")
    params: dict[str, Any]
    seed: int | None
    value: float | None = Field(description="the objective after the last epoch, once the job succeeded")
    epochs: int = Field(description="epochs of training that were validated")
    problem: dict[str, Any] | None


def summary(sweep: Sweep) -> SweepSummary:
    """The sweep without its trials."""
    return SweepSummary(
        id=sweep.id,
        name=sweep.name,
        status=sweep.state,
        is_terminal=sweep.state != "running",
        problem=sweep.problem,
        result=sweep.result,
        request=sweep.request,
        metadata=sweep.metadata,
        created_at=when(sweep.created_at),
        finished_at=None if sweep.ended_at is None else when(sweep.ended_at),
    )


def overview(running: Service, tenant: Tenant, sweep: Sweep) -> SweepCard:
    """The sweep with how its trials stand."""
    search, trials = _trials(running, tenant, sweep)
    own = [trial for trial in trials if not trial.is_rerun]
    outcomes = [trial.outcome for trial in own]
    best = best_of(search, trials)
    return SweepCard(
        **summary(sweep).model_dump(),
        progress=SweepProgress(
            of=search.total,
            made=len(own),
            unfinished=outcomes.count("unfinished"),
            completed=outcomes.count("completed"),
            pruned=outcomes.count("pruned"),
            failed=outcomes.count("failed"),
            cancelled=outcomes.count("cancelled"),
            reruns=sum(trial.is_rerun and trial.outcome == "completed" for trial in trials),
        ),
        best=BestSoFar(trial=best.number, job=best.job, params=best.params, value=best.value) if best else None,
        jobs=f"/v1/sweeps/{sweep.id}/jobs",
    )


def trial_cards(running: Service, tenant: Tenant, sweep: Sweep) -> list[TrialCard]:
    """Every trial of the sweep by number, the re-runs last."""
    _, trials = _trials(running, tenant, sweep)
    return [
        TrialCard(
            trial=trial.number,
            role="rerun" if trial.is_rerun else "trial",
            job=trial.job,
            status=trial.state,
            outcome=trial.outcome,
            params=trial.params,
            seed=trial.seed,
            value=trial.value,
            epochs=len(trial.reports),
            problem=dict(trial.problem) if trial.problem else None,
        )
        for trial in trials
    ]


def _trials(running: Service, tenant: Tenant, sweep: Sweep) -> tuple[Search, Sequence[Trial]]:
    search, _ = search_of(SweepSpec.model_validate(sweep.request))
    return search, read_trials(running.database, tenant, sweep.id, search)
