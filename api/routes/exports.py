"""Exports: the student of a finished job in further formats, each verified before it is offered."""

from typing import Any

from fastapi import APIRouter, Response, status
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Caller
from api.bundle import DOCUMENTS
from api.deps import Id, IdempotencyKey, Roomy, Running, Service, find_job
from api.plain import plain
from api.portrait import created, portrait, status_of
from api.problems import Problem, plain_key
from api.queueing import not_kept, queueing
from api.shapes import ExportCard, JobCard, Listing
from api.submission import fingerprint
from core.spec import ExportFormat, JobSpec
from db import assets, exports
from db.access import Tenant
from db.exports import Export
from db.life import Job

router = APIRouter(prefix="/v1/jobs/{id}/exports", tags=["artifacts"])

WEIGHTS = "model.safetensors"
_NOT_FOR_EXPORT = {"in/student.safetensors", "in/teacher_dataset.safetensors"}
"""What a distillation was given and an export has no use for: the weights it began with, and the data of the teacher."""


class ExportRequest(BaseModel):
    """What to make of the student."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    formats: tuple[ExportFormat, ...] = Field(min_length=1, max_length=16, description="the formats; one that is there is not made again")


@router.post(
    "", status_code=status.HTTP_202_ACCEPTED, dependencies=[Roomy], summary="Export a student in further formats",
    responses={200: {"model": JobCard, "description": "all of it is there, or on its way: the job that makes or made it"}},
)  # fmt: skip
def create(
    running: Running, caller: Caller, id: Id, body: ExportRequest, response: Response, *, idempotency_key: IdempotencyKey = None
) -> JobCard:
    """A job of kind `export` that writes the student of a succeeded job in these formats, and verifies each. Its files are listed with the
    student's own; a format that does not compute what the student computes is not offered, and `GET …/exports` says why."""
    source, key = _source(running, caller, id), plain_key(idempotency_key)
    task, blobs = _inputs(running, caller, source)
    with queueing(lambda gone: _named(gone, blobs)):
        job, is_new = exports.create_export(
            running.database,
            caller,
            source,
            formats=list(dict.fromkeys(body.formats)),
            task=task,
            blobs=blobs,
            idempotency=(key, fingerprint(f"export {id} {body.model_dump_json()}")) if key else None,
            max_queued=running.settings.max_queued,
        )
    if not is_new:
        response.status_code = status.HTTP_200_OK
        return portrait(running, caller, job)
    running.doorbell.ring([job.queue])
    return created(running, caller, job, response)


@router.get("", summary="List the formats of a student")
def of_job(running: Running, caller: Caller, id: Id) -> Listing[ExportCard]:
    """Every format that was asked for, with the job or later: `ready`, `processing`, or `rejected` with the reason and the figures."""
    return Listing(data=[_card(each) for each in exports.list_exports(running.database, caller, find_job(running, caller, id))])


def _card(export: Export) -> ExportCard:
    return ExportCard(format=export.format, status=export.status, reason=export.reason, facts=dict(export.facts), job=export.job)


def _source(running: Service, caller: Tenant, id: str) -> Job:
    """The job whose student is to be exported; a Problem where it has none."""
    job = find_job(running, caller, id)
    if job.kind != "distil":
        hint = f"ask it of {job.spec['job']}" if job.kind == "export" else "the id of a distillation is wanted"
        raise Problem(409, f"the job {id} is of the kind {job.kind!r} and trained no student", code="not_applicable", hint=hint)
    if job.state != "succeeded":
        now = status_of(job)
        hint = "wait until it has succeeded" if now not in ("failed", "cancelled") else "a job that ended so leaves none"
        raise Problem(
            409, f"the job {id} is {now}: there is no student yet", code="not_applicable", hint=hint, more={"current_status": now}
        )
    return job


def _inputs(running: Service, caller: Tenant, source: Job) -> tuple[dict[str, Any], dict[str, str]]:
    """The job.json of the distillation and the blobs beside it, with the weights that it made in place of those it began with."""
    made = assets.list_artifacts(running.database, caller, source.id)
    weights = next((each.sha256 for each in made if each.job == source.id and each.name == WEIGHTS), None)
    if weights is None:
        raise Problem(
            409, f"the job {source.id} left no {WEIGHTS} to export", code="not_kept", hint='clone it with "safetensors" among its `exports`'
        )
    kept = {path: digest for path, digest in source.inputs["blobs"].items() if path not in _NOT_FOR_EXPORT}
    result = source.result or {}
    files = {each.name: each.sha256 for each in made if each.format != DOCUMENTS}
    task = {**source.inputs["task"], "test": result.get("test"), "result": result, "files": files}
    if epochs := result.get("epochs"):
        task["baseline"] = plain(running, caller, JobSpec.model_validate(source.spec), epochs)  # it may have been trained since
    return task, {**kept, "in/student.safetensors": weights}


def _named(gone: KeyError, blobs: dict[str, str]) -> Problem:
    """Whose bytes are not kept any more, and how they come back."""
    path = next((path for path, digest in blobs.items() if digest == gone.args[0]), "")
    what = path.removeprefix("in/").partition(".")[0]
    if what not in ("dataset", "teacher"):
        return not_kept(gone)
    return Problem(
        409,
        f"the {what}'s bytes are not kept any more, since the {what} was deleted: an export is compared with the student on them",
        code="not_kept",
        hint=f"add the same {what} again, unchanged, and ask again",
    )
