"""A PyTorch checkpoint through two real children: one opens the pickle, another looks into what it made of it."""

import io
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from core.networks import parse
from db import assets
from db.assets import Asset
from db.life.submission import UPLOADED
from tests.worker.lab import Lab

ARCHITECTURE = {"family": "mlp", "input": [1, 8, 8], "classes": 10, "hidden": [4]}
CORE = (sys.executable, "-I", "-m", "core")


def sent(lab: Lab, held: object, **request: Any) -> Asset:
    """A teacher that was sent as a .pth file."""
    buffer = io.BytesIO()
    torch.save(held, buffer)
    asked = {"format": "torch", "architecture": ARCHITECTURE, "normalization": None, **request}
    return assets.create_asset(
        lab.database, lab.tenant, kind="teacher", name="t", request=asked, task={"kind": "convert", "asset": "teacher", "request": asked},
        blobs={UPLOADED: lab.blobs.put([buffer.getvalue()])},
    )  # fmt: skip


def now(lab: Lab, asset: Asset) -> Asset:
    found = assets.get_asset(lab.database, lab.tenant, asset.id)
    assert found is not None
    return found


def test_a_checkpoint_becomes_a_teacher_of_plain_weights_and_the_report_says_how(lab: Lab) -> None:
    weights = {name: torch.rand_like(tensor) for name, tensor in parse(ARCHITECTURE).build().state_dict().items()}
    ema = {f"module._orig_mod.{name}": tensor for name, tensor in weights.items()}
    asset = sent(lab, {"state_dict": parse(ARCHITECTURE).build().state_dict(), "ema": ema}, weights={"select": "ema"})
    with lab.means(child=CORE, convert="isolated") as means:
        job = lab.work(asset.job, means)
        assert (job.state, job.problem) == ("succeeded", None)
        waiting = now(lab, asset)
        assert (waiting.status, waiting.job != asset.job) == ("processing", True)
        lab.work(waiting.job, means)
    ready = now(lab, asset)
    assert (ready.status, ready.problem) == ("ready", None)
    assert ready.report is not None
    assert ready.blob is not None
    safety = ready.report["safety"]
    assert (safety["source_format"], safety["source_sha256"], safety["selected"]) == ("torch_zip", asset.blob, "ema")
    assert safety["isolation"]["system_call_filter"]
    assert ready.report["weights"]["stripped"] == ["module.", "_orig_mod."]
    kept = load(b"".join(lab.blobs.get(ready.blob)))
    assert all(torch.equal(kept[name], tensor) for name, tensor in weights.items())


class Touch:
    """A pickle that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_rejects_its_teacher_and_runs_nothing(lab: Lab, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    asset = sent(lab, {"state_dict": Touch(canary)})
    with lab.means(child=CORE, convert="isolated") as means:
        job = lab.work(asset.job, means)
    assert (job.state, job.code) == ("failed", "invalid_input")
    rejected = now(lab, asset)
    assert rejected.problem is not None
    assert (rejected.status, rejected.problem["where"]) == ("rejected", "/upload")
    assert "more than tensors and plain containers" in rejected.problem["reason"]
    assert not canary.exists()


def test_a_worker_whose_operator_allows_none_opens_none(lab: Lab) -> None:
    asset = sent(lab, parse(ARCHITECTURE).build().state_dict())
    with lab.means(child=CORE) as means:
        lab.work(asset.job, means)
    rejected = now(lab, asset)
    assert rejected.problem is not None
    assert (rejected.status, rejected.problem["where"]) == ("rejected", "/format")
