"""Sending a file: its digest first, then its bytes in one streamed request, a mebibyte at a time."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from retort.connection import Connection
from retort.errors import ApiError, Misused
from retort.values import Upload

Progress = Callable[[int, int], None]
"""Called with the bytes that went over and the bytes in all."""

_CHUNK = 1 << 20


def upload(connection: Connection, path: Path, *, purpose: str, progress: Progress | None = None) -> Upload:
    """Send a file; the completed upload. The digest goes before the bytes, so the service refuses a damaged transfer.

    `Misused` where the file cannot be read, `ApiError` where the service refuses it. A repeated transfer begins anew.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
    except OSError as wrong:
        raise Misused(f"cannot read {path}: {wrong.strerror or wrong}") from wrong
    declared = {"purpose": purpose, "filename": path.name, "bytes": size, "sha256": digest}
    created = Upload.of(connection.request("POST", "/v1/uploads", body=declared))
    headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
    try:
        answer = connection.request(
            "PUT", f"/v1/uploads/{created.id}/content", headers=headers, content=lambda: _chunks(path, size, progress), timeout=300.0
        )
    except ApiError as refused:
        if refused.status != 409:
            raise
        # The line broke after the last byte and before the answer; the second attempt found the upload complete.
        answer = connection.request("GET", f"/v1/uploads/{created.id}")
        if answer["status"] != "completed":
            raise
    return Upload.of(answer)


def _chunks(path: Path, size: int, progress: Progress | None) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while chunk := file.read(min(_CHUNK, size - sent)):
            sent += len(chunk)
            yield chunk
            if progress:
                progress(sent, size)
