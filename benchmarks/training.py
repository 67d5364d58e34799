"""Trainings as the service runs them: a job folder, and the engine's own child process that works on it from its last checkpoint."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.blobs import digest_of
from core.data import DatasetReport
from core.errors import EXIT_DIVERGED, EXIT_YIELDED
from core.events import Refusal, Result, decode

_CHECKOUT = Path(__file__).parents[1]


class Halted(Exception):
    """The child was told to stop; what it kept is resumed next time."""


@dataclass(frozen=True, slots=True)
class Training:
    """A task as `python -m core run` takes it, and the files it needs; they lie on one file system with `work`, where its folder will be.

    What the folder is called follows from all that decides the outcome, so changed settings never meet an old result.
    """

    work: Path
    task: Mapping[str, Any]
    dataset: Path
    teacher: Path | None = None

    @property
    def folder(self) -> Path:
        """The job folder."""
        decides = {name: value for name, value in self.task.items() if name != "runtime"}
        decides["spec"] = {
            name: value for name, value in self.task["spec"].items() if name != "name"
        }  # tables share what they have in common
        if self.teacher is not None:
            decides["weights"] = digest_of(self.teacher)
        return self.work / hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def weights(self) -> Path:
        """The trained student."""
        return self.folder / "out" / "export" / "model.safetensors"

    def prepare(self) -> Path:
        """Lay the folder out. The newest checkpoint of an earlier child is where the next one begins."""
        folder = self.folder
        (folder / "in").mkdir(parents=True, exist_ok=True)
        (folder / "out").mkdir(exist_ok=True)
        other = self.dataset if self.task["teacher_dataset"] else None  # other classes of the same file
        for name, source in (("dataset", self.dataset), ("teacher_dataset", other), ("teacher", self.teacher)):
            link = folder / "in" / f"{name}.safetensors"
            if source is not None and not link.exists():
                os.link(source, link)
        kept = sorted((folder / "checkpoint").glob("*.safetensors"))
        if kept:
            kept[-1].replace(folder / "in" / "checkpoint.safetensors")
        (folder / "job.json").write_text(json.dumps(self.task))
        return folder

    def carry_out(self, live: set[subprocess.Popen[str]]) -> dict[str, Any]:
        """How it ended: read back where it has ended before, else of a new child, which is in `live` as long as it runs.

        {"error": test error in %, "teacher_error": in % or None, "epochs", "measured": the test's other values by name, "terms": what the
        terms say of themselves, "seconds", "resumed"}; where training diverged {"diverged": why} instead. Raises Halted where the child was
        stopped, RuntimeError with its last words where it failed.
        """
        finished = self.folder / "result.json"
        if finished.exists():
            known: dict[str, Any] = json.loads(finished.read_text())
            return known
        folder = self.prepare()
        resumed = (folder / "in" / "checkpoint.safetensors").exists()
        began = time.monotonic()
        with (folder / "child.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "core", "run", str(folder.resolve()), "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=_CHECKOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(self.task["runtime"]["threads"])},
                start_new_session=True,  # an interrupt at the terminal is ours to pass on, as a stop
            )
        live.add(child)
        said, _ = child.communicate()
        live.discard(child)
        lines = said.splitlines()
        last = decode(lines[-1]) if lines else None
        if isinstance(last, Result) and child.returncode == 0:
            outcome = _figures(last.values)
        elif isinstance(last, Refusal) and child.returncode == EXIT_DIVERGED:
            outcome = {"diverged": last.reason}
        elif child.returncode in (EXIT_YIELDED, -signal.SIGTERM):
            raise Halted
        else:
            why = f"{last.where}: {last.reason}" if isinstance(last, Refusal) else (folder / "child.log").read_text()[-2000:]
            raise RuntimeError(f"{folder} ended with {child.returncode}: {why}")
        outcome |= {"seconds": round(time.monotonic() - began, 1), "resumed": resumed}
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        shutil.rmtree(folder / "in")
        part = finished.with_suffix(".part")
        part.write_text(json.dumps(outcome))
        part.replace(finished)
        return outcome


@dataclass(frozen=True, slots=True)
class Bed:
    """Where trainings are carried out: the data in canonical form, the folder for the work, how many at once, on what."""

    data: Path
    report: DatasetReport
    work: Path
    jobs: int = 2
    device: str = "cpu"
    checkpoint_seconds: float = 60.0
    normalize: bool = True

    def network(self, architecture: Mapping[str, Any]) -> dict[str, Any]:
        """A network for this data, normalising by the measurements of its training images unless the bed says otherwise."""
        whole = {**architecture, "input": list(self.report.input), "classes": self.report.classes}
        normalization = {"mean": list(self.report.mean), "std": list(self.report.std)} if self.normalize else None
        return {"architecture": whole, "normalization": normalization}

    def training(
        self,
        spec: Mapping[str, Any],
        student: Mapping[str, Any],
        teacher: tuple[Mapping[str, Any], Path] | None = None,
    ) -> Training:
        """A job spec without the ids as a training; `teacher` is its architecture and its weights."""
        whole = {**spec, "student": {"architecture": "arc_0"}, "dataset": {**spec["dataset"], "id": "ds_0"}, "device": self.device}
        if teacher is not None:
            whole["teacher"] = "tch_0"
        if "teacher_dataset" in whole:
            whole["teacher_dataset"] = {**whole["teacher_dataset"], "id": "ds_0"}
        task = {
            "kind": "distil",
            "spec": whole,
            "teacher": None if teacher is None else {**self.network(teacher[0]), "classes": list(self.report.class_names)},
            "student": self.network(student),
            "dataset": self.report.model_dump(mode="json"),
            "teacher_dataset": self.report.model_dump(mode="json") if "teacher_dataset" in whole else None,
            "runtime": {
                "device": self.device,
                "threads": 1,  # on two, a training beside other work takes many times as long
                "checkpoint_seconds": self.checkpoint_seconds,
                "report_seconds": 5.0,
            },
        }
        return Training(self.work, task, self.data, None if teacher is None else teacher[1])


def _figures(values: Mapping[str, Any]) -> dict[str, Any]:
    teacher = values["teacher"]
    return {
        "error": 100 * (1 - values["test"]["accuracy"]),
        "teacher_error": None if teacher is None else 100 * (1 - teacher["accuracy"]),
        "epochs": values["epochs"],
        "measured": {
            **{name: value for name, value in values["test"].items() if name != "accuracy"},
            **{name: curve["accuracy"][-1] for name, curve in values.get("curves", {}).get("student", {}).items()},
        },
        "terms": values.get("terms", {}),
    }
