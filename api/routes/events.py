"""What happens to a job: its history as a list and live, its curves, its log, its attempts."""

import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api import curves
from api.auth import Caller
from api.deps import Id, Running, Service, find_job
from api.portrait import last_lines
from api.shapes import AttemptCard, Curves, EventCard, EventPage, Listing, LogLine, LogLines, when
from db import history, jobs
from db.access import Tenant
from db.history import Event
from db.life import Job
from db.states import TERMINAL

router = APIRouter(prefix="/v1/jobs/{id}", tags=["events"])

NAMES = {
    "status": "job.status",
    "succeeded": "job.status",
    "phase": "job.progress",
    "metrics": "job.metric",
    "evaluated": "job.metric",
    "checkpoint": "job.checkpoint",
    "artifact": "job.artifact",
    "log": "job.log",
    "attempt": "job.attempt",
}
_FURTHEST = 1 << 53
_RETRY = 3000
_PAGE = 1000

Seq = Annotated[int, Query(ge=0, le=_FURTHEST, description="the `id` of the last event that is known already")]


def card(event: Event) -> EventCard:
    """An event, as the API tells it."""
    return EventCard(id=event.seq, event=NAMES.get(event.kind, f"job.{event.kind}"), at=when(event.at), data=dict(event.data))


@router.get(
    "/events",
    summary="List or follow a job's events",
    response_model=EventPage,
    responses={200: {"content": {"text/event-stream": {}}}, 204: {"description": "a live stream that has nothing more to tell"}},
)
async def events(
    running: Running,
    caller: Caller,
    id: Id,
    request: Request,
    *,
    after: Seq = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Any:
    """The history, oldest first. With `Accept: text/event-stream` it goes on live: `id` is the place in the history, `Last-Event-ID` takes
    it up again, and `event: done` ends it."""
    job = await run_in_threadpool(find_job, running, caller, id)
    if "text/event-stream" not in request.headers.get("accept", ""):

        def listed() -> EventPage:
            rows = history.events(running.database, caller, id, after=after, limit=limit + 1)
            return EventPage(data=[card(row) for row in rows[:limit]], has_more=len(rows) > limit)

        return await run_in_threadpool(listed)
    if last_event_id is not None and last_event_id.isdigit() and len(last_event_id) < 16:
        after = int(last_event_id)
    if job.state in TERMINAL and after and after >= job.event_seq:
        return Response(status_code=204)
    with running.feeds.stream(caller):
        pass
    return EventSourceResponse(_frames(running, caller, job, after), ping=running.settings.stream_ping, sep="\n")


async def _frames(running: Service, caller: Tenant, job: Job, after: int) -> AsyncIterator[ServerSentEvent]:
    with running.feeds.stream(caller):
        async for event in running.feeds.follow(caller, job, after=after):
            told = card(event)
            data = {**told.data, "at": told.model_dump(mode="json")["at"]}
            yield ServerSentEvent(id=str(told.id), event=told.event, data=json.dumps(data, separators=(",", ":")), retry=_RETRY)
        over = await run_in_threadpool(find_job, running, caller, job.id)
        yield ServerSentEvent(event="done", data=json.dumps({"status": over.state}))


@router.get("/metrics", summary="Get a job's curves")
def metrics(
    running: Running,
    caller: Caller,
    id: Id,
    keys: Annotated[str | None, Query(max_length=2000, description="names of curves, separated by commas; all when left out")] = None,
    max_points: Annotated[int, Query(ge=4, le=100_000, description="thinned so that no peak is lost")] = 2000,
) -> Curves:
    """Columns of one length over `done`, the optimiser steps of all fits. After a resume the newest attempt's points count."""
    find_job(running, caller, id)
    blocks = history.metrics_blocks(running.database, caller, id)
    columns = curves.joined((block.fence, block.data["columns"]) for block in blocks)
    wanted = [key for key in (keys or "").split(",") if key]
    evaluated = history.events(running.database, caller, id, after=0, kinds=["evaluated"], limit=10_000)
    return Curves(
        columns=curves.thinned(curves.chosen(columns, wanted), max_points),
        evaluated=[{**each.data, "at": when(each.at)} for each in evaluated],
    )


@router.get("/logs", summary="Get a job's log")
def logs(running: Running, caller: Caller, id: Id, tail: Annotated[int, Query(ge=1, le=1000)] = 200) -> LogLines:
    """The newest lines, oldest first, and what the last attempt's child process wrote at its end."""
    find_job(running, caller, id)
    lines: deque[Event] = deque(maxlen=tail)
    while chunk := history.events(running.database, caller, id, after=lines[-1].seq if lines else 0, kinds=["log"], limit=_PAGE):
        lines.extend(chunk)
    return LogLines(
        data=[
            LogLine(at=when(line.at), level=str(line.data.get("level", "info")), message=str(line.data.get("message", "")))
            for line in lines
        ],
        child=last_lines(jobs.attempts(running.database, caller, id), tail),
    )


@router.get("/attempts", summary="List a job's attempts")
def attempts(
    running: Running,
    caller: Caller,
    id: Id,
    lines: Annotated[int, Query(ge=0, le=1000, description="how many of the last lines that each process wrote")] = 0,
) -> Listing[AttemptCard]:
    """Every time a worker took the job, and how that ended."""
    find_job(running, caller, id)
    return Listing(
        data=[
            AttemptCard(
                fence=each.fence,
                worker=each.worker,
                started_at=when(each.started_at),
                finished_at=None if each.ended_at is None else when(each.ended_at),
                code=each.code,
                exit_code=each.exit_code,
                signal=each.signal,
                max_rss=each.max_rss,
                lines=last_lines([each], lines) if lines else [],
            )
            for each in jobs.attempts(running.database, caller, id)
        ]
    )
