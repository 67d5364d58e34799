"""What may be asked of a job: pause, resume, cancel and release change it; retry and clone make a new one of it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Response, status
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Caller
from api.deps import Id, IdempotencyKey, Roomy, Running, Service, find_job
from api.portrait import created, portrait, status_of
from api.problems import Problem, beneath, plain_key
from api.queueing import queueing
from api.shapes import JobCard, Status
from api.submission import draft, fingerprint, overridden, submit
from db import life
from db.access import Tenant
from db.life import Job
from db.session import Database
from db.states import OF_AN_ASSET, TERMINAL, CancelMode, Keep

router = APIRouter(prefix="/v1/jobs/{id}", tags=["jobs"])


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cancel(_Asked):
    """How to end a job. Sent again, what is harder than before is taken, and what is softer changes nothing."""

    mode: CancelMode = Field("now", description="`graceful` lets a running job finish its step and keep a checkpoint; `now` kills it.")
    keep: Keep = Field(
        "checkpoint", description="`nothing` forgets its checkpoints, so that a retry begins at the start; also of a job that is cancelled."
    )


class Retry(_Asked):
    """Where the new job begins."""

    start: Literal["checkpoint", "start"] = Field(
        "checkpoint", alias="from", description="The old job's last checkpoint, or the very start, which holds too where it kept none."
    )


class Clone(_Asked):
    """What the new job has otherwise."""

    overrides: dict[str, Any] = Field(
        default={},
        description=(
            "Merged into the old job's spec as a JSON merge patch (RFC 7386): an object is merged field by field, a list is replaced "
            "whole, and null removes a field, so that its default holds."
        ),
    )


@router.post("/cancel", summary="Cancel a job", responses={202: {"model": JobCard}})
def cancel(running: Running, caller: Caller, id: Id, response: Response, body: Cancel | None = None) -> JobCard:
    """A running job is `cancelled` once its process is gone; until then it is `cancelling`. There is no way back."""
    asked = body or Cancel()
    return _wish(running, caller, id, response, wish=partial(life.cancel, mode=asked.mode, keep=asked.keep), done="cancelled")


@router.post("/pause", summary="Pause a job", responses={202: {"model": JobCard}})
def pause(running: Running, caller: Caller, id: Id, response: Response) -> JobCard:
    """A running job keeps a checkpoint first; until then it is `pausing`."""
    return _wish(running, caller, id, response, wish=life.pause, done="paused")


@router.post("/resume", summary="Resume a paused job")
def resume(running: Running, caller: Caller, id: Id, response: Response) -> JobCard:
    """It is queued again and goes on from its last checkpoint."""
    return _wish(running, caller, id, response, wish=life.resume, done="resumed")


@router.post("/release", summary="Release a quarantined job")
def release(running: Running, caller: Caller, id: Id, response: Response) -> JobCard:
    """Its crashes are forgiven and it is queued again, to go on from its last checkpoint."""
    return _wish(running, caller, id, response, wish=life.release, done="released")


@router.post("/retry", status_code=status.HTTP_201_CREATED, dependencies=[Roomy], summary="Retry a job that failed or was cancelled")
def retry(
    running: Running, caller: Caller, id: Id, response: Response, *, body: Retry | None = None, idempotency_key: IdempotencyKey = None
) -> JobCard:
    """A new job with this one as its `parent`, from its last checkpoint: a job that ended stays as it is."""
    old, asked, key = find_job(running, caller, id), body or Retry(), plain_key(idempotency_key)
    with queueing():
        new = life.retry_as_new(
            running.database,
            caller,
            id,
            start=asked.start,
            idempotency=(key, fingerprint(f"retry {id} {asked.start}")) if key else None,
            max_queued=running.settings.max_queued,
        )
    if new is None:
        raise _not_applicable(old, "retried")
    running.doorbell.ring([new.queue])
    return created(running, caller, new, response)


@router.post("/clone", status_code=status.HTTP_201_CREATED, summary="Submit a job like another one")
def clone(
    running: Running, caller: Caller, id: Id, response: Response, *, body: Clone | None = None, idempotency_key: IdempotencyKey = None
) -> JobCard:
    """A new job with this one's spec and the overrides merged in, planned and refused as any other; it begins at the start, and has no
    `parent`, for it is no other try of this one. Whatever state this one is in."""
    old, key = find_job(running, caller, id), plain_key(idempotency_key)
    if old.kind != "distil":
        what = "the inspection of an asset" if old.kind in OF_AN_ASSET else f"of the kind {old.kind!r}"
        hint = "create the asset again" if old.kind in OF_AN_ASSET else ""
        raise _conflict(old, f"the job {id} is {what} and cannot be cloned: its spec is no job spec", hint)
    with beneath("/overrides"):
        drafted = draft(running, caller, overridden(old.spec, (body or Clone()).overrides))
    return created(running, caller, submit(running, caller, drafted, key=key, act=f"clone {id} "), response)


def _wish(
    running: Service,
    caller: Tenant,
    id: str,
    response: Response,
    *,
    wish: Callable[[Database, Tenant, str], Job | None],
    done: str,
) -> JobCard:
    before = find_job(running, caller, id)
    job = wish(running.database, caller, id)
    if job is None:
        raise _not_applicable(find_job(running, caller, id), done)
    if job.state == "queued" and before.state != "queued":
        running.doorbell.ring([job.queue])
    if job.state == "running" and job.desired != "run":
        response.status_code = status.HTTP_202_ACCEPTED
    return portrait(running, caller, job)


_WAITING = ("it has not ended", "cancel it first, or POST …/clone for another job of the same spec")
_RESTING = ("it rests, and has not ended", "POST …/resume lets it go on from its last checkpoint")
_ENDED = "a job that ended stays as it is"
_AGAIN = (_ENDED, "POST …/retry makes a new job from its last checkpoint")
_INSTEAD: Mapping[Status, tuple[str, str]] = {
    "queued": _WAITING,
    "running": _WAITING,
    "pausing": _RESTING,
    "paused": _RESTING,
    "cancelling": ("a cancel has no way back", "once it is cancelled, POST …/retry makes a new job from its last checkpoint"),
    "quarantined": ("it waits in quarantine, and has not ended", "POST …/release lets it try again, the same job from its last checkpoint"),
    "failed": _AGAIN,
    "cancelled": _AGAIN,
    "succeeded": (_ENDED, "POST …/clone makes a new one; with another seed in `overrides` it is another training"),
}
"""Why a wish does not apply to a job of this status, and what does."""


def _not_applicable(job: Job, done: str) -> Problem:
    now = status_of(job)
    why, hint = _INSTEAD[now]
    if job.kind in OF_AN_ASSET and job.state in TERMINAL and (job.asset is None or job.state == "succeeded"):
        why, hint = (_ENDED if job.asset else "its asset is gone, or another job inspects it by now"), "create the asset again"
    return _conflict(job, f"the job {job.id} is {now} and cannot be {done}: {why}", hint)


def _conflict(job: Job, detail: str, hint: str) -> Problem:
    return Problem(409, detail, code="not_applicable", hint=hint, more={"current_status": status_of(job)})
