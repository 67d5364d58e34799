"""What a training step costs beyond its networks: the engine's own step beside a bare loop, and taken apart.

`python -m benchmarks.step [--rounds 15] [--steps 4] [--threads 2] [--out FILE]`. The bare loop runs the same modules in the same modes on
one batch: the teacher forward, the student forward, and the student backward from a fixed gradient of its logits. Augmentation, terms,
optimiser and loop are what the engine does beside. Both take turns in one process, in reversed order every second round.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine
from benchmarks.images import canonical
from benchmarks.scales import network
from benchmarks.training import Bed
from benchmarks.turns import turns
from core.artifacts import save_weights
from core.bench import Bench
from core.data import subset
from core.events import Step
from core.fit import fit
from core.job import Job
from core.networks import parse
from core.runtime import Runtime
from core.source import Live

BATCH = 64
PAIRS = (((16, 2), (10, 1)), ((16, 4), (16, 2)))
"""Teacher and student, each (depth, widen)."""
METHODS: Mapping[str, list[dict[str, Any]]] = {
    "none": [],
    "kd": [{"name": "kd"}],
    "at": [{"name": "at"}],
    "at+kd": [{"name": "at"}, {"name": "kd"}],
}


def main(arguments: list[str] | None = None) -> None:
    """Measure every pair with every method, print the table, and write it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="how often the two take turns")
    parser.add_argument("--steps", type=int, default=4, help="steps of each in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    Runtime(threads=options.threads).pin()
    with tempfile.TemporaryDirectory(prefix="retort-step-") as name:
        bed = _bed(Path(name))
        cases = []
        for teacher, student in PAIRS:
            for methods in METHODS:
                case = Case(bed, _wrn(teacher), _wrn(student), METHODS[methods])
                names = {"networks": f"{network(_wrn(teacher))} to {network(_wrn(student))}", "methods": methods}
                cases.append({**names, **_compared(case, options.rounds, options.steps), **_pieces(case, options.rounds * options.steps)})
                print(_line(cases[-1]), flush=True)
    result = {"batch": BATCH, "threads": options.threads, "rounds": options.rounds, "steps": options.steps, "cases": cases}
    if options.out:
        options.out.write_text(json.dumps({**result, "machine": machine.describe()}, indent=1) + "\n")


class Case:
    """A job of the engine, opened as its child process opens it, that makes one step at a time; and the bare loop on the same networks."""

    def __init__(
        self, bed: Bed, teacher: Mapping[str, Any], student: Mapping[str, Any], methods: list[dict[str, Any]], **recipe: Any
    ) -> None:
        steady = {"epochs": 100_000, "batch_size": BATCH, "precision": "fp32", "augmentation": [{"name": "crop"}, {"name": "flip"}]}
        spec = {"dataset": {"validation": 0.0}, "methods": methods, "recipe": steady | recipe}
        taught = (teacher, _fresh(bed, teacher)) if methods else None
        training = bed.training(spec, student, taught)
        job = Job.open(training.prepare(), training.task)
        self.teacher, self.student = job.trained_teacher(), job.new_student()
        batches = job.sources(subset(job.data, job.spec.dataset), "cpu").fits
        self.bench = Bench(job.plan.fits, job.plan.per_epoch, self.student, self.teacher, seed=0)
        self._events = fit(self.bench, Live(batches[0], self.teacher), None)
        self.told: Mapping[str, float] = {}
        next(self._events)  # enters the fit: modes are set, the optimiser has its momentum
        self.batch, self.domain = batches[0](0, 0), batches[0].domain
        self._gradient = torch.randn(len(self.batch.x), bed.report.classes)

    def step(self) -> float:
        """Seconds of one step of the engine."""
        began = time.perf_counter()
        event = next(self._events)
        spent = time.perf_counter() - began
        if isinstance(event, Step):
            self.told = event.values
        return spent

    def bare(self) -> None:
        """The networks alone."""
        self.student.zero_grad(set_to_none=True)
        if self.teacher is not None:
            with torch.no_grad():
                self.teacher(self.batch.x)
        self.student(self.batch.x).logits.backward(self._gradient)


@contextmanager
def stopwatch(case: Case) -> Iterator[dict[str, float]]:
    """Seconds inside "teacher" and "student" (forward) and "backward" (of the whole loss, terms included), counted up while it is open."""
    seconds = {"teacher": 0.0, "student": 0.0, "backward": 0.0}
    began: list[float] = []
    handles = []
    for name, module in (("teacher", case.teacher), ("student", case.student)):
        if module is not None:

            def leave(*_: object, name: str = name) -> None:
                seconds[name] += time.perf_counter() - began.pop()

            handles += [
                module.register_forward_pre_hook(lambda *_: began.append(time.perf_counter())),
                module.register_forward_hook(leave),
            ]
    backward = torch.Tensor.backward

    def timed(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        start = time.perf_counter()
        backward(tensor, *args, **kwargs)  # type: ignore[no-untyped-call]
        seconds["backward"] += time.perf_counter() - start

    torch.Tensor.backward = timed  # type: ignore[method-assign, assignment]
    try:
        yield seconds
    finally:
        torch.Tensor.backward = backward  # type: ignore[method-assign]
        for handle in handles:
            handle.remove()


def _compared(case: Case, rounds: int, steps: int) -> dict[str, Any]:
    """The engine's step over the bare loop's, round by round."""
    found = turns(case.bare, case.step, rounds=rounds, steps=steps)
    return {"step_ms": found.pop("second_ms"), "bare_ms": found.pop("first_ms"), **found}


def _pieces(case: Case, n: int) -> dict[str, Any]:
    """The shares of the engine's own step, each the median over n steps; "rest" is what is in none of the others."""
    shares: dict[str, list[float]] = {"teacher": [], "student": [], "backward": [], "rest": []}
    for _ in range(n):
        with stopwatch(case) as seconds:
            whole = case.step()
        for name, spent in {**seconds, "rest": whole - sum(seconds.values())}.items():
            shares[name].append(spent / whole)
    return {"n_pieces": n, "pieces": {name: statistics.median(values) for name, values in shares.items()}}


def _bed(folder: Path) -> Bed:
    """Random pictures: only time matters here."""
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, n in (("train", 4096), ("test", 64)):
        arrays |= {f"x_{split}": draw.integers(0, 256, (n, 32, 32, 3), np.uint8), f"y_{split}": np.arange(n, dtype=np.int64) % 10}
    np.savez(folder / "random.npz", **arrays)
    data, report = canonical(folder / "random.npz", folder / "data")
    return Bed(data, report, folder)


def _wrn(size: tuple[int, int]) -> dict[str, Any]:
    return {"family": "wrn", "depth": size[0], "widen": size[1]}


def _fresh(bed: Bed, architecture: Mapping[str, Any]) -> Path:
    """Initial weights for a teacher: what it answers does not matter here."""
    path = bed.work / f"{'-'.join(map(str, architecture.values()))}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        save_weights(path, parse(bed.network(architecture)["architecture"]).build().state_dict())
    return path


def _line(case: Mapping[str, Any]) -> str:
    """One row of the table in the README."""
    ratio, pieces = case["ratio"], case["pieces"]
    shares = " | ".join(f"{100 * pieces[name]:.1f} %" for name in ("teacher", "student", "backward", "rest"))
    measured = f"{ratio['median']:.3f} [{ratio['min']:.3f}..{ratio['max']:.3f}]"
    return f"| {case['networks']} | {case['methods']} | {measured} | {case['step_ms']:.1f} | {case['bare_ms']:.1f} | {shares} |"


if __name__ == "__main__":
    main()
