"""`retort download` and `export`: what a job leaves, and its student in further formats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from retort import render
from retort.client import Client
from retort.commands.upload import transfer
from retort.download import write_sums
from retort.errors import Misused
from retort.job import Job
from retort.render_exports import exports as table
from retort.session import Session, connected
from retort.values import Artifact, Export

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id of a job that succeeded.")]


@connected
def download(
    session: Session,
    id: JobId,
    *,
    to: Annotated[Path | None, typer.Option(help="The folder to write to.", show_default="./JOB, . for a bundle")] = None,
    format: Annotated[list[str] | None, typer.Option(help="Only the files of this format; may be repeated.")] = None,
    bundle: Annotated[bool, typer.Option("--bundle", help="All files as one zip, JOB.zip.")] = False,
) -> None:
    """Fetch the files of a job, each verified by its digest before it gets its name. What broke off goes on where it stopped."""
    if bundle and format:
        raise Misused("a bundle holds every format", hint="leave out --bundle for the files of one format")
    job = session.client().jobs.get(id)
    artifacts = [each for each in job.artifacts() if each.path is not None]
    if not artifacts:
        raise Misused(f"{id} has no files: it is {job.status}", hint="" if job.is_terminal else f"retort watch {id}")
    if bundle:
        with transfer(session, f"{id}.zip") as report:
            path = job.download_bundle(to or Path(), progress=report)
        _warn(session, artifacts)
        session.answer({"job": id, "bundle": str(path), "bytes": path.stat().st_size}, render.files([(str(path), path.stat().st_size)]))
        return
    _fetch(session, job, _of(artifacts, format or ()), to or Path(id), whole=not format)


def _fetch(session: Session, job: Job, artifacts: Sequence[Artifact], folder: Path, *, whole: bool) -> None:
    client = session.client()
    paths = []
    for artifact in artifacts:
        with transfer(session, artifact.name) as report:
            paths.append(client.artifacts.download(artifact, folder, progress=report))
    files = [
        {"path": str(path), "bytes": each.bytes, "sha256": each.sha256, "id": each.id} for path, each in zip(paths, artifacts, strict=True)
    ]
    if whole:
        sums = write_sums(artifacts, folder)
        files.append({"path": str(sums), "bytes": sums.stat().st_size})
    _warn(session, artifacts)
    session.answer(
        {"job": job.id, "folder": str(folder), "files": files}, render.files((str(each["path"]), int(str(each["bytes"]))) for each in files)
    )


def _of(artifacts: Sequence[Artifact], formats: Sequence[str]) -> list[Artifact]:
    """Those of the formats, all where none is named; `Misused` with the formats there are."""
    there = sorted({each.format for each in artifacts})
    for format in formats:
        if format not in there:
            raise Misused(f"there is no {format!r} of this job", hint=f"there is {', '.join(there)}; retort export JOB makes others")
    return [each for each in artifacts if not formats or each.format in formats]


def _warn(session: Session, artifacts: Sequence[Artifact]) -> None:
    for artifact in artifacts:
        if artifact.raw.get("warning"):
            session.say(f"warning: {artifact.name}: {artifact.raw['warning']}")


@connected
def export(
    session: Session,
    id: JobId,
    formats: Annotated[
        list[str] | None, typer.Argument(metavar="FORMAT…", help="Such as onnx, onnx_int8, torch_export; none only lists what there is.")
    ] = None,
) -> None:
    """Write a finished student in further formats, and say how each compares with it. Ctrl-C detaches; the export goes on."""
    client = session.client()
    job = client.jobs.get(id)
    asked = list(dict.fromkeys(formats or ()))
    if asked:
        made = job.export(*asked)
        if not made.is_resting:
            session.say(f"{made.id}: being exported …")
        if made.raw.get("queue_reason"):
            session.say(f"it waits: {made.raw['queue_reason']}")
        try:
            _wait(client, job, asked)
        except KeyboardInterrupt:
            session.say(f"\ndetached; the export goes on. What came of it: retort export {id}")
            raise typer.Exit(130) from None
    found = [each for each in job.exports() if not asked or each.format in asked]
    refused = [Text(f"{each.format} is not offered: {each.reason}", "red") for each in found if each.status == "rejected"]
    shown = Group(table(found), *refused, *_resting(client, found)) if found else Text("no format yet")
    session.answer({"object": "list", "data": [dict(each.raw) for each in found]}, shown)
    if asked and any(each.status != "ready" for each in found):
        raise typer.Exit(1)


def _wait(client: Client, job: Job, formats: Sequence[str]) -> None:
    """Until every job that makes one of the formats rests."""
    waited = set[str]()
    while going := {each.job for each in job.exports() if each.format in formats and each.status == "processing"} - waited:
        for id in sorted(going):
            client.jobs.get(id).wait()
        waited |= going


def _resting(client: Client, found: Sequence[Export]) -> list[Text]:
    """What keeps the formats that are neither made nor refused."""
    jobs = [client.jobs.get(id) for id in sorted({each.job for each in found if each.status == "processing"})]
    return [Text(f"{job.id} is {job.status}: retort get {job.id}") for job in jobs]
