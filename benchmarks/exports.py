"""What each export format keeps of a student, and costs: several families, every format, as a job exports them.

`python -m benchmarks.exports --data FILE --work DIR [--steps 300] [--rounds 5] [--threads 1] [--out FILE]`. Each student is trained for a
few steps on the labels alone: enough that rounding is judged on a network that knows something, and far from its best. The formats are
written, loaded and judged as in a job; then, in rounds, fresh processes load all of them again and time them, in reversed order every
second round. A time is the median of a round's calls; the rounds give its spread, and ratios are taken within a round.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks import machine
from benchmarks.images import canonical
from core.anatomy import measure
from core.data import DatasetReport, Splits, open_dataset, subset
from core.data.batches import Batches
from core.export import Facts, formats, versions
from core.export.fresh import Subject, examine
from core.export.held import hold
from core.export.offer import Offer, offer
from core.networks import parse
from core.runtime import Runtime
from core.spec import DatasetRef
from core.taps import Tapped

STUDENTS: Sequence[Mapping[str, Any]] = (
    {"family": "mlp", "hidden": [128]},
    {"family": "resnet", "depth": 8},
    {"family": "shufflenetv2"},
    {"family": "mobilenetv2"},
    {"family": "convnet"},
    {"family": "wrn", "depth": 10, "widen": 1},
    {"family": "vgg"},
)
_BATCH = 128


def main(arguments: list[str] | None = None) -> None:
    """Measure every student in every format, print the table, and write it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="an image set: a tar archive, .npz or canonical .safetensors")
    parser.add_argument("--work", type=Path, required=True, help="a folder for what is made on the way")
    parser.add_argument("--steps", type=int, default=300, help="steps of training")
    parser.add_argument("--rounds", type=int, default=5, help="how often all are timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    Runtime(threads=options.threads).pin()
    file, report = canonical(options.data, options.work)
    splits = subset(open_dataset(file), DatasetRef(id="ds_0", validation=0.0))
    about = {"data": options.data.name, "steps": options.steps, "batch": _BATCH, "threads": options.threads, "rounds": options.rounds}
    measured = dict[str, Any]()
    for student in STUDENTS:
        measured[name_of(student)] = student_in_all(
            student, splits, report, options.work, steps=options.steps, rounds=options.rounds, threads=options.threads
        )
        if options.out:  # after each, so that what was measured is kept
            whole = {**about, "students": measured, "exporters": versions(), "machine": machine.describe()}
            options.out.write_text(json.dumps(whole, indent=1) + "\n")


def name_of(student: Mapping[str, Any]) -> str:
    """A student in a word or two."""
    return "-".join(str(value) for value in (student["family"], student.get("depth"), student.get("widen")) if value is not None)


def student_in_all(
    student: Mapping[str, Any], splits: Splits, report: DatasetReport, work: Path, *, steps: int, rounds: int, threads: int
) -> dict[str, Any]:
    """Train a student, export it in every format, and time what is offered: the figures by format, and the student's own."""
    family = parse({**student, "input": report.input, "classes": report.classes})
    anatomy = measure(family, normalization={"mean": report.mean, "std": report.std})
    trained = train(Tapped(family.build(), mean=report.mean, std=report.std), splits, steps)
    normalization = {"mean": report.mean, "std": report.std}
    facts = Facts(
        name=name_of(student), family=family, normalization=normalization, class_names=report.class_names, range=report.range, test={},
        teacher=None, curves={}, spec={}, seed=0, epochs=0, parameters=anatomy.parameters, flops=anatomy.flops, hardware="",
    )  # fmt: skip
    folder = work / name_of(student)
    offers = offer(
        list(formats()), trained, facts=facts, teacher=None, test=splits.test, train=splits.train, folder=folder, threads=threads,
        look=lambda doing: None, tell=lambda event: None,
    )  # fmt: skip
    offered = [each.format for each in offers if each.refused is None]
    held = folder / "held.safetensors"
    hold(trained, splits.test, held, flops=anatomy.flops)
    times: dict[str, list[dict[int, float]]] = {name: [] for name in offered}
    subjects = [
        Subject(name, str(folder / "out" / "export"), formats()[name].lines(family, normalization, threads), formats()[name].takes, False)
        for name in offered
    ]
    for number in range(rounds):
        order = subjects if number % 2 == 0 else subjects[::-1]
        found = examine(order, held, folder, threads=threads, present=None, look=lambda doing: None)
        for name in offered:
            times[name].append({row["batch"]: row["p50_ms"] for row in found[name]["latency"]})
    result = {each.format: _figures(each, offers, times) for each in offers}
    for name, figures in result.items():
        print(name_of(student), name, json.dumps(figures), flush=True)
    return {"parameters": anatomy.parameters, "flops": anatomy.flops, "formats": result}


def train(student: Tapped, splits: Splits, steps: int) -> Tapped:
    """Adam on the labels, batches of 128: the same for every family."""
    batches = Batches(splits.train, _BATCH, seed=0)
    optimizer = torch.optim.Adam(student.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    student.train()
    for step in range(steps):
        batch = batches(step // batches.steps, step % batches.steps)
        loss = F.cross_entropy(student(batch.x).logits, batch.y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return student


def _figures(each: Offer, offers: Sequence[Offer], times: Mapping[str, list[dict[int, float]]]) -> dict[str, Any]:
    """What is told of one format; its size, and its time within each round, in units of the plain weights run by PyTorch."""
    kept = ("bytes", "compared", "top1_agreement", "max_abs_diff", "accuracy", "student_accuracy")
    figures: dict[str, Any] = {"refused": each.refused, **{name: each.facts[name] for name in kept if name in each.facts}}
    plain = next(other.facts["bytes"] for other in offers if other.format == "safetensors")
    if "bytes" in figures:
        figures["bytes_ratio"] = round(figures["bytes"] / plain, 3)
    if each.refused is None:
        mine, base = times[each.format], times["safetensors"]
        figures["latency"] = {
            str(batch): {
                "ms": _spread([found[batch] for found in mine]),
                "ratio": _spread([found[batch] / other[batch] for found, other in zip(mine, base, strict=True)]),
            }
            for batch in mine[0]
        }
    return figures


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"n": len(values), "median": round(statistics.median(values), 4), "min": round(min(values), 4), "max": round(max(values), 4)}


if __name__ == "__main__":
    main()
