"""A script for a fresh interpreter: load exported files by the lines that their card prints, compare their answers, take their time.

    python -I verify.py REQUEST.json

It imports nothing of Retort, as whoever downloads the files has nothing of it. The request is {"held", "told", "threads", "present",
"seconds", "subjects": [{"name", "folder", "lines", "takes", "compare"}]}. `held` is a safetensors file with inputs "x" (N, ...) in data
range and, of the trained student, "logits" (N, C); "y" (N,) are labels, -1 where there is none. One line of JSON a subject is added to
`told`: {"name", "found": {...}}, or {"name", "error": "..."} where the lines failed. After `seconds` the process is ended.
"""

import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Predict = Callable[[NDArray[np.float32]], NDArray[Any]]

BATCHES = (1, 32)
"""Latency is measured at these batch sizes."""
_TOGETHER = 64
_RUNS = 100
_FEWEST = 10
_SECONDS = 2.0
"""At most this long at each batch size, or as long as the fewest runs take."""
_WARMUP = 10


def main(request: Path) -> None:
    """Examine every subject of a request in turn."""
    asked = json.loads(request.read_text())
    signal.alarm(int(asked["seconds"]))
    held = load_file(asked["held"])
    for subject in asked["subjects"]:
        try:
            answer = {"name": subject["name"], "found": _examine(subject, held, asked)}
        except Exception as error:  # whatever a library throws at a file is what is to be found out here
            traceback.print_exc()
            answer = {"name": subject["name"], "error": f"{type(error).__name__}: {error}".splitlines()[0][:500]}
        with Path(asked["told"]).open("a") as told:
            told.write(json.dumps(answer) + "\n")


def _examine(subject: Mapping[str, Any], held: Mapping[str, NDArray[Any]], asked: Mapping[str, Any]) -> dict[str, Any]:
    predict = _load(subject)
    found: dict[str, Any] = {"threads": asked["threads"]}
    if subject["compare"]:
        found |= _compare(predict, held, asked["present"])
    return {**found, "latency": [_time(predict, held["x"], batch) for batch in BATCHES]}


def _load(subject: Mapping[str, Any]) -> Predict:
    """Run the lines in the subject's folder; `predict` as a function of arrays."""
    os.chdir(subject["folder"])
    sys.path[:] = [subject["folder"], *(place for place in sys.path if place != subject["folder"])]
    sys.modules.pop("network", None)  # the one before had a file of this name too
    for noisy in ("torchao", "torch.utils._pytree"):  # of CUDA files that a machine without CUDA cannot load, and of torchao's age
        logging.getLogger(noisy).setLevel(logging.ERROR)
    space: dict[str, Any] = {}
    exec(compile(subject["lines"], subject["name"], "exec"), space)
    predict: Any = space["predict"]
    if subject["takes"] == "numpy":
        return lambda x: np.asarray(predict(x))
    import torch

    return lambda x: np.asarray(predict(torch.from_numpy(x)).numpy())


def _compare(predict: Predict, held: Mapping[str, NDArray[Any]], present: list[int] | None) -> dict[str, Any]:
    """The answers beside the student's, on every input that is held; only `present` classes are answers, all where that is None."""
    x, y, expected = held["x"], held["y"], held["logits"]
    got = np.concatenate([predict(x[k : k + _TOGETHER]) for k in range(0, len(x), _TOGETHER)])
    if got.shape != expected.shape:
        raise ValueError(f"it gives logits of shape {got.shape}, the student {expected.shape}")
    finite = bool(np.isfinite(got).all())
    classes = np.arange(expected.shape[1]) if present is None else np.array(present)
    ours, theirs = (classes[logits[:, classes].argmax(1)] for logits in (got, expected))
    found = {
        "finite": finite,
        "compared": len(x),
        "max_abs_diff": float(np.abs(got.astype(np.float64) - expected).max()) if finite else None,
        "largest_logit": float(np.abs(expected).max()),
        "same": int((ours == theirs).sum()),
    }
    known = y >= 0
    if known.any():
        found |= {"labelled": int(known.sum()), "hits": int((ours == y)[known].sum()), "student_hits": int((theirs == y)[known].sum())}
    return found


def _time(predict: Predict, held: NDArray[Any], batch: int) -> dict[str, float]:
    """Milliseconds of one call at a batch size, the median and the 95th percentile of `n` runs after a warmup."""
    x = np.ascontiguousarray(np.resize(held[:batch], (batch, *held.shape[1:])), dtype=np.float32)
    began, taken = time.perf_counter(), list[float]()
    for _ in range(_WARMUP):
        predict(x)
        if time.perf_counter() - began > _SECONDS / 2:
            break
    began = time.perf_counter()
    while len(taken) < _FEWEST or (len(taken) < _RUNS and time.perf_counter() - began < _SECONDS):
        start = time.perf_counter()
        predict(x)
        taken.append(time.perf_counter() - start)
    p50, p95 = (float(value) for value in np.percentile(np.array(taken) * 1e3, [50, 95]))
    return {"batch": batch, "p50_ms": round(p50, 4), "p95_ms": round(p95, 4), "n": len(taken)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
