"""Bytes on their way out: conditional requests, one range at a time, and digests, as RFC 9110 and RFC 9530 have them."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import anyio.to_thread
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from api.problems import Problem

RESPONSES: dict[int | str, dict[str, Any]] = {
    206: {"description": "the range that was asked for"},
    304: {"description": "the caller has these bytes already"},
    416: {"description": "the range begins behind the end, which Content-Range tells"},
}
"""What a download may answer besides the whole, for the documentation of its route."""

_LONGEST = 64
_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Representation:
    """A file to send. `tag` is its strong validator, `sha256` its digest where that is known before it was read; `read(start, stop)`
    gives its bytes from `start` up to `stop`, in mebibytes or so."""

    name: str
    media: str
    tag: str
    size: int
    sha256: str | None
    read: Callable[[int, int], Iterator[bytes]]


def send(request: Request, file: Representation) -> Response:
    """The file, or the one range of it that was asked for; 304 where the caller has it, a Problem where the range begins behind its end.

    Several ranges, and a header that is none, are answered with the whole, as RFC 9110 allows: no request makes the service
    collect pieces.
    """
    headers = {"ETag": f'"{file.tag}"', "Cache-Control": "private, no-cache"}
    if _has(request, file.tag):
        return Response(status_code=304, headers=headers)
    headers |= {
        "Accept-Ranges": "bytes",
        "Content-Length": str(file.size),
        "Content-Disposition": _attachment(file.name),
    }
    if file.sha256:
        headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(file.sha256)).decode()}:"
    if request.method == "HEAD":
        return Response(headers=headers, media_type=file.media)
    wanted = _range(request, file)
    if wanted is None:
        return StreamingResponse(_ahead(_late(file.read(0, file.size))), headers=headers, media_type=file.media)
    start, stop = wanted
    if start >= stop:
        raise Problem(
            416,
            f"the range begins behind the end: there are {file.size} bytes",
            hint="whoever has all of them needs no more; else ask without a Range",
            headers={"Content-Range": f"bytes */{file.size}", "ETag": headers["ETag"]},
        )
    headers |= {"Content-Length": str(stop - start), "Content-Range": f"bytes {start}-{stop - 1}/{file.size}"}
    return StreamingResponse(_ahead(file.read(start, stop)), 206, headers=headers, media_type=file.media)


def _has(request: Request, tag: str) -> bool:
    """Whether If-None-Match names the tag. A weak one counts: for this question RFC 9110 compares weakly."""
    given = [each.strip().removeprefix("W/") for line in request.headers.getlist("if-none-match") for each in line.split(",")]
    return f'"{tag}"' in given or given == ["*"]


def _range(request: Request, file: Representation) -> tuple[int, int] | None:
    """(start, stop) of the wanted range, empty where it cannot be satisfied; None where the whole is to be sent."""
    asked = request.headers.getlist("range")
    unchanged = request.headers.get("if-range", f'"{file.tag}"') == f'"{file.tag}"'  # a date or a weak tag promises nothing
    if len(asked) != 1 or len(asked[0]) > _LONGEST or not unchanged:
        return None
    found = _RANGE.fullmatch(asked[0])
    first, last = found.groups() if found else ("", "")
    if not (first or last):
        return None
    if not first:  # the last so many bytes
        if file.size == 0 and int(last):
            return None  # it could be satisfied, with nothing, which Content-Range cannot say
        return max(0, file.size - int(last)), file.size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, file.size) if last else file.size


def _attachment(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


async def _ahead(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks, each read on a thread while the one before it goes out."""
    coming = asyncio.create_task(anyio.to_thread.run_sync(next, chunks, None))
    try:
        while (chunk := await coming) is not None:
            coming = asyncio.create_task(anyio.to_thread.run_sync(next, chunks, None))
            yield chunk
    finally:
        coming.add_done_callback(lambda read: read.cancelled() or read.exception())  # nobody waits for it where the caller hung up


def _late(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks, the last one only after the store has verified the whole: damaged bytes never arrive complete."""
    held: bytes | None = None
    for chunk in chunks:
        if held is not None:
            yield held
        held = chunk
    if held is not None:
        yield held
