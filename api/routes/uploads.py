"""Uploads: declare the bytes, send them, use them in an asset or a job."""

import re
from pathlib import PurePath
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.auth import Caller
from api.deps import Id, Roomy, Running, Service, need_room
from api.problems import Problem, not_found
from api.shapes import UploadCard, when
from db import assets
from db.access import Tenant
from db.assets import Upload
from db.blobs import Blobs
from db.crashpoint import crashpoint

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

_LENGTH = re.compile(r"\d{1,18}")


class UploadRequest(BaseModel):
    """The bytes that will be sent."""

    model_config = ConfigDict(extra="forbid")

    purpose: Literal["teacher", "dataset", "student"]
    filename: str = Field(min_length=1, max_length=255, description="a label for people; nothing is stored under it")
    bytes: int = Field(ge=1, le=1 << 53)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="of the whole file, in lower-case hexadecimal")]

    @field_validator("filename")
    @classmethod
    def _last_part(cls, value: str) -> str:
        return PurePath(value.replace("\\", "/")).name or "file"


def card(upload: Upload) -> UploadCard:
    """An upload, as the API tells it."""
    return UploadCard(
        id=upload.id,
        status=upload.status,
        purpose=upload.purpose,
        filename=upload.filename,
        bytes=upload.bytes,
        offset=upload.offset,
        sha256=upload.sha256,
        created_at=when(upload.created_at),
        expires_at=when(upload.expires_at),
    )


@router.post("", status_code=status.HTTP_201_CREATED, summary="Declare an upload")
def create(running: Running, caller: Caller, body: UploadRequest, response: Response) -> UploadCard:
    """Declare how many bytes will come and their sha256; then send them to `/v1/uploads/{id}/content`."""
    most = running.settings.max_upload
    if body.bytes > most:
        raise Problem(413, f"an upload is at most {most} bytes here", hint="the operator sets RETORT_MAX_UPLOAD")
    need_room(running, body.bytes)
    upload = assets.create_upload(
        running.database,
        caller,
        purpose=body.purpose,
        filename=body.filename,
        bytes=body.bytes,
        sha256=body.sha256,
        max_bytes=most,
    )
    response.headers["Location"] = f"/v1/uploads/{upload.id}"
    return card(upload)


@router.get("/{id}", summary="Get an upload")
def get(running: Running, caller: Caller, id: Id) -> UploadCard:
    """What was declared, and whether the bytes came."""
    return card(_found(running, caller, id))


@router.delete("/{id}", status_code=status.HTTP_204_NO_CONTENT, summary="Delete an upload")
def delete(running: Running, caller: Caller, id: Id) -> None:
    """Forget an upload. What was made from it stays."""
    _found(running, caller, id)
    with running.receiving.alone(id):
        assets.delete_upload(running.database, caller, id)


@router.put(
    "/{id}/content",
    dependencies=[Roomy],
    summary="Send the bytes",
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def put(running: Running, caller: Caller, id: Id, request: Request) -> UploadCard:
    """Send the whole file as the raw body, with its Content-Length. If it fails, the upload stays pending: send it again."""
    upload = await run_in_threadpool(_found, running, caller, id)
    if upload.status != "pending":
        raise Problem(
            409, f"the upload is {upload.status} already", code=f"already_{upload.status}", more={"current_status": upload.status}
        )
    length = request.headers.get("content-length", "")
    if not _LENGTH.fullmatch(length):
        raise Problem(411, "the request has no Content-Length", hint="send the file whole, not in chunks of unknown number")
    if int(length) > running.settings.max_upload:
        raise Problem(413, f"an upload is at most {running.settings.max_upload} bytes here")
    if int(length) != upload.bytes:
        raise Problem(
            422, f"{length} bytes are announced, declared were {upload.bytes}", code="length_mismatch", hint="declare a new upload"
        )
    with running.receiving.alone(id):
        try:
            stored = await running.receiving.keep(
                request.stream(), Blobs(running.database, caller), length=upload.bytes, sha256=upload.sha256
            )
        except ClientDisconnect:
            raise Problem(400, "the sender hung up before all bytes came", hint="send the whole file again", retryable=True) from None
        crashpoint("upload.before_ready")
        try:
            done = await run_in_threadpool(assets.complete_upload, running.database, caller, id, digest=stored)
        except KeyError:
            raise not_found("upload", id) from None
    return card(done)


def _found(running: Service, caller: Tenant, id: str) -> Upload:
    upload = assets.get_upload(running.database, caller, id)
    if upload is None:
        raise not_found("upload", id)
    return upload
