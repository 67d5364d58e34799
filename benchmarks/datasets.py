"""Datasets coming in and being read: how long sixty thousand small images take, and how fast shuffled batches leave a set of 4 GiB.

The images are gradients with noise from a seed, PNG in a zip of folders, read by the child that a worker starts. The large sets are made
here too; an epoch of shuffled batches (float32, as training meets them) is read by a process that may hold 1 GiB of private data, beside a
plain sequential read of the same file. Before the cold figures the file's pages are dropped from the page cache; the warm ones follow.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import describe
from core import shim

IMAGES = 60_000
MEMORY = 1 << 30
CASES = ((32, 256), (224, 64))
"""(side of a colour image, samples of a batch)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=5, help="how often each figure is measured")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--gib", type=float, default=4.0, help="the size of the large sets")
    parser.add_argument("--work", type=Path, default=Path("build/datasets"), help="where the files are made, and taken away in the end")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--epoch", nargs=3, metavar=("FILE", "BATCH", "EPOCH"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.epoch:
        _epoch(Path(asked.epoch[0]), int(asked.epoch[1]), int(asked.epoch[2]))
        return
    asked.work.mkdir(parents=True)
    try:
        found: dict[str, Any] = {"machine": describe(), "images": _images(asked.work, asked.images, asked.n), "reading": []}
        for side, batch in CASES:
            found["reading"].append(_told(_reading(asked.work, side, batch, asked.gib, asked.n)))
    finally:
        shutil.rmtree(asked.work)
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n")


def _images(work: Path, count: int, n: int) -> dict[str, Any]:
    """Seconds from the start of the inspecting child to its end, of zips of grey and of colour images."""
    cases = {}
    for name, shape in (("28×28 grey", (28, 28)), ("32×32 colour", (32, 32, 3))):
        folder = work / "job"
        (folder / "in").mkdir(parents=True)
        _zip(folder / "in" / "upload", count, shape)
        task = {"kind": "inspect", "asset": "dataset", "request": {"format": "imagefolder"}}
        (folder / "job.json").write_text(json.dumps(task))
        seconds, peaks = [], []
        for _ in range(n):
            spent, peak = _child(["-m", "core", "inspect", str(folder)], threads=2)
            seconds.append(spent)
            peaks.append(peak)
        cases[name] = _told({"images": count, "seconds": spread(seconds), "peak_rss_bytes": max(peaks)})
        shutil.rmtree(folder)
    return cases


def _told(case: dict[str, Any]) -> dict[str, Any]:
    """The same, shown as soon as it is known."""
    print(json.dumps(case), flush=True)
    return case


def _zip(path: Path, count: int, shape: tuple[int, ...]) -> None:
    draw = np.random.default_rng(0)
    ramp = np.linspace(0, 200, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(count):
            pixels = ramp * draw.random(shape[2:]) + draw.integers(0, 50, shape)
            data = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(data, "PNG")
            archive.writestr(f"{'test' if i // 10 % 6 == 5 else 'train'}/{i % 10}/{i:05}.png", data.getvalue())


def _reading(work: Path, side: int, batch: int, gib: float, n: int) -> dict[str, Any]:
    """Bytes a second of a sequential read and of an epoch of batches, turn about; and the ratios of the pairs."""
    path = work / f"{side}.safetensors"
    samples = _large(path, side, int(gib * 2**30))
    size = path.stat().st_size
    rates: dict[str, list[float]] = {f"{state}_{what}": [] for what in ("sequential", "epoch") for state in ("cold", "warm")}
    peak = 0
    for k in range(n):
        _drop(path)
        rates["cold_sequential"].append(size / _timed(lambda: _read(path)))
        rates["warm_sequential"].append(size / _timed(lambda: _read(path)))
        _drop(path)
        for state in ("cold", "warm"):
            told = json.loads(_run(["-m", "benchmarks.datasets", "--epoch", str(path), str(batch), str(k)], threads=2))
            rates[f"{state}_epoch"].append(size / told["seconds"])
            peak = max(peak, told["anonymous_bytes"])
    path.unlink()
    ratios = {
        state: spread([epoch / plain for epoch, plain in zip(rates[f"{state}_epoch"], rates[f"{state}_sequential"], strict=True)])
        for state in ("cold", "warm")
    }
    return {
        "sample": f"3×{side}×{side} uint8",
        "samples": samples,
        "batch": batch,
        "bytes": size,
        "data_limit_bytes": MEMORY,
        "peak_anonymous_bytes": peak,
        "bytes_per_second": {name: spread(values) for name, values in rates.items()},
        "epoch_to_sequential": ratios,
    }


def _large(path: Path, side: int, size: int) -> int:
    from core.data.canonical import Writer

    samples = size // (3 * side * side)
    labels = {"train": np.arange(samples) % 10, "test": np.arange(10)}
    piece = max(10, (4 << 20) // (3 * side * side))
    draw = np.random.default_rng(0)
    with Writer(path, sample=(side, side, 3), dtype="uint8", labels=labels, class_names=tuple("0123456789")) as writer:
        for at in range(0, samples, piece):
            writer.append("train", draw.integers(0, 256, (min(piece, samples - at), side, side, 3), np.uint8))
        writer.append("test", draw.integers(0, 256, (10, side, side, 3), np.uint8))
        writer.finish()
    return samples


def _epoch(path: Path, batch: int, epoch: int) -> None:
    """In a process of its own: limited as a job is, then one epoch of shuffled batches."""
    shim.limit(memory=MEMORY, nice=0)
    from core.data import Batches, open_dataset

    batches = Batches(open_dataset(path).split("train"), batch, seed=0)
    seconds = _timed(lambda: [batches(epoch, i).x.shape for i in range(batches.steps)])
    status = Path("/proc/self/status").read_text()
    anonymous = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
    print(json.dumps({"seconds": seconds, "anonymous_bytes": anonymous * 1024}))


def _read(path: Path) -> None:
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _drop(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _environment(threads: int) -> Mapping[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "THP_MEM_ALLOC_ENABLE": "1"}  # as worker/child.py sets them


def _run(arguments: list[str], *, threads: int) -> str:
    return subprocess.run([sys.executable, *arguments], check=True, text=True, stdout=subprocess.PIPE, env=_environment(threads)).stdout


def _child(arguments: list[str], *, threads: int) -> tuple[float, int]:
    """(seconds, largest resident set in bytes) of a child that succeeds."""
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, *arguments], env=_environment(threads), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{arguments} ended with {child.returncode}: run it by hand")
    return time.perf_counter() - began, usage.ru_maxrss * 1024


def spread(values: list[float]) -> dict[str, float | int]:
    """n figures, by their median and their ends."""
    return {"n": len(values), "median": statistics.median(values), "min": min(values), "max": max(values)}


if __name__ == "__main__":
    main()
