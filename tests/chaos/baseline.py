"""The comparison: a plain Celery service with late acknowledgement under the laboratory's faults. What of its work is lost, or done twice?

    python -m tests.chaos.baseline --n 20 --out FILE

For each fault `n` times: some jobs are published, and while one of them is worked on the fault strikes. Once the faults are over it waits
until the broker holds nothing and nobody works any more; what is not completed then never will be.
"""

import argparse
import json
import math
import os
import platform
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from statistics import median
from subprocess import Popen
from typing import Any

import kombu.exceptions
import redis

from tests.chaos.plain import SCHEMA, application, connect
from tests.chaos.toy import reference
from tests.servers import Server, redis_server

WORKERS = 2
JOBS, QUEUED = 3, 20
"""Published for each fault; where it is the queue that suffers, more than two workers fetch ahead."""
STEPS, PAUSE = 60, 0.01
VISIBILITY = 4.0
"""The visibility timeout in seconds: several times as long as a job, as its documentation asks for."""
FREEZE = VISIBILITY + 2
AWAY = 1.0
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
        environment = {**os.environ, "PLAIN": json.dumps(self._asked), "PLAIN_TABLE": str(self.folder / "table.db"), "OMP_NUM_THREADS": "1"}
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
        return [pid for (pid,) in rows if _parent(pid) in {worker.pid for worker in self.workers}]

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


Strike = Callable[[Service, random.Random, Outcome], bool]


@dataclass(frozen=True, slots=True)
class Fault:
    """How it strikes, which says whether it hit anything, and the work that it strikes at."""

    strike: Strike
    jobs: int = JOBS
    steps: int = STEPS


def nothing(_service: Service, _draws: random.Random, _outcome: Outcome) -> bool:
    """The control: without a fault everything is completed once."""
    return False


def kill_worker(service: Service, draws: random.Random, _outcome: Outcome) -> bool:
    """SIGKILL of a worker whose pool is at work; another takes its place."""
    parents = [_parent(pid) for pid in service.working()]
    victims = [i for i, worker in enumerate(service.workers) if worker.pid in parents]
    if victims:
        service.restart(draws.choice(victims))
    return bool(victims)


def kill_child(service: Service, draws: random.Random, _outcome: Outcome) -> bool:
    """SIGKILL of the process of a pool that works, as the system does when memory is short."""
    working = service.working()
    if working:
        os.kill(draws.choice(working), SIGKILL)
    return bool(working)


def freeze_worker(service: Service, draws: random.Random, _outcome: Outcome) -> bool:
    """A worker and its pool stand still for longer than the visibility timeout, and go on."""
    worker = draws.choice(service.workers)
    os.killpg(worker.pid, SIGSTOP)
    time.sleep(FREEZE)
    os.killpg(worker.pid, SIGCONT)
    return True


def flush(service: Service, _draws: random.Random, _outcome: Outcome) -> bool:
    """The broker forgets everything."""
    with redis.Redis.from_url(service.broker.url) as client:
        client.flushall()
    return True


def restart_broker(service: Service, _draws: random.Random, _outcome: Outcome) -> bool:
    """SIGKILL of the broker, and an empty one in its place after a second."""
    service.broker.kill()
    time.sleep(AWAY)
    service.broker.start()
    return True


def freeze_broker(service: Service, draws: random.Random, outcome: Outcome) -> bool:
    """The broker stands still for some seconds, and a job is published meanwhile."""
    service.broker.freeze()
    thaw = threading.Timer(FREEZE, service.broker.thaw)
    thaw.start()
    service.publish(draws.getrandbits(30), outcome)
    thaw.join()
    return True


FAULTS: Mapping[str, Fault] = {
    "none": Fault(nothing),
    "long job": Fault(nothing, jobs=1, steps=int(1.5 * VISIBILITY / PAUSE)),
    "kill worker": Fault(kill_worker),
    "kill child": Fault(kill_child),
    "freeze worker": Fault(freeze_worker),
    "flush": Fault(flush, jobs=QUEUED),
    "restart broker": Fault(restart_broker, jobs=QUEUED),
    "freeze broker": Fault(freeze_broker),
}
"""`long job` is no fault at all: its jobs last longer than the visibility timeout."""


def suffer(name: str, n: int, *, seed: int, reject: bool) -> Outcome:
    """One fault n times, on a service of its own."""
    fault, outcome, draws = FAULTS[name], Outcome(name, reject), random.Random(f"{name} {seed}")
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server(Path(folder)) as broker,
        closing(Service(Path(folder), broker, reject=reject)) as service,
    ):
        for _ in range(n):
            for _ in range(fault.jobs):
                service.publish(draws.getrandbits(30), outcome, steps=fault.steps)
            _wait(service.working)
            time.sleep(draws.uniform(0, 0.8 * STEPS * PAUSE))
            outcome.faults += fault.strike(service, draws, outcome)
        outcome.at_rest = service.settle()
        service.count(outcome, fault.steps)
    return outcome


def _wait(holds: Callable[[], object]) -> None:
    """A while for it: a worker that starts takes seconds, and one that a fault made deaf is part of what is measured."""
    deadline = time.monotonic() + PATIENCE
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _summary(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "n": len(ordered),
        "median": round(median(ordered), 4),
        "p99": round(ordered[math.ceil(0.99 * len(ordered)) - 1], 4),
        "max": round(ordered[-1], 4),
    }


def main() -> None:
    """Every fault, with and without `task_reject_on_worker_lost`, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2, help="how often each fault strikes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only this one; may be given again")
    parser.add_argument("--out", type=Path, help="where the JSON goes; without it to standard output")
    asked = parser.parse_args()
    outcomes = []
    for reject in (False, True):
        for name in asked.fault or FAULTS:
            outcomes.append(suffer(name, asked.n, seed=asked.seed, reject=reject))
            sys.stderr.write(f"{name}: {asdict(outcomes[-1]) | {'publish_seconds': _summary(outcomes[-1].publish_seconds)}}\n")
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total.update({name: getattr(outcome, name) for name in ("faults", "accepted", "lost", "completed_twice", "wrong")})
    report = {
        "n": asked.n, "seed": asked.seed, "visibility_timeout": VISIBILITY, "job_seconds": STEPS * PAUSE, "total": total,
        "versions": {name: version(name) for name in ("celery", "kombu", "redis")} | {"python": platform.python_version()},
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
        "faults": [asdict(outcome) | {"publish_seconds": _summary(outcome.publish_seconds)} for outcome in outcomes],
    }  # fmt: skip
    text = json.dumps(report, indent=1) + "\n"
    if asked.out:
        asked.out.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
