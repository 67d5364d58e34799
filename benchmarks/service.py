"""The service's figures on one machine: polling while a job trains, from a wake to its claim, and memory while a gibibyte goes up and down.

`python -m benchmarks.service [--seconds 60] [--wakes 20] [--gibibytes 1] [--out FILE]`. The same clients poll a service with nothing to do
and one that trains on all cores, in one run; the ratio of the two travels better than either.
"""

import argparse
import hashlib
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import machine
from benchmarks.processes import Service, forget_peak, resident, service
from db import access, blobs, life, session
from retort import Client
from retort.job import Job

CLIENTS = 16
MEBIBYTE = 1 << 20


def main() -> None:
    """Measure everything, print it, and write it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the clients poll, each of the two times")
    parser.add_argument("--wakes", type=int, default=20)
    parser.add_argument("--gibibytes", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="retort-bench-") as name:
        folder = Path(name)
        with service(folder / "service", threads=os.cpu_count() or 1) as running:
            report = {
                "machine": machine.describe(),
                "wake": wakes(running, folder, options.wakes),
                "poll": polling(running, folder, options.seconds),
                "transfer": transfers(running, folder, int(options.gibibytes * 1024) * MEBIBYTE),
            }
    text = json.dumps(report, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def wakes(running: Service, folder: Path, n: int) -> dict[str, Any]:
    """Seconds from the commit of a job to its claim by an idle worker, both by the database's clock."""
    with running.client() as client:
        spec = _spec(client, folder, images=64, size=8, architecture={"family": "mlp", "hidden": [4]}, epochs=1)
        waits = []
        for seed in range(n):
            job = client.jobs.create(spec | {"seed": seed}).wait(interval=0.2, timeout=120)
            created, started = (datetime.fromisoformat(job.raw[name]).timestamp() for name in ("created_at", "started_at"))
            waits.append(started - created)
            time.sleep(random.uniform(0.0, 0.5))
    return {"n": n, "median_s": statistics.median(waits), "max_s": max(waits)}


def polling(running: Service, folder: Path, seconds: float) -> dict[str, Any]:
    """Milliseconds of `GET /v1/jobs/{id}` for 16 clients, each once a second at random moments: idle, then beside a job on all cores."""
    with running.client() as client:
        spec = _spec(client, folder, images=4096, size=32, architecture={"family": "wrn", "depth": 16, "widen": 2}, epochs=10_000)
        idle_job = next(iter(client.jobs.list(limit=1)))
        idle = _poll(running, idle_job.id, seconds)
        job = client.jobs.create(spec)
        _until_training(job)
        try:
            training = _poll(running, job.id, seconds)
        finally:
            job.cancel().wait(timeout=60)
    return {"clients": CLIENTS, "idle": idle, "training": training, "p99_ratio": training["p99_ms"] / idle["p99_ms"]}


def _until_training(job: Job) -> None:
    while not job.refresh().progress.get("step"):
        time.sleep(0.5)


def _poll(running: Service, job: str, seconds: float) -> dict[str, Any]:
    waits: list[float] = []

    def one(seed: int) -> None:
        draw = random.Random(seed)
        with httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {running.key}"}, trust_env=False) as http:
            http.get("/livez")
            begin = time.monotonic()
            for second in range(int(seconds)):
                time.sleep(max(0.0, begin + second + draw.random() - time.monotonic()))
                sent = time.perf_counter()
                http.get(f"/v1/jobs/{job}").raise_for_status()
                waits.append((time.perf_counter() - sent) * 1000)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cuts = statistics.quantiles(waits, n=100)
    return {"n": len(waits), "p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(waits)}


def transfers(running: Service, folder: Path, size: int) -> dict[str, Any]:
    """Extra resident memory of the API while one file of `size` bytes goes up and one comes down, and the rates of both."""
    process = running.part("api")
    big = folder / "big"
    with big.open("wb") as file:
        for _ in range(size // MEBIBYTE):
            file.write(os.urandom(MEBIBYTE))
    with running.client() as client:
        forget_peak(process)
        before, _ = resident(process)
        begin = time.monotonic()
        client.upload(big, purpose="dataset")
        up = time.monotonic() - begin
        _, peak_up = resident(process)
        job = _finished_job_with(running, big)
        artifact = client.jobs.get(job).artifacts()[0]
        forget_peak(process)
        before_down, _ = resident(process)
        begin = time.monotonic()
        client.artifacts.download(artifact, folder / "down")
        down = time.monotonic() - begin
        _, peak_down = resident(process)
    mebibytes = size / MEBIBYTE
    return {
        "mebibytes": mebibytes,
        "upload": {"extra_mebibytes": (peak_up - before) / MEBIBYTE, "mebibytes_per_s": mebibytes / up},
        "download": {"extra_mebibytes": (peak_down - before_down) / MEBIBYTE, "mebibytes_per_s": mebibytes / down},
    }


def _finished_job_with(running: Service, path: Path) -> str:
    """A job that ended with this file as its artifact, written as a worker would: no training makes a gibibyte in a minute."""
    db = session.connect(f"sqlite:///{running.folder / 'retort.db'}")
    tenant = access.authenticate(db, running.key)
    assert tenant is not None
    hasher = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(MEBIBYTE):
                hasher.update(chunk)
                yield chunk

    blobs.Blobs(db, tenant).put(chunks())
    job = life.submit(db, tenant, name="big", spec={}, spec_sha="0" * 64, inputs={"task": {}, "blobs": {}}, queue="gpu", max_queued=1000)
    claim = life.claim(db, worker="bench", queues=["gpu"], lease=600)
    assert claim is not None
    assert claim.job.id == job.id
    made = life.NewArtifact(name="big.bin", format="raw", sha256=hasher.hexdigest(), bytes=path.stat().st_size, facts={})
    assert life.complete(db, claim, result={}, artifacts=[made])
    db.close()
    return job.id


def _spec(client: Client, folder: Path, *, images: int, size: int, architecture: dict[str, Any], epochs: int) -> dict[str, Any]:
    """A job on random pictures: only its time matters here."""
    draw = np.random.default_rng(0)
    channels = 3 if size == 32 else 1
    arrays: dict[str, Any] = {}
    for split, n in (("train", images), ("test", 64)):
        arrays[f"x_{split}"] = draw.integers(0, 256, (n, size, size, channels), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(n, dtype=np.int64) % 4
    file = folder / f"random-{size}.npz"
    np.savez(file, **arrays)
    upload = client.upload(file, purpose="dataset")
    dataset = client.wait_ready(client.datasets.create(f"random-{size}", upload=upload.id, format="npz", layout="NHWC"))
    described = architecture | {"input": [channels, size, size], "classes": 4}
    student = client.wait_ready(client.architectures.create(f"student-{size}", architecture=described))
    return {
        "name": f"bench-{size}",
        "student": {"architecture": student.id},
        "dataset": {"id": dataset.id, "validation": 0},
        "methods": [],
        "recipe": {"epochs": epochs, "batch_size": 64, "optimizer": {"name": "sgd", "lr": 0.01}},
    }


if __name__ == "__main__":
    main()
