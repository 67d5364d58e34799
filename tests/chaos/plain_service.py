"""The plain service as a whole: Redis, its workers as processes, the table, and the account of what became of its jobs."""

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from subprocess import Popen
from typing import Any

import kombu.exceptions
import redis

from tests.chaos.plain import SCHEMA, application, connect
from tests.chaos.toy import reference
from tests.servers import Server

WORKERS = 2
STEPS, PAUSE = 60, 0.01
"""Of a job, unless it is a long one."""
VISIBILITY = 4.0
"""The visibility timeout in seconds: several times as long as a job, as its documentation asks for."""
QUIET = 3.0
PATIENCE = 10 * VISIBILITY
"""Without one more job completed."""


@dataclass
class Outcome:
    """Of one fault: how often it struck, what was accepted, and what became of that."""

    fault: str
    reject_on_worker_lost: bool
    faults: int = 0
    accepted: int = 0
    refused: int = 0
    at_rest: bool = True
    """Whether nothing was left to do in the end; else what is not completed is not lost either."""
    lost: int = 0
    completed_twice: int = 0
    wrong: int = 0
    publish_seconds: list[float] = field(default_factory=list)


class Service:
    """Redis, two workers of a pool of two, and a table."""

    def __init__(self, folder: Path, broker: Server, *, reject: bool) -> None:
        self.broker = broker
        self.folder = folder
        self.seeds: dict[str, int] = {}
        self._asked: dict[str, Any] = {"broker_url": broker.url, "visibility": VISIBILITY, "reject": reject}
        self._app = application(**self._asked)
        self.table = connect(folder / "table.db")
        self.table.executescript(f"PRAGMA journal_mode=WAL; {SCHEMA}")
        self.workers = [self._worker() for _ in range(WORKERS)]

    def _worker(self) -> Popen[bytes]:
        environment = {
            **os.environ,
            "PLAIN": json.dumps(self._asked),
            "PLAIN_TABLE": str(self.folder / "table.db"),
            "PLAIN_PARENT": str(os.getpid()),
        }
        command = [sys.executable, "-m", "celery", "-A", "tests.chaos.plain", "worker", "--concurrency", "2", "--loglevel", "WARNING"]
        with (self.folder / "workers.log").open("ab") as log:
            return Popen(
                [*command, "--hostname", f"{time.monotonic_ns()}@plain"], env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def restart(self, i: int) -> None:
        """As a service manager does where a worker is gone."""
        os.killpg(self.workers[i].pid, SIGKILL)
        self.workers[i].wait()
        self.workers[i] = self._worker()

    def publish(self, seed: int, outcome: Outcome, *, steps: int = STEPS) -> None:
        """One job, accepted if publishing it raises nothing."""
        job = f"{outcome.fault}-{seed}"
        begun = time.monotonic()
        try:
            self._app.send_task("plain.work", args=[job, seed, steps, PAUSE])
        except kombu.exceptions.OperationalError:
            outcome.refused += 1
        else:
            outcome.accepted += 1
            self.seeds[job] = seed
        outcome.publish_seconds.append(time.monotonic() - begun)

    def working(self) -> list[int]:
        """The processes that have started a job which nobody has completed."""
        rows = self.table.execute("SELECT pid FROM started WHERE job NOT IN (SELECT job FROM completed)")
        return [pid for (pid,) in rows if parent(pid) in {worker.pid for worker in self.workers}]

    def settle(self) -> bool:
        """Wait until nothing can come any more: the broker holds no message, also none that is delivered, and nobody completes anything.

        False where that is never so: with redeliveries of what is still worked on there is always more to do.
        """
        progressed = changed = time.monotonic()
        done = count = -1
        while time.monotonic() - progressed < PATIENCE:
            with redis.Redis.from_url(self.broker.url) as client:
                held = client.llen("celery") + client.hlen("unacked")
            jobs, completions = self.table.execute("SELECT count(DISTINCT job), count(*) FROM completed").fetchone()
            now = time.monotonic()
            if jobs != done:
                done, progressed = jobs, now
            if held or completions != count:
                count, changed = completions, now
            if now - changed > QUIET:
                return True
            time.sleep(0.1)
        return False

    def count(self, outcome: Outcome, steps: int) -> None:
        """What became of everything that was accepted."""
        digests: dict[str, list[str]] = {job: [] for job in self.seeds}
        for job, digest in self.table.execute("SELECT job, digest FROM completed"):
            if job in digests:  # a publication that failed for its sender may have arrived
                digests[job].append(digest)
        outcome.lost = sum(not found for found in digests.values()) if outcome.at_rest else 0
        outcome.completed_twice = sum(len(found) > 1 for found in digests.values())
        outcome.wrong = sum(any(one != reference(self.seeds[job], steps) for one in found) for job, found in digests.items())

    def close(self) -> None:
        """End everything."""
        for worker in self.workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, SIGKILL)
            worker.wait()
        self.table.close()
        self._app.close()


def parent(pid: int) -> int | None:
    """Of a process; None where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
