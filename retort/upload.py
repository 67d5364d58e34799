"""Sending a file: its digest first, then its bytes, from the offset that the service has kept, as often as the line breaks."""

import hashlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from retort.connection import Connection, pause
from retort.errors import ApiError, Misused, Unreachable
from retort.values import Upload

Progress = Callable[[int, int], None]
"""Called with the bytes that went over and the bytes in all."""

_CHUNK = 1 << 20
_PATIENCE = 8
"""So many attempts one after the other bring the service no further before it is given up."""
_PASSING = frozenset({408, 423, 502, 503, 504, "wrong_offset", "upload_evicted", "already_completed"})
"""After these answers the offset tells how to go on."""
_LONG = 300.0


def upload(connection: Connection, path: Path, *, purpose: str, progress: Progress | None = None) -> Upload:
    """Send a file; the completed upload. What an earlier attempt at the same bytes left is gone on with, and so is a broken line.

    `Misused` where the file cannot be read or changes meanwhile, `ApiError` where the service refuses it.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
    except OSError as wrong:
        raise Misused(f"cannot read {path}: {wrong.strerror or wrong}") from wrong
    if size == 0:
        raise Misused(f"{path} is empty")
    pending = connection.pages("/v1/uploads", sha256=digest, status="pending")
    found = next((each for each in pending if (each["purpose"], each["bytes"]) == (purpose, size)), None)
    if found is None:
        found = connection.request("POST", "/v1/uploads", body={"purpose": purpose, "filename": path.name, "bytes": size, "sha256": digest})
    begun = int(found["offset"])
    try:
        return _send(connection, Upload.of(found), path, progress)
    except ApiError as refused:
        if refused.code != "digest_mismatch":
            raise
        if not begun:
            raise Misused(f"{path} changed while it was sent", hint="send it again when nothing writes it") from refused
        return _send(connection, Upload.of(found), path, progress)  # what an earlier attempt had sent was something else


def _send(connection: Connection, upload: Upload, path: Path, progress: Progress | None) -> Upload:
    content = f"/v1/uploads/{upload.id}/content"
    reached, attempt = -1, 0
    while True:
        try:
            with connection.open("HEAD", content) as answer:
                offset, ended = int(answer.headers["Upload-Offset"]), answer.headers["Upload-Complete"]
            if ended == "?1":  # the line broke between the last byte and the answer
                return Upload.of(connection.request("GET", f"/v1/uploads/{upload.id}"))
            if offset > reached:
                reached, attempt = offset, 0
            headers = {
                "Upload-Offset": str(offset), "Upload-Complete": "?1", "Content-Type": "application/partial-upload",
                "Content-Length": str(upload.bytes - offset),
            }  # fmt: skip
            rest = partial(_rest, path, offset, upload.bytes, progress)
            return Upload.of(connection.request("PATCH", content, headers=headers, content=rest, timeout=_LONG))
        except (ApiError, Unreachable) as broken:
            if attempt == _PATIENCE or (isinstance(broken, ApiError) and {broken.code, broken.status}.isdisjoint(_PASSING)):
                raise
        time.sleep(pause(attempt))
        attempt += 1


def _rest(path: Path, offset: int, size: int, progress: Progress | None) -> Iterator[bytes]:
    """The bytes from the offset on."""
    if progress:
        progress(offset, size)
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(min(_CHUNK, size - offset)):
            offset += len(chunk)
            yield chunk
            if progress:
                progress(offset, size)
    if offset != size:
        raise Misused(f"{path} became shorter while it was sent", hint="send it again when nothing writes it")
