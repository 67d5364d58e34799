"""What a job would be: its plan, what it will need on the workers that would take it, how good its teacher is, and what to know before."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.deps import Service
from api.submission import QUEUES, Draft
from core.calibrate import Calibration
from core.data.report import DatasetReport
from core.estimate import FASTER, SLOWER, Estimate, estimate, spanning
from db import life, workers
from db.workers import Worker


class FitCard(BaseModel):
    """One stretch of the training."""

    phase: str
    epochs: int
    steps: int
    seconds: tuple[float, float]


class ForecastWorker(BaseModel):
    """The worker that would take the job, as things are."""

    id: str
    host: str
    device: str
    hardware: str
    threads: int


class Estimates(BaseModel):
    """What the job will need. Every range is [least, most] as expected; null where no worker lives that says what it does in a second."""

    peak_memory_bytes: tuple[int, int] | None = Field(description="the job's own memory at its peak; on a GPU, of the GPU")
    seconds: tuple[float, float] | None = Field(description="from the start of the job's process to its end; waiting in the queue is apart")
    per_fit: list[FitCard]
    worker: ForecastWorker | None
    reason: str | None = Field(description="why there is no estimate")
    basis: str


class Warned(BaseModel):
    """Nothing is wrong, but the person should know."""

    code: Literal["plan", "teacher_near_chance", "memory", "limit"]
    detail: str


class Queue(BaseModel):
    """Who is before the job."""

    waiting: int = Field(description="jobs that these workers could begin with now")


class Planned(BaseModel):
    """What a job would do, and what it would take."""

    valid: Literal[True] = True
    plan: dict[str, Any]
    estimates: Estimates
    teacher: dict[str, Any] | None = Field(
        description="its score on the job's dataset: `accuracy`, `n`, `chance`, `near_chance`; or `reason`, why there is none"
    )
    warnings: list[Warned]
    queue: Queue


def forecast(running: Service, drafted: Draft) -> Planned:
    """The answer of a dry run."""
    name = QUEUES[drafted.spec.device]
    able = [
        each for each in workers.living(running.database, within=running.settings.worker_living) if name == "any" or name in each.queues
    ]
    chosen = [each for each in able if each.busy < each.slots] or able
    devices = [(each, device) for each in chosen if (device := _device(each, name))]
    report = DatasetReport.model_validate(drafted.dataset.report)
    teacher = drafted.teacher.anatomy if drafted.teacher else None
    found = [estimate(drafted.plan, drafted.spec, teacher, drafted.student.anatomy, dataset=report, device=device) for _, device in devices]
    estimates = _estimates(drafted, devices, found, _why_none(name, chosen))
    return Planned(
        plan=drafted.plan.to_json(),
        estimates=estimates,
        teacher=_score(drafted),
        warnings=[*_warnings(drafted), *_too_small(drafted, estimates, [device for _, device in devices])],
        queue=Queue(waiting=life.claimable(running.database, sorted({queue for each in able for queue in each.queues}))),
    )


def _device(worker: Worker, queue: str) -> Calibration | None:
    """What the worker gives a job of this queue, where it has measured that."""
    device = worker.device if queue != "cpu" else "cpu"
    known = Calibration.model_validate(worker.calibration) if worker.calibration else None
    return known if known and known.device == device else None


def _why_none(queue: str, workers: Sequence[Worker]) -> str:
    if not workers:
        whose = "" if queue == "any" else f" of the queue {queue!r}"
        return f"no worker{whose} lives: start one with `python -m worker`"
    return "no worker that would take the job has measured its device yet"


def _estimates(drafted: Draft, devices: Sequence[tuple[Worker, Calibration]], found: Sequence[Estimate], why_none: str) -> Estimates:
    if not found:
        return Estimates(peak_memory_bytes=None, seconds=None, per_fit=[], worker=None, reason=why_none, basis="no calibration")
    whole, fits = spanning(found), drafted.plan.to_json()["fits"]
    worker, device = max(devices, key=lambda each: each[1].conv[-1].rate)
    kinds = {(each.device, each.hardware, each.threads) for _, each in devices}
    basis = (
        f"the plan's operations and bytes at the rates of {device.hardware}"
        + (f" and {len(kinds) - 1} other kinds of worker" if len(kinds) > 1 else "")
        + f", from {FASTER:g} times less to {SLOWER:g} times more"
    )
    return Estimates(
        peak_memory_bytes=(round(whole.peak_memory_bytes.low), round(whole.peak_memory_bytes.high)),
        seconds=whole.seconds,
        per_fit=[
            FitCard(phase=fit["phase"], epochs=fit["epochs"], steps=fit["steps"], seconds=seconds)
            for fit, seconds in zip(fits, whole.per_fit, strict=True)
        ],
        worker=ForecastWorker(id=worker.id, host=worker.host, device=device.device, hardware=device.hardware, threads=device.threads),
        reason=None,
        basis=basis,
    )


def _score(drafted: Draft) -> dict[str, Any] | None:
    if drafted.teacher is None:
        return None
    if drafted.score is not None:
        return dict(drafted.score.values)
    if not drafted.task["dataset"].get("labelled", True):
        return {"reason": "the dataset has no labels to score it by"}
    if drafted.teacher.job is not None:
        return {"reason": f"not evaluated: the job {drafted.teacher.job.id} measured no accuracy on this dataset"}
    return {"reason": f"not evaluated: POST /v1/teachers/{drafted.spec.teacher}/evaluate"}


def _warnings(drafted: Draft) -> list[Warned]:
    found = [Warned(code="plan", detail=each) for each in drafted.plan.warnings]
    if drafted.score and drafted.score.warning:
        found.append(Warned(code="teacher_near_chance", detail=drafted.score.warning))
    return found


def _too_small(drafted: Draft, estimates: Estimates, devices: Sequence[Calibration]) -> list[Warned]:
    """What the job will hardly keep within."""
    found = []
    if estimates.peak_memory_bytes and (least := estimates.peak_memory_bytes[0]) > max(device.memory for device in devices):
        found.append(Warned(code="memory", detail=f"the job needs {least:,} bytes at least, more than any of the workers has"))
    limit = drafted.spec.limits.seconds
    if estimates.seconds and limit is not None and estimates.seconds[0] > limit:
        found.append(Warned(code="limit", detail=f"the job takes {estimates.seconds[0]:.0f} s at least, and its limit is {limit:g} s"))
    return found
