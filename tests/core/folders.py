"""Job folders for tests, filled with real handwritten digits, and the real child that works on them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from core.artifacts import save_weights
from core.data import ingest
from core.events import Checkpointed, Event, Refusal, Result, Step, decode
from core.networks import parse

TEACHER = {"family": "mlp", "input": [1, 8, 8], "classes": 10, "hidden": [64]}
STUDENT = {"family": "mlp", "input": [1, 8, 8], "classes": 10, "hidden": [16]}
CONVOLUTIONS = (
    {"family": "convnet", "input": [1, 8, 8], "classes": 10, "channels": [8, 16]},
    {"family": "convnet", "input": [1, 8, 8], "classes": 10, "channels": [4, 8]},
)
"""A teacher and a student with maps, for methods on features."""
NORMALIZATION = {"mean": [0.3], "std": [0.38]}
RUNTIME = {"device": "cpu", "threads": 1, "checkpoint_seconds": 60, "report_seconds": 0}


@cache
def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(1797, 8, 8) uint8 and (1797,) int64: scikit-learn's digits, whose values 0 to 16 are scaled to 0 to 255."""
    found = load_digits()
    return np.round(found.images / 16 * 255).astype(np.uint8), found.target.astype(np.int64)


def weights_of(architecture: Mapping[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Fresh weights of a network, from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {name: tensor.clone() for name, tensor in parse(architecture).build().state_dict().items()}


def spec(**changes: Any) -> dict[str, Any]:
    """A small distillation job as a user writes it."""
    return {
        "name": "digits",
        "teacher": "tch_0",
        "student": {"architecture": "arc_0"},
        "dataset": {"id": "ds_0", "take": {"total": 200}, "validation": 0.1},
        "methods": [{"name": "kd", "temperature": 4.0, "weight": 0.9}],
        "recipe": {
            "epochs": 3,
            "batch_size": 32,
            "optimizer": {"name": "sgd", "lr": 0.05},
            "augmentation": [{"name": "crop", "padding": 1}],
        },
        **changes,
    }


def fill(
    folder: Path,
    runtime: Mapping[str, Any] | None = None,
    *,
    networks: tuple[Mapping[str, Any], Mapping[str, Any]] = (TEACHER, STUDENT),
    **changes: Any,
) -> Path:
    """A job folder for a distillation of digits from one of `networks` to the other; `changes` are made to the spec."""
    inside = folder / "in"
    inside.mkdir(parents=True)
    (folder / "out").mkdir()
    x, y = digits()
    np.savez(folder / "digits.npz", x=x, y=y)
    report = ingest(folder / "digits.npz", {"format": "npz"}, inside / "dataset.safetensors")
    asked = spec(**changes)
    teacher = None
    if asked["teacher"] is not None:
        save_weights(inside / "teacher.safetensors", weights_of(networks[0], 1))
        teacher = {"architecture": networks[0], "normalization": NORMALIZATION, "classes": None}
    task = {
        "kind": "distil",
        "spec": asked,
        "teacher": teacher,
        "student": {"architecture": networks[1], "normalization": NORMALIZATION},
        "dataset": report.model_dump(mode="json"),
        "teacher_dataset": None,
        "runtime": {**RUNTIME, **(runtime or {})},
    }
    (folder / "job.json").write_text(json.dumps(task))
    return folder


class Ended(NamedTuple):
    """How a child ended: its exit code, its events, and what it wrote on standard error."""

    code: int
    events: list[Event]
    log: str

    @property
    def refusal(self) -> Refusal:
        """The last event, which is a refusal."""
        assert isinstance(self.events[-1], Refusal), self
        return self.events[-1]

    @property
    def result(self) -> Mapping[str, Any]:
        """The values of the last event, which is a result."""
        assert isinstance(self.events[-1], Result), self
        return self.events[-1].values

    @property
    def repeatable(self) -> Mapping[str, Any]:
        """The result without the times that exports took: what is the same whenever the job runs."""
        exports = [{**each, "facts": {**each["facts"], "latency": None}} for each in self.result["exports"]]
        return {**self.result, "exports": exports}

    @property
    def steps(self) -> dict[int, Mapping[str, float]]:
        """What was told of each step, by its number in the job."""
        return {event.done: event.values for event in self.events if isinstance(event, Step)}

    @property
    def checkpoints(self) -> list[Checkpointed]:
        """The checkpoints that were told."""
        return [event for event in self.events if isinstance(event, Checkpointed)]


def start(command: str, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """A real child on a folder, its standard error in child.log."""
    with (folder / "child.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-m", "core", command, str(folder), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def finish(child: subprocess.Popen[bytes], folder: Path, commands: bytes = b"") -> Ended:
    """Wait for a child's end."""
    out, _ = child.communicate(commands, timeout=120)
    return Ended(child.returncode, [decode(line) for line in out.decode().splitlines()], (folder / "child.log").read_text())


def work(command: str, folder: Path, *options: str) -> Ended:
    """Start a child and wait for its end."""
    return finish(start(command, folder, *options), folder)


def inspection(folder: Path, asset: str, request: Mapping[str, Any], upload: bytes = b"") -> Ended:
    """Inspect some bytes in a real child."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    (folder / "in" / "upload").write_bytes(upload)
    (folder / "job.json").write_text(json.dumps({"kind": "inspect", "asset": asset, "request": request}))
    return work("inspect", folder)
