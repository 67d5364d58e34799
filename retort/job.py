"""One job as it was when the service was last asked, and what can be done with it."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retort.connection import Connection
from retort.download import Progress, download, download_bundle, write_sums
from retort.errors import TookTooLong
from retort.stream import follow
from retort.values import Artifact, Event, Export, Json

RESTING = frozenset({"succeeded", "failed", "cancelled", "paused", "quarantined"})
"""The statuses that no job leaves by itself: the first three for ever, the others until a person says resume or release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A distillation job. `raw` is the service's whole answer; every method that changes the job gives a new value."""

    id: str
    name: str
    status: str
    phase: str | None
    is_terminal: bool
    raw: Mapping[str, Any] = field(repr=False)
    connection: Connection = field(repr=False, compare=False)

    @classmethod
    def of(cls, raw: Json, connection: Connection) -> "Job":
        """The job of an answer."""
        return cls(
            id=raw["id"],
            name=raw["name"],
            status=raw["status"],
            phase=raw.get("phase"),
            is_terminal=raw["is_terminal"],
            raw=raw,
            connection=connection,
        )

    @property
    def is_resting(self) -> bool:
        """Whether waiting for a change would be in vain."""
        return self.status in RESTING

    @property
    def progress(self) -> Mapping[str, Any]:
        """`percent`, `epoch`, `step`, `total_steps`, `eta_at`, `samples_per_second`: those that are known."""
        return self.raw.get("progress") or {}

    @property
    def result(self) -> Mapping[str, Any]:
        """The measured values of a job that succeeded, else nothing."""
        return self.raw.get("result") or {}

    @property
    def problem(self) -> Mapping[str, Any]:
        """Why the job failed or rests, with `code`, `reason`, `hint`; else nothing."""
        return self.raw.get("problem") or {}

    def refresh(self) -> "Job":
        """The job as it is now."""
        return self._get(f"/v1/jobs/{self.id}")

    def wait(self, *, timeout: float | None = None, interval: float = 1.0) -> "Job":
        """The job once it rests, asked for every `interval` seconds; `TookTooLong` after `timeout` seconds, without touching it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        job = self.refresh()
        while not job.is_resting:
            if deadline is not None and time.monotonic() > deadline:
                raise TookTooLong(f"{self.id} is still {job.status} after {timeout:g} s; it goes on")
            time.sleep(interval)
            job = job.refresh()
        return job

    def events(self, *, after: int = 0) -> Iterator[Event]:
        """Every event with an id above `after`, as it happens, until the job is over."""
        return follow(self.connection, self.id, after=after)

    def metrics(self, *, keys: str | None = None, max_points: int | None = None) -> Json:
        """The curves: `{"columns": {"done": […], "loss": […]}, "evaluated": […]}`."""
        return self._json("GET", "metrics", params={"keys": keys, "max_points": max_points})

    def logs(self, *, tail: int | None = None) -> Json:
        """What the job said, oldest first, and its process's last lines: `{"data": [{"at", "level", "message"}], "child": […]}`."""
        return self._json("GET", "logs", params={"tail": tail})

    def attempts(self, *, lines: int | None = None) -> list[Json]:
        """Each time a worker took the job: who, how it ended, and so many of the last lines that its process wrote."""
        return list(self._json("GET", "attempts", params={"lines": lines})["data"])

    def artifacts(self) -> list[Artifact]:
        """The files that the job made, and its later exports; none before it succeeded."""
        return [Artifact.of(raw) for raw in self._json("GET", "artifacts")["data"]]

    def download(self, folder: Path, *, progress: Progress | None = None) -> list[Path]:
        """Fetch every artifact into `folder`, each verified by its digest, and write SHA256SUMS of all; where they lie."""
        made = [artifact for artifact in self.artifacts() if artifact.path is not None]
        paths = [download(self.connection, artifact, folder, progress=progress) for artifact in made]
        return [*paths, write_sums(made, folder)] if made else []

    def download_bundle(self, folder: Path, *, progress: Progress | None = None) -> Path:
        """Fetch all files as one zip, laid out as on the Hugging Face Hub, each verified by its digest; where it lies."""
        return download_bundle(self.connection, self.id, folder, progress=progress)

    def export(self, *formats: str) -> "Job":
        """The job that writes the finished student in these formats, such as "onnx" and "int8"; where all are there, the one that did."""
        return self._act("exports", {"formats": formats})

    def exports(self) -> list[Export]:
        """Every format that was asked for, with what came of it."""
        return [Export.of(raw) for raw in self._json("GET", "exports")["data"]]

    def cancel(self, *, graceful: bool = False, keep_nothing: bool = False) -> "Job":
        """Ask for the end of the job; it is `cancelled` once its process is gone. `graceful` lets it keep a checkpoint first, and
        `keep_nothing` forgets its checkpoints, so that a retry begins at the start.
        """
        return self._act("cancel", {"mode": "graceful" if graceful else "now", "keep": "nothing" if keep_nothing else "checkpoint"})

    def pause(self) -> "Job":
        """Ask the job to keep a checkpoint and rest."""
        return self._act("pause")

    def resume(self) -> "Job":
        """Put a paused job back into the queue."""
        return self._act("resume")

    def release(self) -> "Job":
        """Let a quarantined job try again."""
        return self._act("release")

    def retry(self, *, from_start: bool = False) -> "Job":
        """A new job that tries this one again, which is over: from its last checkpoint, or from the start."""
        return self._act("retry", {"from": "start" if from_start else "checkpoint"})

    def clone(self, overrides: Mapping[str, Any] | None = None) -> "Job":
        """A new job with the spec of this one and the overrides merged in: fields of objects one by one, lists whole, and None removes
        a field, so that its default holds (RFC 7386).
        """
        return self._act("clone", {"overrides": dict(overrides or {})})

    def baseline(self) -> "Job":
        """The job that trains the same student without a teacher and for as many epochs in all: the one that exists, else a new one."""
        return self._act("baseline")

    def _act(self, action: str, body: Json | None = None) -> "Job":
        return Job.of(self.connection.act(f"/v1/jobs/{self.id}/{action}", body), self.connection)

    def _get(self, path: str) -> "Job":
        return Job.of(self.connection.request("GET", path), self.connection)

    def _json(self, method: str, what: str, params: Mapping[str, Any] | None = None) -> Json:
        answer: Json = self.connection.request(method, f"/v1/jobs/{self.id}/{what}", params=params)
        return answer
