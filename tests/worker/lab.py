"""A place to try the worker in: jobs for the toy child, real worker processes with every time some thirty times shorter, and patience."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import sql

import db.jobs
from core.blobs import Directory
from db import life, wake
from db.access import create_tenant
from db.blobs import Blobs
from db.history import Event, events
from db.session import Database
from db.workers import living
from worker.child import Spawner
from worker.home import Home
from worker.settings import Settings
from worker.supervise import Means, supervise

T = TypeVar("T")

PATIENCE = 60.0
TOY = (sys.executable, "-I", str(Path(__file__).with_name("toychild.py")))
TIMES: Mapping[str, Any] = {
    "lease": 3, "renew": 0.3, "wish": 0.1, "reap": 0.3, "reconcile": 0.3, "stale": 1, "poll": 0.5, "flush": 0.1, "checkpoint": 0.1,
    "report": 0.01, "silence": 20, "outage": 20, "grace": 2, "cancel_grace": 0.5, "backoff": 0.02, "storage_pause": 0.4, "min_free": 0,
    "nice": 0, "threads": 1, "calibrate": False,
}  # fmt: skip


def until(what: Callable[[], T | None], *, within: float = PATIENCE) -> T:
    """The first answer that is true; an AssertionError when patience is at its end."""
    deadline = time.monotonic() + within
    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return answer


def lives(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Lab:
    """One database, one broker, one tenant."""

    def __init__(self, database: Database, *, database_url: str, broker_url: str, folder: Path) -> None:
        self.database = database
        self.folder = folder
        folder.mkdir()
        self.tenant = create_tenant(database, "lab")
        self.blobs = Blobs(database, self.tenant)
        self._urls = {"database_url": database_url, "broker_url": broker_url}

    def submit(self, *, blobs: Mapping[str, str] | None = None, seconds_limit: float | None = None, **toy: Any) -> str:
        """A job for the toy child."""
        inputs = {"task": {"kind": "distil", "toy": toy}, "blobs": dict(blobs or {})}
        submitted = life.submit(
            self.database, self.tenant, name="toy", spec={}, spec_sha="", inputs=inputs, queue="any", seconds_limit=seconds_limit,
            max_queued=99,
        )  # fmt: skip
        return submitted.id

    def job(self, id: str) -> life.Job:
        """The job as it is."""
        found = db.jobs.get_job(self.database, self.tenant, id)
        assert found is not None
        return found

    def reaches(self, id: str, *states: str) -> life.Job:
        """Wait for one of these states."""

        def there() -> life.Job | None:
            return job if (job := self.job(id)).state in states else None

        return until(there)

    def events(self, id: str, kind: str) -> list[Event]:
        """All that happened of one kind."""
        return events(self.database, self.tenant, id, kinds=[kind], limit=10_000)

    def attempts(self, id: str) -> list[db.jobs.Attempt]:
        """Every run of the child."""
        return db.jobs.attempts(self.database, self.tenant, id)

    def steps(self, id: str) -> list[int]:
        """The steps of the curve as a reader sees them, without those that a lost worker told in vain."""
        return sorted({done for event in self.events(id, "metrics") for done in event.data["columns"]["done"]})

    def pid(self, id: str, *, worker: str = "*") -> int:
        """The process that works on a job now."""

        def marked() -> int | None:
            found = list(self.folder.glob(f"*/jobs/{worker}/{id}.*/pid"))
            text = found[0].read_text() if found else ""
            return int(text.split()[0]) if text else None

        return until(marked)

    def settings(self, name: str = "worker", **chosen: Any) -> Settings:
        """The settings of one worker, which keeps its files under `name`."""
        return Settings(**{**TIMES, **self._urls, "data": self.folder / name, "child": TOY, **chosen})

    def environment(self, settings: Settings) -> dict[str, str]:
        """The same settings as a process is given them."""
        asked = json.loads(settings.model_dump_json(exclude_none=True, exclude={"queues", "child"}))
        named = {f"RETORT_{key.upper()}": str(value) for key, value in asked.items()}
        return {**os.environ, **named, "RETORT_QUEUES": ",".join(settings.queues), "RETORT_CHILD": json.dumps(settings.child)}

    def leave(self, process: subprocess.Popen[bytes]) -> int:
        """End a worker as a service manager does; its exit code."""
        process.terminate()
        return process.wait(PATIENCE)

    @contextmanager
    def worker(self, name: str = "worker", *, ready: bool = True, **chosen: Any) -> Iterator[subprocess.Popen[bytes]]:
        """`python -m worker`, from when it has told that it lives; killed in the end, if it is still there."""
        # It dies with this process: a test run that is killed leaves no worker behind.
        environment = {**self.environment(self.settings(name, **chosen)), "RETORT_PARENT": str(os.getpid())}
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen([sys.executable, "-m", "worker"], env=environment, stdout=out, stderr=out, start_new_session=True)
        try:
            if ready:
                until(lambda: any(each.pid == process.pid for each in living(self.database, within=60)) or process.poll() is not None)
                assert process.poll() is None, log.read_text()
            yield process
        finally:
            process.kill()
            process.wait()

    def ring(self) -> None:
        """Say that there is something to claim."""
        wake.ring(wake.doorbell(self._urls["broker_url"]), ["cpu"])

    @contextmanager
    def means(self, name: str = "here", **chosen: Any) -> Iterator[Means]:
        """What a supervisor in this process works with."""
        settings = self.settings(name, **chosen)
        home = Home(settings.data / "jobs", "wrk_here")
        cache = Directory(settings.data / "cache")
        yield Means(settings, self.database, _spawner(), home, cache, threading.Event())
        assert sorted(path.name for path in home.path.iterdir()) == ["lock"], "a job folder was left behind"
        home.close()

    def work(self, id: str, means: Means) -> life.Job:
        """One attempt at a job, in this process, and the job after it."""
        self.attempt(id, means)
        return self.job(id)

    def attempt(self, id: str, means: Means) -> None:
        """One attempt at a job, in this process."""
        claim = until(lambda: life.claim(self.database, worker="wrk_here", queues=["cpu"], lease=means.settings.lease))
        assert claim.job.id == id
        supervise(means, claim, slot=0)


@contextmanager
def unreachable(url: str) -> Iterator[None]:
    """The server lets nobody into this database, and throws out who is in it."""
    server, _, name = url.rpartition("/")
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as operator:
        operator.execute(allow.format(sql.Identifier(name), sql.Literal(False)))
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            operator.execute(allow.format(sql.Identifier(name), sql.Literal(True)))


_SPAWNERS: list[Spawner] = []


def _spawner() -> Spawner:
    """One for all tests: its thread ends with the process, as it must."""
    if not _SPAWNERS:
        _SPAWNERS.append(Spawner())
    return _SPAWNERS[0]
