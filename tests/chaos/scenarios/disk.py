"""A disk is full: S1. First the one under the job folders, then the one under the database (SQLite). There is room again after a while.

The small disk is a tmpfs in namespaces of its own, which needs no rights where the system lets users have namespaces.
"""

import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import httpx

from tests.chaos import toy
from tests.chaos.api import Api, api
from tests.chaos.catalogue import Missing, Times, carry_out, scenario
from tests.chaos.lab import WORKER, Lab, open_lab

MIB = 1 << 20
BALLAST = MIB
"""Of a checkpoint, in bytes: a full disk has no room for it."""
_MOUNT = 'mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"'


def on_small_disk(folder: Path, size: int) -> tuple[str, ...]:
    """The beginning of a command that finds an empty disk of `size` bytes at `folder`, where nobody else sees it. `Missing` without one."""
    command = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNT, str(size), str(folder))
    try:
        tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError as absent:
        raise Missing("unshare is missing (Debian's package util-linux): there can be no small disk") from absent
    if tried.returncode:
        raise Missing(f"users have no namespaces here, so there can be no small disk: {tried.stderr.strip()}")
    return command


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """To the last byte, and as it was afterwards."""
    filler = disk / "filler"
    try:
        with filler.open("wb", buffering=0) as out:
            for block in (64 << 10, 4 << 10, 1):
                with suppress(OSError):
                    while out.write(bytes(block)):
                        pass
        yield
    finally:
        filler.unlink()


@scenario("S1")
def the_job_folders_are_full(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """The disk under a worker's job folders is full for some seconds: the job is paused, and goes on alone when there is room."""
    lab.clear()
    folder = lab.folder / "small"
    folder.mkdir(exist_ok=True)
    worker = lab.start_worker(command=(*on_small_disk(folder, 16 * MIB), *WORKER), data=folder)
    disk = Path(f"/proc/{worker.popen.pid}/root{folder}")
    for _ in range(n):
        id = lab.train(pause=0.05, ballast=BALLAST)
        lab.progresses(id)
        lab.log.write("disk full", "job folders")
        with full(disk):
            time.sleep(draw.uniform(1, 3))
            kept = lab.job(id).checkpoint
        assert kept, f"the checkpoint of {id} is gone"
        with times.measure("room on the disk to the end of the job"):
            lab.reaches(id, "succeeded")
        _cost_nothing(lab, id)


@scenario("S1 database", dialects=("sqlite",))
def the_database_is_full(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """The disk under an SQLite database is full for some seconds: a job goes on, and new ones are refused with 507."""
    with tempfile.TemporaryDirectory() as folder:  # a laboratory of its own, all of it where the small disk is seen
        (disk := Path(folder) / "disk").mkdir()
        words = [sys.executable, "-c", f"from {__name__} import main; main()", folder, str(n), str(draw.getrandbits(30))]
        ended = subprocess.run([*on_small_disk(disk, 64 * MIB), *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout)
    for fault, count in outcome["faults"].items():
        for _ in range(count):
            lab.log.write(fault, "database")
    times.seconds.update(outcome["seconds"])
    assert not outcome["violations"], outcome["violations"]


def inside(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """What the scenario above does, inside."""
    disk = Path(lab.database_url.removeprefix("sqlite:///")).resolve().parent
    with api(lab, min_free=0) as door:
        lab.have(1)
        for _ in range(n):
            id = lab.train(pause=0.1, ballast=4 * BALLAST)
            lab.progresses(id)
            lab.log.write("disk full", "database")
            with full(disk):
                time.sleep(draw.uniform(2, 4))  # as long as several checkpoints: the file itself has some room left
                _refused(door)
            with times.measure("room on the disk to the end of the job"):
                lab.reaches(id, "succeeded")
            _cost_nothing(lab, id)
            with times.measure("room on the disk to an accepted submit"):
                assert door.submit(door.body(f"s1-{lab.number('key')}")), "the API did not answer"
    with closing(sqlite3.connect(disk / "retort.db")) as file:
        (sound,) = file.execute("PRAGMA integrity_check").fetchone()
    assert sound == "ok", sound


def _cost_nothing(lab: Lab, id: str) -> None:
    """The job met the full disk, and it counts neither as an attempt nor as a crash."""
    met = [*lab.events(id, "checkpoint_failed"), *(each for each in lab.events(id, "status") if each.data.get("code") == "storage_full")]
    assert met, f"the job {id} did not meet the full disk"
    job = lab.job(id)
    assert (job.attempt, job.crashes) == (1, 0), f"the full disk cost {id} an attempt: {job.attempt}, {job.crashes}"


def _refused(door: Api) -> None:
    """Submit until there is no room left within the database's own file either: the refusal says so. What was accepted before, counts."""
    while True:
        body = door.body(f"s1-{door.lab.number('key')}")
        answer = door.http.post("/v1/jobs", json=body)
        if answer.status_code != httpx.codes.CREATED:
            break
        door.lab.accept(answer.json()["id"], steps=toy.STEPS, sha256=toy.reference(body["seed"], toy.STEPS))
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["retryable"]) == (507, "storage_full", True), problem


def main() -> None:
    """Inside: a laboratory whose database is on the small disk. Its outcome is the output."""
    folder, n, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    (folder / "retort.db").symlink_to(folder / "disk" / "retort.db")
    scenario("inside")(inside)
    with open_lab(folder, "sqlite") as lab:
        outcome = carry_out(lab, "inside", n=n, seed=seed)
    sys.stdout.write(json.dumps(asdict(outcome)))
