"""How long a step with boundary supporting samples takes in the engine, and in a textbook loop built as the published code is.

`python -m benchmarks.bss [--rounds 9] [--threads 2] [--out FILE]`: ResNet26 to ResNet8, batches of 256, of which 64 are attacked, all ten
steps each: a bias makes every answer the first class, and a head of small weights keeps the attack from ever changing it. Neither augments;
the loop has what it needs at hand: its one batch is read and normalised beforehand, where the engine does so at every step. Before anything
is timed both compute loss and gradient from the same weights, batch and target classes; where they differ the script fails.
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import machine
from benchmarks.images import canonical
from benchmarks.step import Case
from benchmarks.training import Bed
from benchmarks.turns import turns
from core.data.rows import Batch
from core.method import Scene
from core.methods.bss import BSS, Boundary
from core.random import key_of
from core.runtime import Runtime
from core.taps import Tapped

BATCH, SAMPLES, ITERATIONS, TEMPERATURE = 256, 64, 10, 3.0
METHODS: list[dict[str, Any]] = [
    {"name": "kd", "variant": "official", "temperature": TEMPERATURE, "weight": 4.0},
    {"name": "bss", "variant": "official", "temperature": TEMPERATURE, "weight": 2.0, "samples": SAMPLES, "iterations": ITERATIONS},
]
RATE = 1e-7
"""Of learning: so slow that the student stays as it was made, and with it what is attacked."""
TARGETS = {"fp32": 1.8, "bf16": 3.2}
"""How many times as fast the engine's step is to be."""
TOLERANCES = {torch.float64: 1e-6, torch.float32: 5e-2}
"""How far loss and gradient may be from the loop's, relative (of the gradient the length of the difference).

In float32 an activation within rounding of 0 is on in one and off in the other; that turns a gradient, and ten steps follow it.
"""


def main(arguments: list[str] | None = None) -> None:
    """Compare, then measure both precisions, print a line for each, and write all where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often the two take turns")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    Runtime(threads=options.threads).pin()
    with tempfile.TemporaryDirectory(prefix="retort-bss-") as name:
        bed = pictures(Path(name), size=32, n=1024)
        cases = {precision: opened(bed, _resnet(26), _resnet(8), batch_size=BATCH, precision=precision) for precision in TARGETS}
        differences = equal(cases["fp32"])
        found = {}
        for precision, case in cases.items():
            found[precision] = {"target": TARGETS[precision], **_compared(case, options.rounds)}
            print(_line(precision, found[precision]), flush=True)
    settings = {"batch": BATCH, "samples": SAMPLES, "iterations": ITERATIONS, "threads": options.threads, "rounds": options.rounds}
    if options.out:
        whole = {**settings, "differences": differences, "cases": found, "machine": machine.describe()}
        options.out.write_text(json.dumps(whole, indent=1) + "\n")


class Textbook:
    """The step of the published code's structure on copies of two networks, in normalised space, fp32 and NCHW.

    The teacher's parameters require a gradient, so every pass of it is recorded and every step of the attack computes a gradient for each;
    samples that are done stay in the batch; target classes are drawn element by element; the loss is read at every step.
    """

    def __init__(self, teacher: Tapped, student: Tapped, batch: Batch, *, samples: int = SAMPLES) -> None:
        self.teacher, self.student = (copy.deepcopy(tapped.network) for tapped in (teacher, student))
        self.teacher.requires_grad_(True).eval()
        self.x, self.y = student.normalise(batch.x).contiguous(), batch.y
        self.optimiser = torch.optim.SGD(self.student.parameters(), lr=RATE, momentum=0.9, weight_decay=1e-4, foreach=False)
        self.samples, self.passes, self.losses = samples, 0, 0.0

    def step(self) -> None:
        """One step: the labels, the softened answers, the boundary samples."""
        self.student.train()
        self.optimiser.zero_grad()
        ours = self.student(self.x)
        theirs = self.teacher(self.x)
        loss = F.cross_entropy(ours, self.y) + 4 * _soft(ours, theirs) + 2 * self.boundary(ours, theirs, torch.rand(len(self.x)))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.losses += loss.item()

    def boundary(self, ours: Tensor, theirs: Tensor, uniform: Tensor) -> Tensor:
        """The loss at the boundary samples; `uniform` (B,) draws the target classes."""
        rows = self._base(ours.detach(), theirs.detach())
        base, q = self.y[rows], theirs.detach()[rows].softmax(1)
        target = torch.zeros_like(base)
        for i in range(len(rows)):
            total, top = 0.0, int(q[i].argmax())
            for k in range(q.shape[1]):
                if k == top:
                    continue
                total += q[i, k].item() / (1 - q[i, top].item())
                target[i] = k
                if uniform[rows[i]].item() < total:
                    break
        x = self._attacked(self.x[rows], base, target)
        return _soft(self.student(x), self.teacher(x))

    def _base(self, ours: Tensor, theirs: Tensor) -> Tensor:
        rows = ((ours.argmax(1) == self.y) & (theirs.argmax(1) == self.y)).nonzero()[:, 0]
        if len(rows) <= self.samples:
            return rows
        gap = (ours[rows].softmax(1) - theirs[rows].softmax(1)).square()
        gap[torch.arange(len(rows)), self.y[rows]] = 0
        return rows[gap.sum(1).sort(descending=True).indices[: self.samples]]

    def _attacked(self, x: Tensor, base: Tensor, target: Tensor) -> Tensor:
        done = torch.zeros_like(base, dtype=torch.bool)
        for self.passes in range(1, ITERATIONS + 1):
            leaf = x.clone().requires_grad_()
            logits = self.teacher(leaf)
            gap = (logits.gather(1, base[:, None]) - logits.gather(1, target[:, None]))[:, 0]
            (-gap.sum()).backward()
            done |= logits.argmax(1) != base
            if done.all():
                break
            assert leaf.grad is not None
            length = leaf.grad.flatten(1).norm(dim=1)
            size = 0.3 * (gap.detach() + 1e-4) / length
            moved = (x + size[:, None, None, None] * leaf.grad).clamp(-2.5, 2.5)
            x = torch.where(done[:, None, None, None], x, moved)
        return x


def equal(case: Case) -> dict[str, dict[str, float]]:
    """The differences from the loop by precision; SystemExit where one is beyond its tolerance, for then no time says anything."""
    found = {}
    for dtype, tolerance in TOLERANCES.items():
        gaps = found[str(dtype).removeprefix("torch.")] = difference(case, dtype)
        if not max(gaps.values()) <= tolerance:
            raise SystemExit(f"in {dtype} the engine and the loop do not compute the same: {gaps}, more than {tolerance}")
    return {**found, "bfloat16": difference(case, torch.float32, bf16=True)}


def difference(case: Case, dtype: torch.dtype, *, bf16: bool = False) -> dict[str, float]:
    """How far the engine's term is from the loop, relative: {"loss", "gradient"}, on at most 32 samples of which at most half are attacked.

    Both work on copies, so that nothing is changed. The draws are the same.
    """
    assert case.teacher is not None
    teacher, student = (copy.deepcopy(tapped).to(dtype) for tapped in (case.teacher, case.student))
    for tapped in (teacher, student):
        # In float64 even the last bit of the normalisation must be that of the domain: where one ReLU turns, all that follows does.
        tapped.mean.copy_(torch.tensor(case.domain.mean, dtype=dtype))
        tapped.std.copy_(torch.tensor(case.domain.std, dtype=dtype))
    batch = Batch(case.batch.x[:32].to(dtype), case.batch.y[:32], case.batch.index[:32], case.batch.view)
    book = Textbook(teacher, student, batch, samples=len(batch.x) // 2)
    with torch.no_grad():
        theirs = teacher(batch.x)
    key = key_of("benchmark")
    shown = student(batch.x)
    scene = Scene(batch.x, batch.y, batch.index, shown, theirs, student, teacher, None, key, domain=case.domain, bf16=bf16)
    found = Boundary(BSS.model_validate({**METHODS[1], "samples": book.samples}))(scene)
    expected = book.boundary(book.student(book.x), theirs.logits, scene.random()[:, 0])
    ours, its = (_gradient(loss, network) for loss, network in ((found, student.network), (expected, book.student)))
    return {"loss": ((found - expected).abs() / expected).item(), "gradient": ((ours - its).norm() / its.norm()).item()}


def opened(bed: Bed, teacher: Mapping[str, Any], student: Mapping[str, Any], **recipe: Any) -> Case:
    """A case whose networks both find the first class everywhere, the teacher so surely that no attack changes it."""
    case = Case(bed, teacher, student, METHODS, optimizer={"name": "sgd", "lr": RATE}, augmentation=[], **recipe)
    assert case.teacher is not None
    with torch.no_grad():
        for tapped, scale, bias in ((case.teacher, 1e-3, 1.0), (case.student, 1.0, 10.0)):
            tapped.network.get_parameter("fc.weight").mul_(scale)
            tapped.network.get_parameter("fc.bias")[0] += bias
    return case


def pictures(folder: Path, *, size: int, n: int) -> Bed:
    """Grey noise in three channels, so that all channels have one deviation: a step in data units is then one in normalised space.

    Nearly all are of the first class.
    """
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", n), ("test", 64)):
        grey = draw.integers(0, 256, (count, size, size, 1), np.uint8)
        arrays |= {f"x_{split}": grey.repeat(3, 3), f"y_{split}": np.maximum(10 - np.arange(count, dtype=np.int64), 0) % 10}
    np.savez(folder / "random.npz", **arrays)
    data, report = canonical(folder / "random.npz", folder / "data")
    return Bed(data, report, folder)


def _soft(student: Tensor, teacher: Tensor) -> Tensor:
    """The divergence at T, without T^2, mean over the samples."""
    logq, p = F.log_softmax(student / TEMPERATURE, 1), F.softmax(teacher / TEMPERATURE, 1).detach()
    return F.kl_div(logq, p, reduction="batchmean")


def _gradient(loss: Tensor, network: nn.Module) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(network.parameters()))])


def _compared(case: Case, rounds: int) -> dict[str, Any]:
    """The loop's step over the engine's, round by round: how many times as fast the engine is. SystemExit where either did too little."""
    assert case.teacher is not None
    book = Textbook(case.teacher, case.student, case.batch)
    found = turns(case.step, book.step, rounds=rounds)
    done = {"usable": case.told["bss.usable"] * BATCH, "steps": case.told["bss.iterations"], "steps of the loop": book.passes}
    if done["usable"] < SAMPLES or done["steps"] != ITERATIONS or book.passes != ITERATIONS:
        raise SystemExit(f"not all {SAMPLES} samples took all {ITERATIONS} steps: {done}")
    return {"engine_ms": found.pop("first_ms"), "textbook_ms": found.pop("second_ms"), **found}


def _resnet(depth: int) -> Mapping[str, Any]:
    return {"family": "resnet", "depth": depth}


def _line(precision: str, case: Mapping[str, Any]) -> str:
    """One row of the table in the README."""
    ratio = case["ratio"]
    measured = f"{ratio['median']:.2f} [{ratio['min']:.2f}..{ratio['max']:.2f}]"
    return f"| {precision} | {measured} | {case['target']} | {case['engine_ms']:.0f} | {case['textbook_ms']:.0f} |"


if __name__ == "__main__":
    main()
