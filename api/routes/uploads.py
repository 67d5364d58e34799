"""Uploads: declare the bytes, send them whole or in parts from the offset that is kept, use them in an asset or a job."""

import re
from pathlib import PurePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.concurrency import run_in_threadpool

from api.auth import Caller
from api.deps import After, Id, Limit, Roomy, Running, Service, need_room
from api.problems import Problem, not_found
from api.receiving import Line
from api.shapes import Listing, UploadCard, page, when
from db import uploads
from db.access import Tenant
from db.uploads import TTL, Upload, Writer

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

_NUMBER = re.compile(r"\d{1,18}")
_PARTIAL = "application/partial-upload"
_TUS = "application/offset+octet-stream"
_TYPES = "https://iana.org/assignments/http-problem-types"
"""Where the draft on resumable uploads has its types of problems."""
_BODY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


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
        failed=upload.failed,
        sha256=upload.sha256,
        created_at=when(upload.created_at),
        expires_at=when(upload.expires_at),
    )


@router.post("", status_code=status.HTTP_201_CREATED, summary="Declare an upload")
def create(running: Running, caller: Caller, body: UploadRequest, response: Response) -> UploadCard:
    """Declare how many bytes will come and their sha256; then send them to `/v1/uploads/{id}/content`."""
    _check_size(running, body.bytes)
    need_room(running, body.bytes)
    upload = uploads.create_upload(
        running.database,
        caller,
        purpose=body.purpose,
        filename=body.filename,
        bytes=body.bytes,
        sha256=body.sha256,
        max_bytes=running.settings.max_upload,
    )
    response.headers["Location"] = f"/v1/uploads/{upload.id}"
    response.headers.update(_progress(running, upload))
    return card(upload)


@router.get("", summary="List uploads")
def index(
    running: Running,
    caller: Caller,
    *,
    limit: Limit = 20,
    after: After = None,
    sha256: Annotated[str | None, Query(pattern=r"^[0-9a-f]{64}$", description="only those of these bytes")] = None,
    status: Annotated[uploads.Status | None, Query(description="only those in this state")] = None,
) -> Listing[UploadCard]:
    """Newest first. By the digest of a file, an upload of it that was cut off is found again."""
    rows = uploads.list_uploads(running.database, caller, limit=limit + 1, after=after, sha256=sha256, status=status)
    return page(rows, [card(row) for row in rows[:limit]], limit)


@router.get("/{id}", summary="Get an upload")
def get(running: Running, caller: Caller, id: Id) -> UploadCard:
    """What was declared, and how much of it came."""
    return card(_found(running, caller, id))


@router.delete("/{id}", status_code=status.HTTP_204_NO_CONTENT, summary="Delete an upload")
def delete(running: Running, caller: Caller, id: Id) -> None:
    """Forget an upload. What was made from it stays."""
    try:
        if not uploads.delete_upload(running.database, caller, id, stale=running.receiving.stale):
            _found(running, caller, id)
    except uploads.Busy:
        raise _busy(id) from None


@router.head("/{id}/content", status_code=status.HTTP_204_NO_CONTENT, summary="Ask for the offset", response_class=Response)
def offset(running: Running, caller: Caller, id: Id) -> Response:
    """From where to go on. Whoever was sending this upload is cut off: ask only when the line before is known to be dead."""
    upload = uploads.evict(running.database, caller, id)
    if upload is None:
        raise not_found("upload", id)
    return Response(status_code=status.HTTP_204_NO_CONTENT, headers=_progress(running, upload))


@router.put(
    "/{id}/content",
    dependencies=[Roomy],
    summary="Send all bytes",
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": _BODY}}},
)
async def put(running: Running, caller: Caller, id: Id, request: Request, response: Response) -> UploadCard:
    """Send the whole file as the raw body, with its Content-Length. It begins anew, whatever came before; what comes is kept if it breaks
    off, and PATCH goes on from there.
    """
    upload = await _open(running, caller, id)
    length = request.headers.get("content-length", "")
    if not _NUMBER.fullmatch(length):
        raise Problem(411, "the request has no Content-Length", hint="send the file whole, not in chunks of unknown number")
    if int(length) != upload.bytes:
        raise _other_length(f"{length} bytes are announced, declared were {upload.bytes}")
    async with running.receiving.line(lambda: _writer(running, caller, id, None)) as line:
        await line.take(request.receive)
        return await _finish(running, line, response)


@router.patch(
    "/{id}/content",
    dependencies=[Roomy],
    summary="Send the next bytes",
    response_model=UploadCard,
    responses={204: {"description": "they are kept; Upload-Offset says how far it is"}},
    openapi_extra={"requestBody": {"required": True, "content": {_PARTIAL: _BODY, _TUS: _BODY}}},
)
async def patch(
    running: Running,
    caller: Caller,
    id: Id,
    *,
    request: Request,
    response: Response,
    upload_offset: Annotated[str, Header(pattern=r"^\d{1,18}$", description="where these bytes begin")],
    upload_complete: Annotated[str | None, Header(pattern=r"^\?[01]$", description="?1: they are the last; ?0: more will come")] = None,
    upload_length: Annotated[str | None, Header(pattern=r"^\d{1,18}$", description="of the whole, if it shall be compared")] = None,
) -> Any:
    """Send bytes from the offset that is kept. With `Upload-Complete: ?1` they are the last ones, and the upload is completed."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in (_PARTIAL, _TUS):
        raise Problem(415, f"a part of an upload is {_PARTIAL} here, not {media or 'without a type'}")
    if upload_complete is None and media == _PARTIAL:
        raise Problem(400, "the request has no Upload-Complete", hint="?1 if these are the last bytes, ?0 if more will come")
    upload = await _open(running, caller, id)
    begin, length = int(upload_offset), request.headers.get("content-length", "0")
    end = begin + int(length) if _NUMBER.fullmatch(length) else begin
    if end > upload.bytes or (upload_length is not None and int(upload_length) != upload.bytes):
        raise _other_length(f"{upload_length or end} bytes are announced, declared were {upload.bytes}")
    async with running.receiving.line(lambda: _writer(running, caller, id, begin)) as line:
        await line.take(request.receive)
        now = line.writer.upload
        # tus has no word for the end: it is where the declared length is reached.
        if upload_complete == "?1" or (upload_complete is None and now.received == now.bytes):
            return await _finish(running, line, response)
    return Response(status_code=status.HTTP_204_NO_CONTENT, headers=_progress(running, now))


@router.post("/{id}/complete", dependencies=[Roomy], summary="Complete an upload")
async def complete(running: Running, caller: Caller, id: Id, response: Response) -> UploadCard:
    """For an upload whose bytes are all there: compare their sha256 with the declared one. One that is completed stays so."""
    upload = await run_in_threadpool(_found, running, caller, id)
    if upload.status == "completed":
        response.headers.update(_progress(running, upload))
        return card(upload)
    async with running.receiving.line(lambda: _writer(running, caller, id, upload.offset)) as line:
        return await _finish(running, line, response)


async def _finish(running: Service, line: Line, response: Response) -> UploadCard:
    try:
        done = await line.finish()
    except uploads.Mismatch as wrong:
        raise Problem(
            422, str(wrong), code="digest_mismatch", headers={"Upload-Offset": "0"},
            hint="the file changed or was damaged on its way: send it again from 0, or declare a new upload",
        ) from None  # fmt: skip
    response.headers.update(_progress(running, done))
    return card(done)


def _writer(running: Service, caller: Tenant, id: str, offset: int | None) -> Writer:
    try:
        return uploads.write(running.database, caller, id, offset=offset, stale=running.receiving.stale)
    except KeyError:
        raise not_found("upload", id) from None
    except uploads.Ended as ended:
        raise _ended(ended.status) from None
    except uploads.Busy:
        raise _busy(id) from None
    except uploads.WrongOffset as wrong:
        raise Problem(
            409, f"the bytes from {offset} on came, but those from {wrong.expected} on come next", code="wrong_offset",
            type=f"{_TYPES}#mismatching-upload-offset", headers={"Upload-Offset": str(wrong.expected)},
            more={"expected-offset": wrong.expected, "provided-offset": offset}, hint="go on from the expected offset",
        ) from None  # fmt: skip


async def _open(running: Service, caller: Tenant, id: str) -> Upload:
    """An upload that takes bytes."""
    upload = await run_in_threadpool(_found, running, caller, id)
    if upload.status != "pending":
        raise _ended(upload.status)
    _check_size(running, upload.bytes)
    return upload


def _progress(running: Service, upload: Upload) -> dict[str, str]:
    return {
        "Upload-Offset": str(upload.offset),
        "Upload-Complete": f"?{int(upload.status == 'completed')}",
        "Upload-Length": str(upload.bytes),
        "Upload-Limit": f"max-size={running.settings.max_upload}, max-age={int(TTL)}",
        "Cache-Control": "no-store",
    }


def _check_size(running: Service, bytes: int) -> None:
    most = running.settings.max_upload
    if bytes > most:
        raise Problem(413, f"an upload is at most {most} bytes here", hint="the operator sets RETORT_MAX_UPLOAD")


def _busy(id: str) -> Problem:
    return Problem(423, f"another request is sending {id} at this moment", code="upload_busy", hint="wait until it ends")


def _ended(status: str) -> Problem:
    more = {"current_status": status}
    return Problem(409, f"the upload is {status} already", code=f"already_{status}", type=f"{_TYPES}#completed-upload", more=more)


def _other_length(detail: str) -> Problem:
    hint = "declare a new upload"
    return Problem(422, detail, code="length_mismatch", type=f"{_TYPES}#inconsistent-upload-length", hint=hint)


def _found(running: Service, caller: Tenant, id: str) -> Upload:
    upload = uploads.get_upload(running.database, caller, id)
    if upload is None:
        raise not_found("upload", id)
    return upload
