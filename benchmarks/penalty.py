"""How long a step with an input-gradient penalty takes in the engine, and in a textbook loop with double backward.

`python -m benchmarks.penalty [--rounds 9] [--threads 2] [--out FILE]`: batches of 64 on WRN-16-2 and on a convnet, each taught by a network
of its own size, fp32. The engine's step has the method `wasserstein` on the whole batch, in either form, and on a quarter of it. The loop
has its one batch at hand, where the engine reads and normalises at every step. Before anything is timed both compute loss and gradient from
the same weights and batch; where they differ the script fails.
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import machine
from benchmarks.bss import pictures
from benchmarks.scales import network
from benchmarks.step import Case
from benchmarks.training import Bed
from benchmarks.turns import turns
from core.data.rows import Batch
from core.method import Scene
from core.methods.wasserstein import Ball, Wasserstein
from core.random import key_of
from core.runtime import Runtime
from core.taps import Tapped

BATCH, TEMPERATURE, EPSILON = 64, 4.0, 0.1
NETWORKS: tuple[Mapping[str, Any], ...] = ({"family": "wrn", "depth": 16, "widen": 2}, {"family": "convnet", "channels": [32, 64, 128]})
WAYS: Mapping[str, Mapping[str, Any]] = {
    "auto": {},
    "double backward": {"form": "double_backward"},
    "auto, a quarter of the batch": {"share": 0.25},
}
TARGETS = {"auto": 1.0, "auto, a quarter of the batch": 1.6}
"""How many times as fast as the loop the engine's step is to be, on WRN-16-2."""
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-2}
"""How far loss and gradient may be from the loop's, relative (of the gradient the length of the difference).

In float32 an activation within rounding of 0 is on in one and off in the other.
"""


def main(arguments: list[str] | None = None) -> None:
    """Compare, then measure every way on both networks, print a line for each, and write all where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often the two take turns")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    Runtime(threads=options.threads).pin()
    found = []
    with tempfile.TemporaryDirectory(prefix="retort-penalty-") as name:
        bed = pictures(Path(name), size=32, n=1024)
        for architecture in NETWORKS:
            for way, fields in WAYS.items():
                case = opened(bed, architecture, **fields)
                differences = equal(case) if fields.get("share", 1.0) == 1.0 else {}
                found.append({"network": network(architecture), "way": way, "differences": differences, **_compared(case, options.rounds)})
                print(_line(found[-1]), flush=True)
    settings = {"batch": BATCH, "threads": options.threads, "rounds": options.rounds, "targets": TARGETS}
    if options.out:
        options.out.write_text(json.dumps({**settings, "cases": found, "machine": machine.describe()}, indent=1) + "\n")


class Textbook:
    """The step as one writes it down: both losses, the gradient to the image with a graph, its norm, and backward through all of it.

    Networks are copies; the penalty's passes are in eval mode, as the engine's are.
    """

    def __init__(self, teacher: Tapped, student: Tapped, batch: Batch) -> None:
        self.teacher, self.student = (copy.deepcopy(tapped.network) for tapped in (teacher, student))
        self.teacher.eval()
        self.x, self.y, self.std = student.normalise(batch.x).contiguous(), batch.y, student.std
        self.optimiser = torch.optim.SGD(self.student.parameters(), lr=1e-7, momentum=0.9, weight_decay=1e-4)

    def step(self) -> None:
        """One step: the labels, the softened answers, the penalty."""
        self.student.train()
        self.optimiser.zero_grad()
        with torch.no_grad():
            theirs = self.teacher(self.x)
        ours = self.student(self.x)
        loss = F.cross_entropy(ours, self.y) + _soft(ours, theirs).mean() + EPSILON * self.penalty()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

    def penalty(self) -> Tensor:
        """The mean norm, in data units: what is normalised by a deviation changes by as much less."""
        self.student.eval()
        leaf = self.x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(_soft(self.student(leaf), self.teacher(leaf)).sum(), leaf, create_graph=True)
        norms: Tensor = torch.linalg.vector_norm((slope / self.std.view(-1, 1, 1)).flatten(1), dim=1)
        return norms.mean()


def equal(case: Case) -> dict[str, dict[str, float]]:
    """The differences from the loop by precision; SystemExit where one is beyond its tolerance, for then no time says anything."""
    found = {}
    for dtype, tolerance in TOLERANCES.items():
        gaps = found[str(dtype).removeprefix("torch.")] = difference(case, dtype)
        if not max(gaps.values()) <= tolerance:
            raise SystemExit(f"in {dtype} the engine and the loop do not compute the same: {gaps}, more than {tolerance}")
    return found


def difference(case: Case, dtype: torch.dtype) -> dict[str, float]:
    """How far the engine's penalty is from the loop's, relative: {"loss", "gradient"}, on at most 32 samples and on copies."""
    assert case.teacher is not None
    teacher, student = (copy.deepcopy(tapped).to(dtype).eval() for tapped in (case.teacher, case.student))
    batch = Batch(case.batch.x[:32].to(dtype), case.batch.y[:32], case.batch.index[:32], case.batch.view)
    book = Textbook(teacher, student, batch)
    with torch.no_grad():
        theirs = teacher(batch.x)
    key = key_of("benchmark")
    scene = Scene(batch.x, batch.y, batch.index, student(batch.x), theirs, student, teacher, None, key, domain=case.domain)
    found = Ball(_method(case))(scene)
    expected = _soft(book.student(book.x), book.teacher(book.x)).mean() + EPSILON * book.penalty()
    ours, its = (
        torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(net.parameters()))])
        for loss, net in ((found, student.network), (expected, book.student))
    )
    return {"loss": ((found - expected).abs() / expected).item(), "gradient": ((ours - its).norm() / its.norm()).item()}


def opened(bed: Bed, architecture: Mapping[str, Any], *, batch_size: int = BATCH, **fields: Any) -> Case:
    """A job of the engine with this way of the penalty."""
    method = {"name": "wasserstein", "temperature": TEMPERATURE, "epsilon": EPSILON, **fields}
    return Case(bed, architecture, architecture, [method], batch_size=batch_size, optimizer={"name": "sgd", "lr": 1e-7}, augmentation=[])


def _method(case: Case) -> Wasserstein:
    term = case.bench.terms["wasserstein"]
    assert isinstance(term, Ball)
    return term.method


def _soft(student: Tensor, teacher: Tensor) -> Tensor:
    """T^2 times the divergence at T, (B,)."""
    logq, logp = F.log_softmax(student / TEMPERATURE, 1), F.log_softmax(teacher / TEMPERATURE, 1)
    return TEMPERATURE**2 * (logp.exp() * (logp - logq)).sum(1)


def _compared(case: Case, rounds: int) -> dict[str, Any]:
    """The loop's step over the engine's, round by round: how many times as fast the engine is; and which form ran."""
    assert case.teacher is not None
    found = turns(case.step, Textbook(case.teacher, case.student, case.batch).step, rounds=rounds)
    facts = dict(case.bench.terms["wasserstein"].facts())
    return {**facts, "engine_ms": found.pop("first_ms"), "textbook_ms": found.pop("second_ms"), **found}


def _line(case: Mapping[str, Any]) -> str:
    """One row of the table in the README."""
    ratio = case["ratio"]
    measured = f"{ratio['median']:.2f} [{ratio['min']:.2f}..{ratio['max']:.2f}]"
    return f"| {case['network']} | {case['way']} | {case['form']} | {measured} | {case['engine_ms']:.0f} | {case['textbook_ms']:.0f} |"


if __name__ == "__main__":
    main()
