"""Jobs: submit, plan without submitting, look at, and steer."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response, status
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from api.auth import Caller
from api.deps import After, Id, IdempotencyKey, Limit, Running, Service
from api.portrait import portrait, status_of
from api.problems import Problem, not_found, not_kept, plain_key
from api.shapes import JobCard, Listing, page
from api.submission import draft, submit
from core.spec import JobSpec, baseline, identity
from db import jobs, life
from db.access import Tenant
from db.crashpoint import crashpoint
from db.life import Job
from db.session import Database
from db.states import TERMINAL, State

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_WAIT = {"running": "2", "queued": "10"}


class Planned(BaseModel):
    """What a job would do."""

    valid: Literal[True] = True
    plan: dict[str, Any]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    response_model=JobCard,
    summary="Submit a job",
    responses={200: {"model": Planned, "description": "with `dry_run`"}},
)
def create(
    running: Running,
    caller: Caller,
    body: JobSpec,
    response: Response,
    *,
    dry_run: Annotated[bool, Query(description="plan only: nothing is queued")] = False,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """The whole job is planned before it is queued: what does not fit together is refused here, with the field named."""
    drafted = draft(running, caller, body)
    if dry_run:
        return JSONResponse(Planned(plan=drafted.plan.to_json()).model_dump(mode="json"))
    job = submit(running, caller, drafted, key=plain_key(idempotency_key))
    crashpoint("api.before_reply")
    return _created(running, caller, job, response)


@router.get("", summary="List jobs")
def list_jobs(
    running: Running,
    caller: Caller,
    status: Annotated[list[State] | None, Query(description="only jobs in one of these states; may be repeated")] = None,
    limit: Limit = 20,
    after: After = None,
) -> Listing[JobCard]:
    """The newest first."""
    rows = jobs.list_jobs(running.database, caller, states=status or (), limit=limit + 1, after=after)
    return page(rows, [portrait(running, caller, row) for row in rows[:limit]], limit)


@router.get("/{id}", response_model=JobCard, summary="Get a job")
def get(running: Running, caller: Caller, id: Id) -> Response:
    """How far it is, what it measured, what can be done with it."""
    job = _found(running, caller, id)
    headers = {"Retry-After": _WAIT[job.state]} if job.state in _WAIT else None
    # Written out here, not by the framework: that would cost the most asked route a second turn in the thread pool.
    return Response(portrait(running, caller, job).model_dump_json(), headers=headers, media_type="application/json")


@router.post("/{id}/cancel", summary="Cancel a job", responses={202: {"model": JobCard}})
def cancel(running: Running, caller: Caller, id: Id, response: Response) -> JobCard:
    """A running job is `cancelled` once its process is gone; until then it is `cancelling`. There is no way back."""
    return _wish(running, caller, id, response, wish=life.cancel, done="cancelled")


@router.post("/{id}/pause", summary="Pause a job", responses={202: {"model": JobCard}})
def pause(running: Running, caller: Caller, id: Id, response: Response) -> JobCard:
    """A running job keeps a checkpoint first; until then it is `pausing`."""
    return _wish(running, caller, id, response, wish=life.pause, done="paused")


@router.post("/{id}/resume", summary="Resume a paused job")
def resume(running: Running, caller: Caller, id: Id, response: Response) -> JobCard:
    """It is queued again and goes on from its last checkpoint."""
    return _wish(running, caller, id, response, wish=life.resume, done="resumed")


@router.post("/{id}/release", summary="Release a quarantined job")
def release(running: Running, caller: Caller, id: Id, response: Response) -> JobCard:
    """Its crashes are forgiven and it is queued again."""
    return _wish(running, caller, id, response, wish=life.release, done="released")


@router.post("/{id}/retry", status_code=status.HTTP_201_CREATED, summary="Retry a job that failed or was cancelled")
def retry(running: Running, caller: Caller, id: Id, response: Response) -> JobCard:
    """A new job with this one as its `parent`, from its last checkpoint: a job that ended stays as it is."""
    old = _found(running, caller, id)
    try:
        new = life.retry_as_new(running.database, caller, id, max_queued=running.settings.max_queued)
    except life.TooManyQueued as many:
        raise Problem(429, str(many), code="too_many_queued", headers={"Retry-After": "30"}) from None
    except KeyError as gone:
        raise not_kept(gone) from None
    if new is None:
        raise _not_applicable(old, "retried")
    running.doorbell.ring([new.queue])
    return _created(running, caller, new, response)


@router.post("/{id}/baseline", status_code=status.HTTP_201_CREATED, summary="Submit a job's baseline", responses={200: {"model": JobCard}})
def make_baseline(running: Running, caller: Caller, id: Id, response: Response) -> JobCard:
    """The same job without a teacher, for as many epochs in all: what tells whether the teacher helped. One that was submitted before and
    measures as much is answered as it is, with 200."""
    job = _found(running, caller, id)
    if job.kind != "distil":
        raise not_found("job", id)
    spec = JobSpec.model_validate(job.spec)
    plain = baseline(spec, draft(running, caller, spec).plan.epochs)
    existing = jobs.find_by_spec(running.database, caller, identity(plain))
    if existing is not None and set(plain.measures) <= set(JobSpec.model_validate(existing.spec).measures):
        response.status_code = status.HTTP_200_OK
        return portrait(running, caller, existing)
    return _created(running, caller, submit(running, caller, draft(running, caller, plain), key=None), response)


def _created(running: Service, caller: Tenant, job: Job, response: Response) -> JobCard:
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return portrait(running, caller, job)


def _wish(
    running: Service,
    caller: Tenant,
    id: str,
    response: Response,
    *,
    wish: Callable[[Database, Tenant, str], Job | None],
    done: str,
) -> JobCard:
    before = _found(running, caller, id)
    job = wish(running.database, caller, id)
    if job is None:
        raise _not_applicable(_found(running, caller, id), done)
    if job.state == "queued" and before.state != "queued":
        running.doorbell.ring([job.queue])
    if job.state == "running" and job.desired != "run":
        response.status_code = status.HTTP_202_ACCEPTED
    return portrait(running, caller, job)


def _not_applicable(job: Job, done: str) -> Problem:
    now = status_of(job)
    why = "a job that ended stays as it is" if job.state in TERMINAL else "what can be done with it stands in its `actions`"
    hint = "POST …/retry makes a new job from its last checkpoint" if job.state in {"failed", "cancelled"} else ""
    if job.state == "succeeded":
        hint = "POST /v1/jobs makes a new one; with another seed it is another training"
    if job.kind != "distil":
        why, hint = "it is the inspection of an asset", "delete the asset instead"
    return Problem(
        409, f"the job {job.id} is {now} and cannot be {done}: {why}", code="not_applicable", hint=hint, more={"current_status": now}
    )


def _found(running: Service, caller: Tenant, id: str) -> Job:
    job = jobs.get_job(running.database, caller, id)
    if job is None:
        raise not_found("job", id)
    return job
