"""The real engine in the laboratory: a small perceptron on real digits, and what it makes when nothing interrupts it."""

import json
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from core.blobs import digest_of
from db import life
from tests.chaos.lab import Lab
from tests.core.folders import fill, work

ENGINE = (sys.executable, "-I", "-m", "core")
RECIPE = {"epochs": 30, "batch_size": 32, "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}}
_INPUTS = ("in/teacher.safetensors", "in/dataset.safetensors")


@cache
def finished() -> tuple[dict[str, Any], dict[str, bytes], str]:
    """A job that a child finished alone: its job.json without the runtime, its input files, and the digest of its student."""
    with tempfile.TemporaryDirectory() as place:
        folder = fill(Path(place) / "job", recipe=RECIPE)
        files = {name: (folder / name).read_bytes() for name in _INPUTS}
        ended = work("run", folder)
        assert ended.code == 0, ended.log
        task = json.loads((folder / "job.json").read_text())
        task.pop("runtime")
        return task, files, digest_of(next((folder / "out").rglob("model.safetensors")))


def train(lab: Lab) -> str:
    """Submit that job to a laboratory; its id. It needs a worker whose child is `ENGINE`."""
    task, files, sha256 = finished()
    blobs = {name: lab.blobs.put([content]) for name, content in files.items()}
    inputs = {"task": task, "blobs": blobs}
    job = life.submit(lab.database, lab.tenant, name="digits", spec={}, spec_sha="", inputs=inputs, queue="any", max_queued=1000)
    return lab.accept(job.id, steps=None, sha256=sha256)
