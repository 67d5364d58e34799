"""What a dry run foresees held against what happens: seconds and peak memory of real small jobs beside their estimated ranges.

`python -m benchmarks.estimates [--threads 1] [--only NAME] [--out FILE]`. Each job is a child of the engine on a folder of its own, on
random images; its private memory is read every 20 ms. The machine is calibrated once, before the first job, as a worker does it. Where
other work shares the machine a job waits: what it was given of the processor, which on one thread is what it would have taken on a machine
of its own, is held against the range too.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import machine
from benchmarks.images import canonical
from benchmarks.training import Bed, Training
from core.anatomy import measure
from core.artifacts import save_weights
from core.calibrate import Calibration
from core.estimate import estimate
from core.networks import parse
from core.plan import plan
from core.spec import JobSpec

_IMAGES = {"train": 1200, "test": 300}
_EACH = 0.02


class Case(NamedTuple):
    """A student, and how it is taught."""

    name: str
    student: Mapping[str, Any]
    teacher: Mapping[str, Any] | None = None
    methods: Sequence[Mapping[str, Any]] = ()
    recipe: Mapping[str, Any] = {}
    evaluate: Sequence[str] = ("accuracy",)


CONVNET: Mapping[str, Any] = {"family": "convnet", "channels": [16, 32, 64]}
WIDE: Mapping[str, Any] = {"family": "convnet", "channels": [32, 64, 128]}
RESNET: Mapping[str, Any] = {"family": "resnet", "depth": 8}
WRN: Mapping[str, Any] = {"family": "wrn", "depth": 10, "widen": 1}
TAUGHT: Mapping[str, Any] = {"family": "wrn", "depth": 16, "widen": 2, "stem_stride": 2}
DEEP: Mapping[str, Any] = {"family": "resnet", "depth": 20}
FSP = {"name": "fsp", "epochs": 2, "connectors": True}
ADAMW = {"name": "adamw", "lr": 1e-3}
ALL = ("agreement", "fgsm", "parameter_noise")
AUGMENTED = [{"name": "crop"}, {"name": "flip"}]
CASES = (
    Case("mlp alone", {"family": "mlp", "hidden": [256, 128]}, recipe={"epochs": 30, "batch_size": 64}),
    Case("mlp, small batches", {"family": "mlp", "hidden": [32]}, recipe={"epochs": 10, "batch_size": 8}),
    Case("large mlp, adamw", {"family": "mlp", "hidden": [2048, 2048]}, recipe={"epochs": 3, "batch_size": 128, "optimizer": ADAMW}),
    Case("convnet alone", CONVNET, recipe={"epochs": 6, "batch_size": 64, "augmentation": AUGMENTED}),
    Case("convnet, kd", CONVNET, WIDE, [{"name": "kd"}], {"epochs": 4, "batch_size": 128, "augmentation": AUGMENTED}),
    Case("convnet, fitnet and kd", CONVNET, WIDE, [{"name": "fitnet", "epochs": 2}, {"name": "kd"}], {"epochs": 3, "batch_size": 64}),
    Case("resnet, kd", RESNET, DEEP, [{"name": "kd"}], {"epochs": 2, "batch_size": 64, "augmentation": AUGMENTED}),
    Case("resnet, large batches, ema", RESNET, recipe={"epochs": 3, "batch_size": 512, "ema": 0.99}),
    Case("wrn, at and kd", WRN, {**TAUGHT, "stem_stride": 1}, [{"name": "at"}, {"name": "kd"}], {"epochs": 2, "batch_size": 32}),
    Case("wrn, ab", WRN, {**TAUGHT, "stem_stride": 1}, [{"name": "ab", "epochs": 1}], {"epochs": 1, "batch_size": 64}),
    Case("wrn, fsp", {**WRN, "stem_stride": 2}, TAUGHT, [FSP], {"epochs": 4, "batch_size": 64}),
    Case("convnet, bss", CONVNET, WIDE, [{"name": "bss"}, {"name": "kd"}], {"epochs": 3, "batch_size": 128}),
    Case("convnet, jacobian", CONVNET, WIDE, [{"name": "jacobian"}], {"epochs": 2, "batch_size": 64}),
    Case("convnet, wasserstein", CONVNET, WIDE, [{"name": "wasserstein", "share": 0.5}], {"epochs": 2, "batch_size": 64}),
    Case("mobilenet", {"family": "mobilenetv2"}, recipe={"epochs": 2, "batch_size": 64}),
    Case("shufflenet, kd", {"family": "shufflenetv2"}, RESNET, [{"name": "kd"}], {"epochs": 2, "batch_size": 32}),
    Case("vgg, accumulate", {"family": "vgg", "depth": 8}, recipe={"epochs": 1, "batch_size": 32, "accumulate": 4}),
    Case("convnet, all measures", CONVNET, WIDE, [{"name": "kd"}], {"epochs": 1, "batch_size": 64}, ALL),
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run every case, print its line, and write all of it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of each job")
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    device = _calibration(options.threads)
    print(f"calibrated: {device.model_dump_json()}", flush=True)
    with tempfile.TemporaryDirectory(prefix="retort-estimates-") as name:
        bed = _bed(Path(name))
        found = list[dict[str, Any]]()
        for case in CASES:
            if options.only is None or options.only in case.name:
                found.append(_held_against(case, bed, device, options.threads))
                print(_line(found[-1]), flush=True)
                if options.out:
                    options.out.write_text(json.dumps(_summed_up(found, device, options.threads), indent=1) + "\n")
    print(f"of {len(found)} jobs within the range: {_inside(found)}")


def _summed_up(found: Sequence[Mapping[str, Any]], device: Calibration, threads: int) -> dict[str, Any]:
    """All that was measured so far."""
    whole = {"threads": threads, "n": len(found), "inside": _inside(found), "cases": found, "calibration": device.model_dump()}
    return {**whole, "images": _IMAGES, "machine": machine.describe()}


def _inside(found: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {what: sum(each[what]["inside"] for each in found) for what in ("seconds", "processor_seconds", "bytes")}


def _calibration(threads: int) -> Calibration:
    command = [sys.executable, "-m", "core", "calibrate", "--threads", str(threads)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    return Calibration.model_validate(json.loads(told.stdout)["values"])


def _bed(folder: Path) -> Bed:
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, n in _IMAGES.items():
        arrays[f"x_{split}"] = draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(n, dtype=np.int64) % 10
    np.savez(folder / "images.npz", **arrays)
    data, report = canonical(folder / "images.npz", folder / "data")
    return Bed(data, report, folder / "work")


def _held_against(case: Case, bed: Bed, device: Calibration, threads: int) -> dict[str, Any]:
    student = bed.network(case.student)
    taught = None
    if case.teacher is not None:
        file = bed.work / "teacher.safetensors"
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        save_weights(file, parse(bed.network(case.teacher)["architecture"]).build().state_dict())
        taught = (case.teacher, file)
    steady = {"optimizer": {"name": "sgd", "lr": 0.01}, **case.recipe}
    spec = {"dataset": {"validation": 0.1}, "methods": list(case.methods), "recipe": steady, "evaluate": list(case.evaluate)}
    training = bed.training(spec, case.student, taught)
    training.task["runtime"]["threads"] = threads
    anatomies = [
        measure(parse(each["architecture"]), normalization=each["normalization"]) if each else None
        for each in (bed.network(case.teacher) if case.teacher else None, student)
    ]
    teacher, own = anatomies
    assert own is not None
    whole = JobSpec.model_validate(training.task["spec"])
    began = time.perf_counter()
    foreseen = estimate(plan(whole, teacher, own, dataset=bed.report), whole, teacher, own, dataset=bed.report, device=device)
    thought = time.perf_counter() - began
    seconds, processor, peak = _run(training, threads)
    return {
        "name": case.name,
        "planned_in": round(thought, 3),
        "seconds": _beside(foreseen.seconds, seconds),
        "processor_seconds": _beside(foreseen.seconds, processor),
        "bytes": _beside(foreseen.peak_memory_bytes, peak),
    }


def _beside(foreseen: tuple[float, float], measured: float) -> dict[str, Any]:
    low, high = foreseen
    return {
        "low": low,
        "high": high,
        "measured": measured,
        "inside": low <= measured <= high,
        "of_the_middle": measured / (low * high) ** 0.5,
    }


def _run(training: Training, threads: int) -> tuple[float, float, int]:
    """Seconds of a job from the start of its process to its end, those of a processor that it was given, and the most private memory that
    it was seen to hold, in bytes."""
    folder = training.prepare()
    began, before = time.monotonic(), _given()
    with (folder / "child.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "core", "run", str(folder.resolve()), "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=(folder / "events").open("wb"), stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
        most = 0
        while child.poll() is None:
            most = max(most, _private(child.pid))
            time.sleep(_EACH)
    if child.returncode:
        raise RuntimeError(f"{folder} ended with {child.returncode}: {(folder / 'child.log').read_text()[-2000:]}")
    return time.monotonic() - began, _given() - before, most


def _given() -> float:
    """Seconds of a processor that the children which have ended were given."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _private(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:")), 0)


def _line(found: Mapping[str, Any]) -> str:
    told = []
    for what, unit in (("seconds", 1.0), ("processor_seconds", 1.0), ("bytes", float(1 << 20))):
        each = found[what]
        range_ = f"{each['low'] / unit:7.1f} to {each['high'] / unit:7.1f}"
        told.append(f"{each['measured'] / unit:7.1f} in {range_} {'' if each['inside'] else 'OUTSIDE'} ({each['of_the_middle']:.2f})")
    return f"{found['name']:<28} s {told[0]}   processor {told[1]}   MiB {told[2]}"


if __name__ == "__main__":
    main()
