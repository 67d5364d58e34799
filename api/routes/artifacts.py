"""Artifacts: the files that a job made, and their bytes."""

import re
from collections.abc import Iterator
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from api.auth import Caller
from api.deps import Id, Running, Service
from api.problems import not_found
from api.shapes import ArtifactCard, Listing, when
from db import assets, jobs
from db.access import Tenant
from db.assets import Artifact
from db.blobs import Blobs

router = APIRouter(prefix="/v1", tags=["artifacts"])


def card(artifact: Artifact) -> ArtifactCard:
    """An artifact, as the API tells it."""
    return ArtifactCard(
        id=artifact.id,
        job=artifact.job,
        name=artifact.name,
        format=artifact.format,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        facts=dict(artifact.facts),
        created_at=when(artifact.created_at),
        content=f"/v1/artifacts/{artifact.id}/content",
    )


@router.get("/jobs/{id}/artifacts", summary="List a job's artifacts")
def of_job(running: Running, caller: Caller, id: Id) -> Listing[ArtifactCard]:
    """The files that a job made, each verified before it was offered. Empty until the job has succeeded."""
    if jobs.get_job(running.database, caller, id) is None:
        raise not_found("job", id)
    return Listing(data=[card(each) for each in assets.list_artifacts(running.database, caller, id)])


@router.get("/artifacts/{id}", summary="Get an artifact")
def get(running: Running, caller: Caller, id: Id) -> ArtifactCard:
    """What a file is: its size, its digest, and how it was verified."""
    return card(_found(running, caller, id))


@router.get(
    "/artifacts/{id}/content",
    summary="Download an artifact",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, 304: {"description": "the caller has these bytes already"}},
)
def content(running: Running, caller: Caller, id: Id, request: Request) -> Response:
    """The bytes. The ETag is their sha256."""
    artifact = _found(running, caller, id)
    headers = _headers(artifact)
    if headers["ETag"] in re.split(r"\s*,\s*", request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers={"ETag": headers["ETag"]})
    chunks = _late(Blobs(running.database, caller).get(artifact.sha256))
    return StreamingResponse(chunks, headers=headers, media_type="application/octet-stream")


@router.head("/artifacts/{id}/content", summary="Look at a download", response_class=Response)
def look(running: Running, caller: Caller, id: Id) -> Response:
    """The headers of the download, without the bytes."""
    return Response(headers=_headers(_found(running, caller, id)), media_type="application/octet-stream")


def _headers(artifact: Artifact) -> dict[str, str]:
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", artifact.name)
    return {
        "ETag": f'"{artifact.sha256}"',
        "Content-Length": str(artifact.bytes),
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(artifact.name, safe='')}",
        "Cache-Control": "private, no-cache",
    }


def _late(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks, the last one only after the store has verified the whole: damaged bytes never arrive complete."""
    held: bytes | None = None
    for chunk in chunks:
        if held is not None:
            yield held
        held = chunk
    if held is not None:
        yield held


def _found(running: Service, caller: Tenant, id: str) -> Artifact:
    artifact = assets.get_artifact(running.database, caller, id)
    if artifact is None:
        raise not_found("artifact", id)
    return artifact
