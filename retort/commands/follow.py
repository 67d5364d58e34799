"""`retort watch` and `logs`: what a job does and says."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from retort import render
from retort.commands import sweeps
from retort.errors import Misused
from retort.job import Job
from retort.session import Session, connected
from retort.values import Event
from retort.watch import news
from retort.watch import watch as show


@connected
def watch(session: Session, ids: Annotated[list[str], typer.Argument(metavar="ID", help="One job or several, or one sweep.")]) -> None:
    """Show jobs as they run, until all of them rest, or a sweep until it ends. Ctrl-C detaches; it never cancels."""
    client = session.client()
    if any(id.startswith("swp_") for id in ids):
        if len(ids) > 1:
            raise Misused("one sweep is watched at a time, and no jobs beside it")
        sweeps.attend(session, client.sweeps.get(ids[0]))
        return
    attend(session, [client.jobs.get(id) for id in ids])


def attend(session: Session, jobs: Sequence[Job]) -> None:
    """Watch the jobs, answer with what became of them, and end with 1 unless all succeeded."""
    ids = " ".join(job.id for job in jobs)
    try:
        ended = show(jobs, session.err)
    except KeyboardInterrupt:
        session.say(f"\ndetached; {'the job goes' if len(jobs) == 1 else 'the jobs go'} on. Watch again: retort watch {ids}")
        raise typer.Exit(130) from None
    raw = [dict(job.raw) for job in ended]
    session.answer(raw[0] if len(raw) == 1 else {"object": "list", "data": raw}, Group(*(_ended(job) for job in ended)))
    if any(job.status != "succeeded" for job in ended):
        raise typer.Exit(1)


def _ended(job: Job) -> Text:
    who = f"{job.id} {job.name}".rstrip()
    if job.status == "succeeded":
        return Text.assemble(f"{who}: ", render.status(job.status), f", {news(job)}; its files: retort download {job.id}")
    text = Text.assemble(f"{who}: ", render.status(job.status))
    trouble = render.problem(job)
    if trouble:
        text.append("\n").append(trouble)
    ways = {"paused": "resume", "quarantined": "release", "failed": "retry"}
    if job.status in ways:
        text.append(f"\n  go on with: retort {ways[job.status]} {job.id}")
    return text


@connected
def logs(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="JOB", help="The id of a job.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job is over; Ctrl-C detaches.")] = False,
    tail: Annotated[int | None, typer.Option(min=1, help="Only the last lines.")] = None,
) -> None:
    """Show what a job said."""
    job = session.client().jobs.get(id)
    if not follow:
        said = job.logs(tail=tail)
        lines = [_line(each) for each in said["data"]]
        if said.get("child"):
            lines += ["what its process wrote last:", *(f"    {line}" for line in said["child"])]
        session.answer(said, Text("\n".join(lines) or f"no messages; what happened: retort logs -f {id}"))
        return
    told: list[dict[str, Any]] = []
    try:
        for event in job.events():
            line = line_of(event)
            if line is None:
                continue
            told.append({"id": event.id, "event": event.kind, "at": event.at, "data": dict(event.data)})
            if not session.json:
                session.out.print(line)
    except KeyboardInterrupt:
        session.say(f"\ndetached; the job goes on. Again: retort logs -f {id}")
        raise typer.Exit(130) from None
    if session.json:
        session.answer({"object": "list", "data": told}, "")


def _line(entry: dict[str, Any]) -> str:
    return f"{entry.get('at') or '':<27} {entry.get('level', 'info'):<7} {entry.get('message', '')}"


def line_of(event: Event) -> str | None:
    """What a person reads of an event, None where that is nothing."""
    data = event.data
    if event.kind == "job.log":
        return _line({"at": event.at, **data})
    words = {
        "job.status": lambda: f"status {data.get('state', data.get('status', ''))}{_wish(data)}",
        "job.progress": lambda: f"phase {data.get('phase', '')}",
        "job.checkpoint": lambda: f"checkpoint at step {data.get('done', data.get('step', ''))}",
        "job.artifact": lambda: f"artifact {data.get('name', '')}",
        "job.attempt": lambda: f"attempt ended: {data.get('code') or 'complete'}",
    }
    return _line({"at": event.at, "message": words[event.kind]()}) if event.kind in words else None


def _wish(data: Mapping[str, Any]) -> str:
    wish = data.get("desired", "run")
    return f", asked to {wish}" if data.get("state") == "running" and wish != "run" else ""
