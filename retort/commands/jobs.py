"""`retort submit`, `ls`, `get`, and what changes a job: `cancel`, `pause`, `resume`, `release`, `retry`, `clone`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from retort import render, render_plan, render_sweep
from retort.client import Assets, Client
from retort.commands import sweeps
from retort.commands.follow import attend
from retort.draft import draft, overrides, read_document
from retort.errors import Misused
from retort.job import Job
from retort.session import Session, connected

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id of a job (job_…).")]


class Kind(StrEnum):
    """What `retort ls` lists."""

    JOBS = "jobs"
    TEACHERS = "teachers"
    ARCHITECTURES = "architectures"
    DATASETS = "datasets"
    SWEEPS = "sweeps"


@connected
def submit(
    session: Session,
    *,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="A job spec in YAML or JSON; the flags go over it.")] = None,
    preset: Annotated[str | None, typer.Option(help="Begin with a published row: see `retort presets`.")] = None,
    teacher: Annotated[str | None, typer.Option(help="tch_…, or job_… of a job that succeeded: its student teaches.")] = None,
    student: Annotated[str | None, typer.Option(help="The student's architecture, arc_….")] = None,
    dataset: Annotated[str | None, typer.Option(help="ds_…")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Such as kd:temperature=4,weight=0.9; more than one add up.")] = None,
    evaluate: Annotated[
        list[str] | None, typer.Option(help="Measure this too at the end: agreement, fgsm, parameter_noise, boundary:samples=64.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data.")] = None,
    take: Annotated[int | None, typer.Option(min=1, help="Train on so many images only.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the job.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Any other field, such as recipe.batch_size=64.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Train the same student without a teacher too, to see what the teacher is worth.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and show the progress; Ctrl-C detaches.")] = False,
) -> None:
    """Distil: make a job from a file, a preset, flags, or all of them."""
    if dry_run and (baseline or watch):
        raise Misused("--dry-run makes no job: nothing to watch, nothing to compare")
    client = session.client()
    spec = draft(
        preset=_preset(client, preset) if preset else None,
        file=read_document(file) if file else None,
        teacher=teacher,
        student=student,
        dataset=dataset,
        methods=method or (),
        measures=evaluate or (),
        epochs=epochs,
        take=take,
        seed=seed,
        name=name,
        assignments=assign or (),
    )
    if not spec:
        raise Misused("nothing to submit", hint="name a file with -f, a --preset, or --student and --dataset")
    if dry_run:
        planned = client.jobs.plan(spec)
        session.answer(planned, render_plan.plan(planned))
        return
    made = [client.jobs.create(spec)]
    session.say(f"submitted {made[0].id}")
    for warning in made[0].raw.get("warnings", ()):
        session.say(f"warning: {warning}")
    if baseline:
        made.append(made[0].baseline())
        session.say(f"baseline  {made[1].id}" + (" (it exists already)" if made[1].is_terminal else ""))
    if watch:
        attend(session, made)
        return
    ids = " ".join(job.id for job in made)
    _answer(session, made, Text(f"{ids}\nwatch with: retort watch {ids}"))


@connected
def ls(
    session: Session,
    kind: Annotated[Kind, typer.Argument(help="What to list.")] = Kind.JOBS,
    status: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
) -> None:
    """List jobs, or teachers, architectures, datasets, sweeps; the newest first."""
    client = session.client()
    if kind is Kind.JOBS:
        jobs = list(client.jobs.list(status=status, limit=limit))
        session.answer({"object": "list", "data": [dict(job.raw) for job in jobs]}, render.jobs(jobs) if jobs else Text("no jobs yet"))
        return
    if status:
        raise Misused("--status is for jobs")
    if kind is Kind.SWEEPS:
        found = list(client.sweeps.list(limit=limit))
        session.answer(
            {"object": "list", "data": [dict(each.raw) for each in found]}, render_sweep.sweeps(found) if found else Text("no sweeps yet")
        )
        return
    listed: Assets = getattr(client, kind.value)
    assets = list(listed.list(limit=limit))
    session.answer(
        {"object": "list", "data": [dict(each.raw) for each in assets]}, render.assets(assets) if assets else Text(f"no {kind.value} yet")
    )


@connected
def get(session: Session, id: Annotated[str, typer.Argument(help="Of a job, a sweep, a teacher, an architecture or a dataset.")]) -> None:
    """Show one job, one sweep with its trials, or one asset, in full."""
    client = session.client()
    kinds = {"tch": client.teachers, "arc": client.architectures, "ds": client.datasets}
    assets = kinds.get(id.partition("_")[0])
    if assets is not None:
        asset = assets.get(id)
        session.answer(dict(asset.raw), render.asset(asset))
    elif id.startswith("swp_"):
        sweeps.show(session, client.sweeps.get(id))
    else:
        job = client.jobs.get(id)
        session.answer(dict(job.raw), render.job(job))


@connected
def cancel(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="ID", help="Of a job, or of a sweep.")],
    *,
    graceful: Annotated[bool, typer.Option("--graceful", help="Let a running job finish its step and keep a checkpoint first.")] = False,
    keep_nothing: Annotated[
        bool, typer.Option("--keep-nothing", help="Forget its checkpoints: a retry begins at the start. Also of a cancelled job.")
    ] = False,
) -> None:
    """End a job for good, which is cancelled once its process is gone; or a sweep with all its jobs."""
    if id.startswith("swp_"):
        if graceful or keep_nothing:
            raise Misused("--graceful and --keep-nothing are for a job", hint="a sweep's jobs are cancelled now and keep their checkpoints")
        sweep = session.client().sweeps.get(id).cancel()
        session.answer(dict(sweep.raw), Text.assemble(f"{id}: ", render.status(sweep.status)))
        return
    _changed(session, session.client().jobs.get(id).cancel(graceful=graceful, keep_nothing=keep_nothing))


@connected
def pause(session: Session, id: JobId) -> None:
    """Let a job keep a checkpoint and rest."""
    _changed(session, session.client().jobs.get(id).pause())


@connected
def resume(session: Session, id: JobId) -> None:
    """Put a paused job back into the queue."""
    _changed(session, session.client().jobs.get(id).resume())


@connected
def release(session: Session, id: JobId) -> None:
    """Let a quarantined job try again."""
    _changed(session, session.client().jobs.get(id).release())


@connected
def retry(
    session: Session,
    id: JobId,
    *,
    from_start: Annotated[bool, typer.Option("--from-start", help="Leave its checkpoints aside.")] = False,
) -> None:
    """Make a new job from one that failed or was cancelled, starting at its last checkpoint."""
    _changed(session, session.client().jobs.get(id).retry(from_start=from_start))


@connected
def clone(
    session: Session,
    id: JobId,
    *,
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="Overrides in YAML or JSON; null removes a field, so that its default holds.")
    ] = None,
    assign: Annotated[
        list[str] | None, typer.Option("-s", "--set", metavar="PATH=VALUE", help="One field, such as methods.0.temperature=2 or seed=1.")
    ] = None,
) -> None:
    """Make a new job like another one, with some fields of its spec set otherwise."""
    given = read_document(file) if file else {}
    job = session.client().jobs.get(id)
    _changed(session, job.clone(overrides(job.raw["spec"], given, assign or ())))


def _changed(session: Session, job: Job) -> None:
    session.answer(dict(job.raw), Text.assemble(f"{job.id}: ", render.status(job.status)))


def _answer(session: Session, jobs: list[Job], shown: Text) -> None:
    raw = [dict(job.raw) for job in jobs]
    session.answer(raw[0] if len(raw) == 1 else {"object": "list", "data": raw}, shown)


def _preset(client: Client, name: str) -> dict[str, object]:
    preset = client.presets.get(name)
    return dict(preset["spec"])
