"""Sweeps: a search over job specs whose trials are ordinary jobs. What moves them on is `api/sweeper.py`."""

from collections.abc import Sequence

from fastapi import APIRouter, Response, status

from api.auth import Caller
from api.deps import After, Id, IdempotencyKey, Limit, Roomy, Running, Service
from api.overview import SweepCard, SweepSummary, TrialCard, overview, summary, trial_cards
from api.problems import Problem, beneath, invalid, not_found, plain_key
from api.queueing import key_reused
from api.search import SweepSpec, search_of
from api.shapes import Listing, page
from api.submission import draft, fingerprint
from core.errors import Refused
from db import life, sweeps
from db.access import Tenant
from db.sweeps import Sweep

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])


@router.post("", status_code=status.HTTP_201_CREATED, dependencies=[Roomy], summary="Start a sweep")
def create(running: Running, caller: Caller, body: SweepSpec, response: Response, *, idempotency_key: IdempotencyKey = None) -> SweepCard:
    """Every path and every bound of the space is checked on the base, and the base is planned, before anything is queued. Trials are judged
    on validation data alone; the best is run again with fresh seeds before it is reported."""
    _, wrong = search_of(body)
    if wrong:
        raise invalid(wrong)
    warnings = _check_base(running, caller, body)
    key = plain_key(idempotency_key)
    try:
        sweep = sweeps.create_sweep(
            running.database,
            caller,
            name=body.name,
            request=body.model_dump(mode="json"),
            metadata=body.metadata,
            idempotency=(key, fingerprint("sweep" + body.model_dump_json())) if key else None,
            max_running=running.settings.max_sweeps,
        )
    except life.KeyReused as reused:
        raise key_reused(reused) from None
    except sweeps.TooManySweeps as many:
        raise Problem(
            429, str(many), code="too_many_sweeps", hint="wait until one has ended, or cancel one", headers={"Retry-After": "30"}
        ) from None
    response.headers["Location"] = f"/v1/sweeps/{sweep.id}"
    return overview(running, caller, sweep).model_copy(update={"warnings": list(warnings)})


@router.get("", summary="List sweeps")
def list_sweeps(running: Running, caller: Caller, limit: Limit = 20, after: After = None) -> Listing[SweepSummary]:
    """The newest first."""
    rows = sweeps.list_sweeps(running.database, caller, limit=limit + 1, after=after)
    return page(rows, [summary(row) for row in rows[:limit]], limit)


@router.get("/{id}", summary="Get a sweep")
def get(running: Running, caller: Caller, id: Id, response: Response) -> SweepCard:
    """How far it is, the best trial so far, and in the end what came of it."""
    sweep = _found(running, caller, id)
    if sweep.state == "running":
        response.headers["Retry-After"] = "2"
    return overview(running, caller, sweep)


@router.get("/{id}/jobs", summary="List a sweep's trials")
def jobs(running: Running, caller: Caller, id: Id) -> Listing[TrialCard]:
    """Every trial with what it tried and what it measured, and the re-runs of the best last."""
    return Listing(data=trial_cards(running, caller, _found(running, caller, id)))


@router.post("/{id}/cancel", summary="Cancel a sweep")
def cancel(running: Running, caller: Caller, id: Id) -> SweepCard:
    """No trial comes after, and every job of the sweep that has not ended is cancelled with it. There is no way back."""
    sweep = sweeps.cancel_sweep(running.database, caller, id)
    if sweep is None:
        ended = _found(running, caller, id)
        raise Problem(
            409,
            f"the sweep {id} has {ended.state} and cannot be cancelled: a sweep that ended stays as it is",
            code="not_applicable",
            more={"current_status": ended.state},
        )
    return overview(running, caller, sweep)


def _check_base(running: Service, caller: Tenant, body: SweepSpec) -> Sequence[str]:
    """Plan the base, with its fields named as they stand in the sweep's body, and give what the plan warns of; a Problem where nothing
    would be left to judge trials by."""
    with beneath("/base"):
        drafted = draft(running, caller, body.base)
    if not body.base.dataset.validation and "validation" not in drafted.task["dataset"]["counts"]:
        raise Refused(
            "/base/dataset/validation",
            "the dataset has no validation split and none is set aside: there is nothing to judge trials by but the test data",
            hint="0.1 sets a tenth of the training images aside",
        )
    metric, labelled = body.objective.metric, drafted.task["dataset"].get("labelled", True)
    if labelled == (metric == "validation_agreement"):
        reason = "is measured of no dataset with labels" if labelled else "takes labels, and the dataset has none"
        hint = '"metric": "validation_accuracy"' if labelled else '"metric": "validation_agreement", with the teacher'
        raise Refused("/objective/metric", f"{metric} {reason}", hint=hint)
    return drafted.plan.warnings


def _found(running: Service, caller: Tenant, id: str) -> Sweep:
    sweep = sweeps.get_sweep(running.database, caller, id)
    if sweep is None:
        raise not_found("sweep", id)
    return sweep
