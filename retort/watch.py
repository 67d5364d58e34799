"""Jobs as they run: a bar each on a terminal, a line for each piece of news elsewhere; nothing here ever touches a job."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from retort.job import Job

_INTERVAL = 0.5
_QUIET = 5.0
"""Away from a terminal, seconds between two lines of one job in one phase."""
_WIDE = 120
"""Columns of a terminal that has room for a long bar."""


def watch(jobs: Sequence[Job], console: Console) -> list[Job]:
    """The jobs once all of them rest, shown on the way."""
    now = list(jobs)
    with _shown(console, now) as shown:
        while True:
            for job in now:
                shown.show(job)
            if all(job.is_resting for job in now):
                return now
            time.sleep(_INTERVAL)
            now = [job if job.is_resting else job.refresh() for job in now]


def news(job: Job) -> str:
    """What a job does now, in a few words."""
    if job.is_resting:
        test = job.result.get("test") or {}
        for name, words in {"accuracy": "test accuracy", "agreement": "agreement with the teacher"}.items():
            if test.get(name) is not None:
                return f"{words} {test[name]:.4f}"
        return str(job.raw.get("code") or "")
    if job.status == "queued":
        return str(job.raw.get("queue_reason") or "waiting for a worker")
    parts = [str(job.phase or "starting")]
    if job.progress.get("epoch") is not None and job.phase in ("train", "transfer"):
        parts.append(f"epoch {job.progress['epoch']}")
    parts.append(_left(job.progress.get("eta_at")))
    latest = job.raw.get("latest_metrics") or {}
    # A transfer fit teaches no classes: its accuracy would only frighten.
    shown = ("loss",) if job.phase == "transfer" else ("loss", "validation_accuracy", "validation_agreement")
    parts += [f"{name.replace('_', ' ')} {latest[name]:.3g}" for name in shown if isinstance(latest.get(name), int | float)]
    return ", ".join(part for part in parts if part)


class _Shown(Protocol):
    def show(self, job: Job) -> None: ...


class _Bars:
    def __init__(self, progress: Progress, jobs: Sequence[Job]) -> None:
        self.progress = progress
        self.bars: dict[str, TaskID] = {
            job.id: progress.add_task(job.name or job.id, total=100.0, status=job.status, news="") for job in jobs
        }

    def show(self, job: Job) -> None:
        done = 100.0 if job.status == "succeeded" else float(job.progress.get("percent") or 0.0)
        self.progress.update(self.bars[job.id], completed=done, status=job.status, news=news(job))


class _Lines:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.last: dict[str, tuple[tuple[Any, ...], float]] = {}

    def show(self, job: Job) -> None:
        stage, at = (job.status, job.phase), time.monotonic()
        before = self.last.get(job.id)
        if before and before[0] == stage and (job.is_resting or at - before[1] < _QUIET):
            return
        self.last[job.id] = (stage, at)
        percent = job.progress.get("percent")
        done = f"{percent:3.0f} %  " if percent is not None and job.status == "running" else ""
        self.console.print(f"{job.name or job.id}: {job.status}  {done}{news(job)}")


@contextmanager
def _shown(console: Console, jobs: Sequence[Job]) -> Iterator[_Shown]:
    if not console.is_terminal:
        yield _Lines(console)
        return

    def words(form: str, *, ratio: int | None = None) -> TextColumn:
        return TextColumn(form, markup=False, table_column=Column(no_wrap=True, ratio=ratio))

    # On a narrow terminal the news is cut, which comes last, and not who does what and how far it is.
    columns = (
        words("{task.description}"),
        words("{task.fields[status]:<9}"),
        BarColumn(bar_width=30 if console.width >= _WIDE else 10),
        words("{task.percentage:>3.0f} %"),
        words("{task.fields[news]}", ratio=1),
    )
    with Progress(*columns, console=console, refresh_per_second=8, expand=True) as progress:
        yield _Bars(progress, jobs)


def _left(eta: Any) -> str:
    try:
        seconds = (datetime.fromisoformat(str(eta)) - datetime.now(UTC)).total_seconds()
    except ValueError:
        return ""
    return f"{seconds / 60:.0f} min left" if seconds >= 90 else f"{max(0, seconds):.0f} s left"
