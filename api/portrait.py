"""How a job reads: its row, and what its history says about progress, time and trouble. Nothing here is stored."""

from collections.abc import Sequence
from datetime import UTC, datetime

from fastapi import Response

from api.curves import last_values
from api.deps import Service
from api.shapes import JobCard, JobProblem, Progress, Status, Urls, WorkerOfJob, when
from db import history, jobs, workers
from db.access import Tenant
from db.history import Event
from db.jobs import Attempt
from db.life import Job
from db.states import OF_AN_ASSET, TERMINAL, fault_of

LINES = 50
"""Lines of the child's output that a job in trouble shows."""


def status_of(job: Job) -> Status:
    """The state, or the user's wish where the running job has not yet followed it."""
    if job.state == "running" and job.desired != "run":
        return "pausing" if job.desired == "pause" else "cancelling"
    return job.state


def actions_of(job: Job) -> list[str]:
    """What the user may ask for now, and change something: exactly what the routes of `api/routes/wishes.py` would grant."""
    clone = ["clone"] if job.kind == "distil" else []
    match status_of(job):
        case "queued" | "running":
            return ["pause", "cancel", *clone]
        case "pausing" | "paused":
            stay = ["pause"] if job.code == "storage_full" else []  # the service paused it, and would let it go on
            return [*stay, "resume", "cancel", *clone]
        case "cancelling" if job.cancel_mode == "graceful":
            return ["cancel", *clone]
        case "quarantined":
            return ["release", "cancel", *clone]
        case "failed" | "cancelled" if job.kind not in OF_AN_ASSET or job.asset:
            return ["retry", *clone]
        case _:
            return clone


def portrait(running: Service, tenant: Tenant, job: Job) -> JobCard:
    """The job as the API tells it: a handful of indexed reads."""
    told = history.glance(running.database, tenant, job.id)
    phase, metrics, evaluated = (told.newest.get(kind) for kind in ("phase", "metrics", "evaluated"))
    times = told.entered
    progress = _progress(job, metrics)
    latest = last_values(metrics.data["columns"]) if metrics else {}
    if evaluated:
        latest |= {
            f"{evaluated.data['split']}_{name}": value
            for name, value in evaluated.data["values"].items()
            if isinstance(value, (int, float))
        }
    code = job.code
    return JobCard(
        id=job.id,
        kind=job.kind,
        name=job.name,
        status=status_of(job),
        phase=str(phase.data["phase"]) if phase else None,
        is_terminal=job.state in TERMINAL,
        code=code,
        message=_message(job, phase, progress),
        fault=None if code is None else fault_of(code),
        attempt=job.attempt,
        parent=job.parent,
        progress=progress,
        checkpoint_step=job.checkpoint["done"] if job.checkpoint else None,
        latest_metrics=latest,
        worker=WorkerOfJob(id=job.owner) if job.owner and job.state == "running" else None,
        problem=_problem(running, tenant, job),
        result=job.result,
        warnings=job.inputs.get("warnings", []),
        queue_reason=_queue_reason(running, tenant, job),
        actions=actions_of(job),
        urls=Urls(**{name: f"/v1/jobs/{job.id}/{name}" for name in Urls.model_fields}),
        spec=job.spec,
        metadata=job.metadata,
        sweep=job.sweep,
        trial=job.trial,
        created_at=when(job.created_at),
        started_at=when(times["running"]) if "running" in times else None,
        finished_at=when(times[job.state]) if job.state in TERMINAL else None,
    )


def created(running: Service, tenant: Tenant, job: Job, response: Response) -> JobCard:
    """A job that the request made, with its address in the answer's header."""
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return portrait(running, tenant, job)


def last_lines(attempts: Sequence[Attempt], most: int = LINES) -> list[str]:
    """What the newest attempt's child wrote at its end."""
    tail = next((attempt.log_tail for attempt in reversed(attempts) if attempt.log_tail), "")
    return tail.splitlines()[-most:]


def _progress(job: Job, metrics: Event | None) -> Progress | None:
    if metrics is None:
        return None
    data = metrics.data
    done, of = int(data["last"]), int(data["of"])
    rate = float(data.get("samples_per_second") or 0.0)
    is_done = job.state == "succeeded"
    epochs = data["columns"].get("epoch")
    eta = None
    if rate > 0 and job.state == "running":
        recipe = job.spec.get("recipe", {})
        samples = (of - done) * recipe.get("batch_size", 1) * recipe.get("accumulate", 1)
        eta = datetime.fromtimestamp(metrics.at + samples / rate, UTC)
    return Progress(
        # What comes after the last step (evaluation, export) is part of the job: only success is the whole of it.
        percent=100.0 if is_done else min(99.9, round(100.0 * done / of, 1)) if of else 0.0,
        epoch=int(epochs[-1]) + 1 if epochs else None,
        step=done,
        total_steps=of,
        eta_at=eta,
        samples_per_second=rate or None,
        updated_at=when(metrics.at),
    )


def _message(job: Job, phase: Event | None, progress: Progress | None) -> str:
    if job.state != "running":
        return str((job.problem or {}).get("reason", "")) or job.state
    if phase is None:
        return "starting"
    name = str(phase.data["phase"])
    if name == "train" and progress and progress.epoch:
        return f"epoch {progress.epoch} of {job.spec.get('recipe', {}).get('epochs', '?')}"
    return f"transfer, epoch {progress.epoch}" if name == "transfer" and progress and progress.epoch else name


def _problem(running: Service, tenant: Tenant, job: Job) -> JobProblem | None:
    if job.problem is None:
        return None
    code = str(job.problem.get("code") or job.code or "internal_error")
    return JobProblem(
        code=code,
        fault=fault_of(job.code) if job.code else "system",
        where=str(job.problem.get("where", "")),
        reason=str(job.problem.get("reason", "")),
        hint=str(job.problem.get("hint", "")),
        lines=last_lines(jobs.attempts(running.database, tenant, job.id)),
    )


def _queue_reason(running: Service, tenant: Tenant, job: Job) -> str | None:
    if job.state != "queued":
        return None
    if job.crashes:
        code = next((each.code for each in reversed(jobs.attempts(running.database, tenant, job.id)) if each.code), "worker_lost")
        return f"the last attempt ended as {code}; another may start from {when(job.run_after):%H:%M:%S} UTC on"
    living = workers.living(running.database, within=running.settings.worker_living)
    if not living:
        return "no worker lives: start one with `python -m worker`"
    if job.queue != "any" and not any(job.queue in worker.queues for worker in living):
        return f"no living worker takes jobs of the queue {job.queue!r}"
    return None
