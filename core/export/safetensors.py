"""The student's weights as safetensors, with its network as plain PyTorch, a model card, its figures and where it came from."""

import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.artifacts import load_weights, save_weights
from core.blobs import digest_of
from core.evaluate.agreement import Agreement
from core.events import Exported, File
from core.export import Facts, Unfaithful, versions
from core.export.card import card
from core.taps import Tapped

TOLERANCE = 1e-4
"""The largest difference of two logits that is taken for rounding, relative to the largest logit (at least 1)."""


def write(student: Tapped, *, facts: Facts, out: Path, sample: Tensor) -> Exported:
    """See `core.export.export`. The student only: no optimiser, no connectors, no teacher. The same student gives the same bytes."""
    folder = out / "export"
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_weights(weights, student.network.state_dict(), {"format": "pt"})
    (folder / "network.py").write_text(facts.family.source())
    parity = _verify(student, folder, facts, sample)
    measured = {"parameters": sum(p.numel() for p in student.network.parameters()), "bytes": weights.stat().st_size}
    made = {"seed": facts.seed, "hardware": facts.hardware, "versions": versions()}
    _write_json(folder / "config.json", _config(facts))
    figures = {"student": {**facts.test, **measured}, "teacher": facts.teacher and dict(facts.teacher)}
    curves = {"curves": facts.curves} if facts.curves else {}
    _write_json(folder / "metrics.json", {**figures, **curves, "parity": parity, **made})
    _write_json(folder / "provenance.json", {"spec": facts.spec, "epochs": facts.epochs, **made})
    (folder / "README.md").write_text(card(facts, measured, versions()))
    names = ("README.md", "config.json", "metrics.json", "model.safetensors", "network.py", "provenance.json")
    (folder / "SHA256SUMS").write_text("".join(f"{digest_of(folder / name)}  {name}\n" for name in names))
    files = tuple(_file(folder / name, out) for name in (*names, "SHA256SUMS"))
    return Exported("safetensors", files, {**measured, **parity})


def _verify(student: Tapped, folder: Path, facts: Facts, sample: Tensor) -> dict[str, float]:
    """Load what was written as a stranger would, and compare it with the student; `Unfaithful` where they differ."""
    state = student.network.state_dict()
    loaded = load_weights(folder / "model.safetensors", where="/exports")
    if loaded.keys() != state.keys() or not all(torch.equal(loaded[name], value.cpu()) for name, value in state.items()):
        raise Unfaithful("the weights that were read back are not the student's")
    with torch.device("meta"):
        network = runpy.run_path(str(folder / "network.py"))["build"]()
    # In the student's own memory layout: the same sums in the same order, so a difference is an error and not rounding.
    network.load_state_dict({name: torch.empty_like(state[name]).copy_(value) for name, value in loaded.items()}, assign=True)
    space = facts.normalization or {}
    reloaded = Tapped(network, mean=space.get("mean"), std=space.get("std")).to(student.mean.device)
    sample = sample.to(student.mean.device)
    with torch.no_grad(), student.quiet(), reloaded.quiet():
        expected, got = student(sample).logits, reloaded(sample).logits
    compared = Agreement(sample.device)
    compared.add(expected, got)
    found = compared.values()
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    # Where two classes are closer than rounding, either answer is right.
    right = expected.gather(1, got.argmax(1, keepdim=True)).squeeze(1) >= expected.amax(1) - 2 * allowed
    if not found["max_abs_diff"] <= allowed or not bool(right.all()):
        raise Unfaithful(f"the reloaded network differs from the student by {found['max_abs_diff']:.3g} on {len(sample)} inputs")
    return {"max_abs_diff": found["max_abs_diff"], "top1_agreement": found["agreement"], "compared": len(sample)}


def _config(facts: Facts) -> dict[str, Any]:
    return {
        "architecture": facts.family.model_dump(mode="json"),
        "normalization": facts.normalization and {name: list(values) for name, values in facts.normalization.items()},
        "classes": list(facts.class_names),
        "input": list(facts.family.input),
        "range": list(facts.range),
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _file(path: Path, out: Path) -> File:
    return File(path.name, path.relative_to(out.parent).as_posix(), digest_of(path), path.stat().st_size)
