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
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from statistics import median

import redis

from tests.chaos.plain_service import PATIENCE, PAUSE, STEPS, VISIBILITY, Outcome, Service, parent
from tests.servers import redis_server

JOBS, QUEUED = 3, 20
"""Published for each fault; where it is the queue that suffers, more than two workers fetch ahead."""
FREEZE = VISIBILITY + 2
AWAY = 1.0


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
    parents = [parent(pid) for pid in service.working()]
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
