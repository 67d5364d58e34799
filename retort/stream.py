"""A job's history as it grows: server-sent events, reconnected at the last id that came, else pages asked for again and again."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import httpx

from retort.connection import Connection, pause
from retort.errors import ApiError, Unreachable
from retort.values import Event

_BROKEN_STREAMS = 3
_NO_STREAM_NOW = frozenset({406, 429, 503})
_SILENCE = 45.0
"""The service sends a comment every 15 s: three missed ones mean a dead line."""


@dataclass(slots=True)
class Frame:
    """One server-sent event: its `event` name, its `id` (empty where it has none) and its `data`."""

    event: str = ""
    id: str = ""
    data: list[str] = field(default_factory=list)


def frames(lines: Iterable[str]) -> Iterator[Frame]:
    """The events of a text/event-stream, line by line, as the HTML standard parses them; an unfinished one at the end is dropped.

    >>> [(each.event, each.id, each.data) for each in frames([": hello", "id: 7", "event: job.log", "data: {}", ""])]
    [('job.log', '7', ['{}'])]
    """
    frame = Frame()
    for line in lines:
        if not line:
            if frame.event or frame.data:
                yield frame
            frame = Frame()
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            frame.event = value
        elif name == "id":
            frame.id = value
        elif name == "data":
            frame.data.append(value)


def follow(connection: Connection, job: str, *, after: int = 0, poll: float = 1.0) -> Iterator[Event]:
    """Every event of the job with an id above `after`, in order, each once, until the job is over.

    A broken stream is taken up again where it stopped. After three in a row that brought nothing, or where the service gives no
    stream, the same events are asked for page by page, `poll` seconds apart.
    """
    last, broken = after, 0
    while broken < _BROKEN_STREAMS:
        try:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
            with connection.open("GET", f"/v1/jobs/{job}/events", headers=headers, timeout=_SILENCE) as response:
                if response.status_code == httpx.codes.NO_CONTENT:
                    return
                if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                    break
                for frame in frames(response.iter_lines()):
                    if frame.event == "done":
                        return
                    if frame.id.isdigit() and int(frame.id) > last:
                        last, broken = int(frame.id), 0
                        yield _event(frame)
        except Unreachable:
            pass  # what happened meanwhile is told by the next stream, or by the pages
        except ApiError as refused:
            if refused.status not in _NO_STREAM_NOW:
                raise
            break
        broken += 1
        time.sleep(pause(broken))
    yield from _pages(connection, job, after=last, poll=poll)


def _event(frame: Frame) -> Event:
    data = json.loads("\n".join(frame.data) or "{}")
    return Event(id=int(frame.id), kind=frame.event, at=str(data.pop("at", "")), data=data)


def _pages(connection: Connection, job: str, *, after: int, poll: float) -> Iterator[Event]:
    last = after
    while True:
        # Read before the page: what happened up to the end is then surely in the pages that follow.
        over = connection.request("GET", f"/v1/jobs/{job}")["is_terminal"]
        page = connection.request("GET", f"/v1/jobs/{job}/events", params={"after": last, "limit": 100})
        for raw in page["data"]:
            event = Event.of(raw)
            last = event.id
            yield event
        if not page["has_more"]:
            if over:
                return
            time.sleep(poll)
