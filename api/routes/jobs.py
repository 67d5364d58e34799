"""Jobs: submit, plan without submitting, list, look at."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response, status
from fastapi.responses import JSONResponse

from api.auth import Caller
from api.deps import After, Id, IdempotencyKey, Limit, Running, find_job
from api.forecast import Planned, forecast
from api.portrait import created, portrait, status_of
from api.problems import Problem, not_found, plain_key
from api.shapes import JobCard, Listing, page
from api.submission import draft, submit
from core.spec import JobSpec, baseline, identity
from db import jobs
from db.crashpoint import crashpoint
from db.states import State

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_WAIT = {"running": "2", "queued": "10"}


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
    """The whole job is planned before it is queued: all that does not fit together is refused here at once, with the fields named. A dry
    run says too how long it will take and how much memory, on the workers that live now, and how good its teacher is."""
    drafted = draft(running, caller, body)
    if dry_run:
        return JSONResponse(forecast(running, drafted).model_dump(mode="json"))
    job = submit(running, caller, drafted, key=plain_key(idempotency_key))
    crashpoint("api.before_reply")
    return created(running, caller, job, response)


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
    job = find_job(running, caller, id)
    headers = {"Retry-After": _WAIT[job.state]} if job.state in _WAIT else None
    # Written out here, not by the framework: that would cost the most asked route a second turn in the thread pool.
    return Response(portrait(running, caller, job).model_dump_json(), headers=headers, media_type="application/json")


@router.post("/{id}/baseline", status_code=status.HTTP_201_CREATED, summary="Submit a job's baseline", responses={200: {"model": JobCard}})
def make_baseline(running: Running, caller: Caller, id: Id, response: Response) -> JobCard:
    """The same job without a teacher, for as many epochs in all: what tells whether the teacher helped. One that was submitted before and
    measures as much is answered as it is, with 200."""
    job = find_job(running, caller, id)
    if job.kind != "distil":
        raise not_found("job", id)
    spec = JobSpec.model_validate(job.spec)
    drafted = draft(running, caller, spec)
    if not drafted.task["dataset"].get("labelled", True):
        raise Problem(
            409,
            f"the job {id} has no baseline: its dataset has no labels, and without a teacher there is nothing to learn from",
            code="not_applicable",
            hint="its agreement with the teacher is in its result",
            more={"current_status": status_of(job)},
        )
    plain = baseline(spec, drafted.plan.epochs)
    existing = jobs.find_by_spec(running.database, caller, identity(plain))
    if existing is not None and set(plain.measures) <= set(JobSpec.model_validate(existing.spec).measures):
        response.status_code = status.HTTP_200_OK
        return portrait(running, caller, existing)
    return created(running, caller, submit(running, caller, draft(running, caller, plain), key=None), response)
