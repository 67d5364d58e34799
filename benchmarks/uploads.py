"""How fast a file goes up and down beside the slowest of the parts of its way measured alone, on each store; and one cut twenty times.

`python -m benchmarks.uploads [--mebibytes 512] [--rounds 5] [--stores sqlite,postgresql,directory] [--cut 5000] [--out FILE]`. In each
round everything is measured once, in turns: the upload over HTTP with its digest; such a server that reads the body and drops it; sha256;
the store writing the same batches; the download; the store reading. The client is a bare socket that is fed by the kernel. `--cut` is the
megabytes of the file that is cut twenty times, one of them by SIGKILL of the API; 0 leaves it out.
"""

import argparse
import hashlib
import json
import mmap
import os
import random
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.processes import forget_peak, resident
from benchmarks.site import Site, answer, begin, process, site
from db import life, uploads
from db.blobs import BATCH, Blobs
from tests.servers import free_port

MEBIBYTE = 1 << 20
CUTS = 20
UP, DOWN = 0.70, 0.60
"""The targets: the share of the slowest part alone."""
_DROP = """
import sys, uvicorn
async def app(scope, receive, send):
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="error", lifespan="off")
"""


def main() -> None:
    """Measure everything, print it, and write it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stores", default="sqlite,postgresql,directory")
    parser.add_argument("--cut", type=int, default=5000, help="megabytes of the file that is cut")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine.describe(), "mebibytes": options.mebibytes, "targets": {"up": UP, "down": DOWN}}
    with tempfile.TemporaryDirectory(prefix="retort-bench-") as name:
        for store in options.stores.split(","):
            with site(store, Path(name) / store) as place:
                report[store] = rates(place, Path(name), options.mebibytes * MEBIBYTE, options.rounds)
            print(json.dumps({store: report[store]}, indent=2), flush=True)
        if options.cut:
            with site("directory", Path(name) / "cut") as place:
                report["cut"] = cut(place, Path(name), options.cut * 1_000_000)
    text = json.dumps(report, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def rates(place: Site, folder: Path, size: int, rounds: int) -> dict[str, Any]:
    """Mebibytes a second of the whole ways and of their parts, and the shares, round by round; the first round only warms up."""
    big = _random_file(folder / "big", size)
    digest = hashlib.file_digest(big.open("rb"), "sha256").hexdigest()
    drop = free_port()
    found: dict[str, list[float]] = {}
    with place.api() as api, process([sys.executable, "-c", _DROP, str(drop)], drop, folder / "drop.log"), big.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ))
        _warm(place)
        forget_peak(api.pid)
        before, _ = resident(api.pid)
        for number in range(rounds + 1):
            ways: dict[str, Callable[[], object]] = {
                "upload": lambda: _upload(place, big, size, digest),
                "receive": lambda: _put(drop, "/", "", big, size),
                "sha256": lambda: hashlib.sha256(data).digest(),
                "write": lambda: _write(place, data, digest),
            }
            for name, way in ways.items():
                place.forget()
                took = _seconds(way)
                if number:
                    found.setdefault(name, []).append(size / MEBIBYTE / took)
        artifact = _artifact(place, data, digest)
        for number in range(rounds + 1):
            for name, way in {"download": lambda: _get(place, artifact, size), "read": lambda: _read(place, digest)}.items():
                took = _seconds(way)
                if number:
                    found.setdefault(name, []).append(size / MEBIBYTE / took)
        _, peak = resident(api.pid)
    parts = [min(each) for each in zip(found["receive"], found["sha256"], found["write"], strict=True)]
    return {
        "n": rounds,
        "mebibytes_per_s": {name: statistics.median(each) for name, each in found.items()},
        "upload_share": _shares(found["upload"], parts),
        "download_share": _shares(found["download"], found["read"]),
        "extra_mebibytes": (peak - before) / MEBIBYTE,
    }


def cut(place: Site, folder: Path, size: int) -> dict[str, Any]:
    """A file whose sender hangs up at random places, and whose service is killed once, until it is there; then it is read back."""
    big, draw = _random_file(folder / "cut.bin", size), random.Random(0)
    digest = hashlib.file_digest(big.open("rb"), "sha256").hexdigest()
    stops = sorted(draw.randrange(1, size) for _ in range(CUTS))
    killed = stops[CUTS // 2]
    extra, began = 0.0, time.monotonic()
    id, offset = "", 0
    for group in (stops[: CUTS // 2 + 1], [*stops[CUTS // 2 + 1 :], size]):
        with place.api() as api, place.client() as client:
            id = id or place.declare(size, digest)
            client.get("/readyz")
            _warm(place)
            forget_peak(api.pid)
            before, _ = resident(api.pid)
            for stop in group:
                offset = int(client.head(f"/v1/uploads/{id}/content").headers["Upload-Offset"])
                with begin(place, id, offset, size) as line, big.open("rb") as file:
                    line.sendfile(file, offset, max(0, stop - offset))
                    if stop == size:
                        answer(line)
                    elif stop == killed:
                        api.send_signal(signal.SIGKILL)
                if stop != killed:
                    extra = max(extra, (resident(api.pid)[1] - before) / MEBIBYTE)
    hasher = hashlib.sha256()
    for chunk in Blobs(place.database, place.tenant).get(digest):
        hasher.update(chunk)
    return {
        "bytes": size, "cuts": CUTS, "of_them_sigkill": 1, "is_identical": hasher.hexdigest() == digest,
        "extra_mebibytes": extra, "seconds": time.monotonic() - began,
    }  # fmt: skip


def _random_file(path: Path, size: int) -> Path:
    if not path.exists():
        with path.open("wb") as file:
            for start in range(0, size, MEBIBYTE):
                file.write(os.urandom(min(MEBIBYTE, size - start)))
    return path


def _upload(place: Site, big: Path, size: int, digest: str) -> None:
    id = place.declare(size, digest)
    with begin(place, id, 0, size) as line, big.open("rb") as file:
        line.sendfile(file, 0, size)
        answer(line)


def _put(port: int, path: str, headers: str, big: Path, size: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as line, big.open("rb") as file:
        line.sendall(f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n{headers}\r\n".encode())
        line.sendfile(file, 0, size)
        answer(line)


def _warm(place: Site) -> None:
    """A small upload: what the service needs once is no part of what a file needs."""
    data = os.urandom(1000)
    id = place.declare(len(data), hashlib.sha256(data).hexdigest())
    with begin(place, id, 0, len(data)) as line:
        line.sendall(data)
        answer(line)


def _write(place: Site, data: memoryview, digest: str) -> None:
    id = place.declare(len(data), digest)
    writer = uploads.write(place.database, place.tenant, id, offset=0)
    for start in range(0, len(data), BATCH):
        writer.append(data[start : start + BATCH])
    writer.release()


def _artifact(place: Site, data: memoryview, digest: str) -> str:
    """The id of an artifact with these bytes, on this store, made as a worker would."""
    database, tenant = place.database, place.tenant
    Blobs(database, tenant, large=True).put([data])  # type: ignore[list-item]
    job = life.submit(database, tenant, name="b", spec={}, spec_sha="0" * 64, inputs={"task": {}, "blobs": {}}, queue="gpu", max_queued=9)
    claim = life.claim(database, worker="bench", queues=["gpu"], lease=600)
    assert claim is not None
    made = life.NewArtifact(name="big.bin", format="raw", sha256=digest, bytes=len(data), facts={})
    assert life.complete(database, claim, result={}, artifacts=[made])
    with place.client() as client:
        return str(client.get(f"/v1/jobs/{job.id}/artifacts").json()["data"][0]["id"])


def _get(place: Site, artifact: str, size: int) -> None:
    with socket.create_connection(("127.0.0.1", place.port)) as line:
        line.sendall(f"GET /v1/artifacts/{artifact}/content HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {place.key}\r\n\r\n".encode())
        head = answer(line)
        came, buffer = len(head.partition(b"\r\n\r\n")[2]), bytearray(MEBIBYTE)
        while came < size:
            came += line.recv_into(buffer) or size


def _read(place: Site, digest: str) -> None:
    for _ in Blobs(place.database, place.tenant).get(digest):
        pass


def _seconds(way: Callable[[], object]) -> float:
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin


def _shares(whole: list[float], part: list[float]) -> dict[str, float]:
    shares = [one / other for one, other in zip(whole, part, strict=True)]
    return {"median": statistics.median(shares), "min": min(shares), "max": max(shares)}


if __name__ == "__main__":
    main()
