"""The laboratory: a real database, a real Redis, real workers, children and APIs as processes, and the ways in which each of them fails.

Every fault is written to faults.jsonl with its time and its target. Every time of the service is some thirty times shorter.
"""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import redis
import sqlalchemy as sa

from db import life
from db.access import Tenant, create_tenant
from db.history import glance
from db.life.job import load
from db.session import Unavailable, connect
from db.tables import job as jobs
from db.workers import living
from migrations.schema import upgrade
from tests.chaos import toy
from tests.chaos.witness import Accepted, Log, Process
from tests.servers import Server, postgres_server, redis_server
from tests.worker.lab import Lab as WorkerLab
from tests.worker.lab import lives, until
from worker.settings import Settings

__all__ = ["PATIENCE", "Accepted", "Lab", "Process", "lives", "open_lab", "until"]

PATIENCE = 60.0
CHILD = (sys.executable, "-I", str(Path(toy.__file__)))
WORKER = (sys.executable, "-m", "worker")
TIMES: Mapping[str, Any] = {
    "lease": 1.5, "renew": 0.4, "wish": 0.1, "reap": 0.3, "reconcile": 0.3, "stale": 0.8, "poll": 0.5, "flush": 0.1, "checkpoint": 0.1,
    "report": 0.01, "silence": 20, "outage": 30, "grace": 2, "cancel_grace": 0.3, "backoff": 0.02, "nice": 0, "threads": 1,
    "max_crashes": 20,
}  # fmt: skip
"""So many crashes are forgiven because the laboratory kills a job where it likes, also before its first checkpoint."""
DONE = frozenset({"succeeded"})


class Lab(WorkerLab):
    """One database, one broker, and all that runs on them. `accepted` are the jobs that the invariants are about."""

    def __init__(self, folder: Path, *, database_url: str, broker_url: str, postgres: Server | None, redis_server: Server | None) -> None:
        self.database_url, self.broker_url = database_url, broker_url
        super().__init__(connect(database_url), database_url=database_url, broker_url=broker_url, folder=folder / "lab")
        self.postgres, self.redis = postgres, redis_server
        self.stranger = create_tenant(self.database, "stranger")
        self.log = Log(folder / "faults.jsonl")
        self.accepted: dict[str, Accepted] = {}
        self.workers: list[Process] = []
        self.started: list[Process] = []
        self._numbers = Counter[str]()

    def settings(self, name: str = "worker", **chosen: Any) -> Settings:
        """The settings of a worker. All share one folder: a new one clears away what a killed one left."""
        return super().settings("worker", **{**TIMES, "child": CHILD, **chosen})

    def accept(
        self, id: str, *, steps: int | None, sha256: str | None = None, ends: frozenset[str] = DONE, tenant: Tenant | None = None,
        key: str | None = None,
    ) -> str:  # fmt: skip
        """Note that the service took a job, and what must become of it; its id."""
        owner = (tenant or self.tenant).id
        self.accepted[id] = Accepted(id=id, tenant=owner, key=key, steps=steps, sha256=sha256, ends=ends)
        return id

    def train(self, *, tenant: Tenant | None = None, ends: frozenset[str] = DONE, **asked: Any) -> str:
        """Submit a job of the toy child straight to the database; its id. What may be asked stands at `toy.run`."""
        seed = asked.setdefault("seed", self.number("seed"))
        inputs = {"task": {"kind": "distil", "toy": asked}, "blobs": {}}
        job = life.submit(
            self.database, tenant or self.tenant, name="toy", spec={}, spec_sha="", inputs=inputs, queue="any", max_queued=1000
        )
        steps = asked.get("steps", toy.STEPS)
        return self.accept(
            job.id, tenant=tenant, ends=ends, steps=steps, sha256=toy.reference(seed, steps) if asked.get("export", True) else None
        )

    def job(self, id: str) -> life.Job:
        """The job as it is, whoever's it is."""
        with self.database.read() as tx:
            return load(tx, id)

    def number(self, kind: str) -> int:
        """1, 2, 3, ... of each kind."""
        self._numbers[kind] += 1
        return self._numbers[kind]

    def runs(self, id: str, *, after: int = 0) -> int:
        """Wait until a job was begun under a fence above `after`; the fence."""

        def fence() -> int | None:
            begun = [attempt.fence for attempt in self.attempts(id)]
            return begun[-1] if begun and begun[-1] > after else None

        return until(fence)

    def pid(self, id: str, *, worker: str = "*") -> int:
        """The living process that works on a job."""

        def marked() -> int | None:
            for file in self.folder.glob(f"worker/jobs/{worker}/{id}.*/pid"):
                with suppress(OSError, ValueError, IndexError):
                    if lives(pid := int(file.read_text().split()[0])):
                        return pid
            return None

        return until(marked)

    def progresses(self, id: str, *, beyond: int = 0) -> int:
        """Wait for a checkpoint of more than so many steps; its steps."""

        def kept() -> int | None:
            checkpoint = self.job(id).checkpoint
            return int(checkpoint["done"]) if checkpoint and checkpoint["done"] > beyond else None

        return until(kept)

    def entered(self, id: str, state: str) -> float:
        """When a job came into a state, by the database's clock."""
        return glance(self.database, self.tenant, id).entered[state]

    def start_worker(self, *, command: Sequence[str] = WORKER, crash: str | None = None, **chosen: Any) -> Process:
        """A worker; with `crash` it dies at that crash point. `chosen` are settings, also URLs that lead through a proxy."""
        plain = crash is None and tuple(command) == WORKER and not chosen
        name = f"worker{self.number('worker')}"
        process = self.start(name, command, self.environment(self.settings(**chosen)), crash=crash, plain=plain)
        self.workers.append(process)
        if not crash:
            until(lambda: any(each.pid == process.popen.pid for each in living(self.database, within=60)) or not process.alive)
            assert process.alive, (self.folder / f"{name}.log").read_text()
        return process

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, crash: str | None = None, plain: bool = False
    ) -> Process:
        """Any process of the service. It ends with this one: a laboratory that is killed leaves none behind."""
        armed = {"RETORT_CRASH": crash} if crash else {}
        surroundings = {**os.environ, **environment, **armed, "RETORT_PARENT": str(os.getpid()), "PYTHONFAULTHANDLER": "1"}
        with (self.folder / f"{name}.log").open("ab") as out:
            popen = subprocess.Popen(command, env=surroundings, stdout=out, stderr=out, start_new_session=True)
        self.started.append(process := Process(name, popen, plain))
        return process

    def have(self, n: int = 1) -> list[Process]:
        """So many healthy workers, started where there are fewer."""
        while len(self.healthy) < n:
            self.start_worker()
        return self.healthy[:n]

    @property
    def healthy(self) -> list[Process]:
        """The workers that live as the service started them."""
        return [each for each in self.workers if each.alive and each.plain and not each.frozen]

    def holder(self, id: str) -> Process:
        """The worker that runs a job."""

        def found() -> Process | None:
            owner = self.job(id).owner
            pids = [each.pid for each in living(self.database, within=60) if each.id == owner]
            return next((each for each in self.workers if each.popen.pid in pids), None)

        return until(found)

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        self.log.write("kill", process.name)
        process.popen.kill()
        process.popen.wait(PATIENCE)

    def kill_child(self, id: str) -> None:
        """SIGKILL of the process that trains; it must be dead afterwards."""
        self.log.write("kill child", id)
        pid = self.pid(id)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not lives(pid))

    def freeze(self, process: Process) -> None:
        """SIGSTOP, but not inside a transaction: SQLite has one writer, and with that one asleep all sleep."""
        self.log.write("freeze", process.name)
        process.frozen = True
        while True:
            process.popen.send_signal(signal.SIGSTOP)
            try:
                with self.database.begin():
                    return
            except Unavailable:
                process.popen.send_signal(signal.SIGCONT)

    def thaw(self, process: Process) -> None:
        """SIGCONT."""
        process.frozen = False
        process.popen.send_signal(signal.SIGCONT)

    def terminate(self, process: Process) -> int:
        """SIGTERM, as a service manager sends it; the exit code."""
        self.log.write("terminate", process.name)
        return self.leave(process.popen)

    def crashed(self, process: Process, name: str) -> None:
        """Wait until a process has died at the crash point it was armed with."""
        code = process.popen.wait(PATIENCE)
        assert code == -signal.SIGKILL, f"{process.name} did not die at {name}: {code}\n{(self.folder / f'{process.name}.log').read_text()}"
        self.log.write("crash", process.name, point=name)

    def flush_redis(self) -> None:
        """Every message is gone."""
        self.log.write("flush", "redis")
        with redis.Redis.from_url(self.broker_url) as client:
            client.flushall()

    def settle(self, *, within: float = PATIENCE, helpers: int = 1) -> None:
        """Let the faults stop, and the service recover until every accepted job is at rest. What is not in time, the invariants say."""
        for each in self.workers:
            if each.alive and each.frozen:
                self.thaw(each)
        self.have(helpers)
        with suppress(AssertionError):
            until(self._at_rest, within=within)

    def _at_rest(self) -> bool:
        with self.database.read() as tx:
            states = dict(tx.execute(sa.select(jobs.c.id, jobs.c.state).where(jobs.c.id.in_(self.accepted))).all())
        return all(states.get(each.id) in each.ends for each in self.accepted.values()) and not self.strays()

    def strays(self) -> list[int]:
        """The living processes that work in this laboratory's job folders."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                where = os.readlink(place / "cwd")
                if where.startswith(str(self.folder / "worker" / "jobs")) and lives(int(place.name)):
                    found.append(int(place.name))
        return found

    def clear(self) -> None:
        """No worker is left; no fault, and not in the log."""
        for each in self.workers:
            self.end(each)
        self.workers = []

    def begin(self, scenario: str) -> None:
        """Forget the jobs of the scenario before, and count faults anew. Its healthy workers stay."""
        self.accepted.clear()
        self.log.scenario, self.log.counts = scenario, Counter()
        for each in self.workers:
            if each.alive and not each.plain:
                self.end(each)
        self.workers = [each for each in self.workers if each.alive]

    def end(self, process: Process) -> None:
        """Away with it; no fault, and not in the log."""
        process.popen.kill()
        process.popen.wait(PATIENCE)

    def close(self) -> None:
        """End every process."""
        for each in self.started:
            self.end(each)
        self.database.close()


Dialect = Literal["sqlite", "postgresql"]


@contextmanager
def open_lab(folder: Path, dialect: Dialect, *, embedded: bool = False) -> Iterator[Lab]:
    """A laboratory with servers of its own. `embedded`: Celery on a folder in place of Redis."""
    with ExitStack() as stack:
        server = None
        if dialect == "postgresql":
            (folder / "postgres").mkdir()
            server = stack.enter_context(postgres_server(folder / "postgres"))
            database_url = server.url
        else:
            database_url = f"sqlite:///{folder / 'retort.db'}"
        (folder / "redis").mkdir()
        broker = None if embedded else stack.enter_context(redis_server(folder / "redis"))
        database = connect(database_url)
        upgrade(database)
        database.close()
        broker_url = broker.url if broker else f"filesystem://{folder / 'broker'}"
        lab = Lab(folder, database_url=database_url, broker_url=broker_url, postgres=server, redis_server=broker)
        stack.callback(lab.close)
        yield lab
