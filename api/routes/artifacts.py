"""Artifacts: the files that a job made, their bytes, and all of them as one zip."""

from collections.abc import Iterator

from fastapi import APIRouter, Request, Response

from api.auth import Caller
from api.bundle import bundle, layout
from api.deps import Id, Running, Service, find_job
from api.portrait import status_of
from api.problems import Problem, not_found
from api.sending import RESPONSES, Representation, send
from api.shapes import ArtifactCard, Listing, when
from db import assets
from db.access import Tenant
from db.assets import Artifact
from db.blobs import Blobs
from db.life import Job

router = APIRouter(prefix="/v1", tags=["artifacts"])


def card(artifact: Artifact, path: str | None) -> ArtifactCard:
    """An artifact, as the API tells it."""
    return ArtifactCard(
        id=artifact.id,
        job=artifact.job,
        name=artifact.name,
        path=path,
        format=artifact.format,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        facts=dict(artifact.facts),
        created_at=when(artifact.created_at),
        content=f"/v1/artifacts/{artifact.id}/content",
        warning=artifact.facts.get("warning"),
    )


@router.get("/jobs/{id}/artifacts", summary="List a job's artifacts")
def of_job(running: Running, caller: Caller, id: Id) -> Listing[ArtifactCard]:
    """The files that a job made, and later exports of its student, each verified before it was offered. Empty until the job has
    succeeded."""
    job = find_job(running, caller, id)
    paths = _paths(running, caller, job)
    return Listing(data=[card(each, paths.get(each.id)) for each in assets.list_artifacts(running.database, caller, id)])


@router.get("/artifacts/{id}", summary="Get an artifact")
def get(running: Running, caller: Caller, id: Id) -> ArtifactCard:
    """What a file is: its size, its digest, and how it was verified."""
    artifact = _found(running, caller, id)
    return card(artifact, _paths(running, caller, find_job(running, caller, artifact.job)).get(id))


@router.get(
    "/artifacts/{id}/content",
    summary="Download an artifact",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, **RESPONSES},
)
def content(running: Running, caller: Caller, id: Id, request: Request) -> Response:
    """The bytes, or one range of them. The ETag is their sha256, and so is what Repr-Digest says in base64."""
    return send(request, _bytes_of(running, caller, id))


@router.head("/artifacts/{id}/content", summary="Look at a download", response_class=Response)
def look(running: Running, caller: Caller, id: Id, request: Request) -> Response:
    """The headers of the download, without the bytes."""
    return send(request, _bytes_of(running, caller, id))


@router.get(
    "/jobs/{id}/bundle",
    summary="Download all files of a job",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}, 409: {"description": "there are no files yet"}, **RESPONSES},
)
def download_bundle(running: Running, caller: Caller, id: Id, request: Request) -> Response:
    """One zip, laid out as a repository of the Hugging Face Hub, with SHA256SUMS of all files. The same files are the same bytes with the
    same ETag, so that ranges and If-Range hold as for one file, until a further export adds to it."""
    return send(request, _bundle_of(running, caller, id))


@router.head("/jobs/{id}/bundle", summary="Look at all files of a job", response_class=Response)
def look_at_bundle(running: Running, caller: Caller, id: Id, request: Request) -> Response:
    """The headers of the bundle, without the bytes."""
    return send(request, _bundle_of(running, caller, id))


def _paths(running: Service, caller: Tenant, job: Job) -> dict[str, str]:
    """Where the files of a job lie in the bundle of the one that trained the student."""
    source = job.spec["job"] if job.kind == "export" else job.id
    return layout(assets.list_artifacts(running.database, caller, source))


def _bytes_of(running: Service, caller: Tenant, id: str) -> Representation:
    artifact = _found(running, caller, id)
    blobs = Blobs(running.database, caller)

    def read(start: int, stop: int) -> Iterator[bytes]:
        return blobs.get(artifact.sha256, start=start, stop=stop)

    return Representation(artifact.name, "application/octet-stream", artifact.sha256, artifact.bytes, artifact.sha256, read)


def _bundle_of(running: Service, caller: Tenant, id: str) -> Representation:
    job = find_job(running, caller, id)
    made = assets.list_artifacts(running.database, caller, id)
    if not made:
        now = status_of(job)
        hint = "wait until it has succeeded" if now not in ("failed", "cancelled") else "a job that ended so leaves none"
        raise Problem(409, f"the job {id} has no files: it is {now}", code="no_artifacts", hint=hint, more={"current_status": now})
    return bundle(running.database, caller, made, name=id)


def _found(running: Service, caller: Tenant, id: str) -> Artifact:
    artifact = assets.get_artifact(running.database, caller, id)
    if artifact is None:
        raise not_found("artifact", id)
    return artifact
