"""What is promised in seconds, by the times of the service as it is shipped: H1 a dead host, H2 a dead child. In the long set only."""

import random
import time

from db import life
from tests.chaos.catalogue import Times, batches, scenario
from tests.chaos.lab import TIMES, Lab
from worker.settings import Settings

SHIPPED = {name: Settings.model_fields[name].default for name in TIMES if name not in ("nice", "threads", "max_crashes")}
HOSTS = 3


@scenario("H1", dialects=("postgresql",))
def a_host_dies(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGKILL of workers while another is there, by the times as they are shipped: their jobs run again."""
    lab.clear()
    for batch in batches(n, HOSTS):
        workers = [lab.start_worker(**SHIPPED) for _ in range(batch)]
        began = {id: lab.runs(id) for id in [lab.train(pause=2.5, ends=frozenset({"cancelled"})) for _ in range(batch)]}
        other = lab.start_worker(slots=HOSTS, **SHIPPED)
        time.sleep(draw.uniform(0, 10))
        killed = time.monotonic()
        for process in workers:
            lab.kill(process)
        waiting = dict(began)
        while waiting:
            for id in [id for id, fence in waiting.items() if lab.job(id).state == "running" and lab.job(id).fence > fence]:
                times.add("a host's death to the next attempt, as shipped", time.monotonic() - killed)
                del waiting[id]
            assert time.monotonic() - killed < 10 * 85, f"{sorted(waiting)} have not been taken up"
            time.sleep(0.1)
        for id in began:
            life.cancel(lab.database, lab.tenant, id)
            lab.reaches(id, "cancelled")
        lab.end(other)


@scenario("H2", dialects=("postgresql",))
def a_child_dies(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGKILL of a training process, by the times as they are shipped."""
    lab.clear()
    lab.start_worker(**SHIPPED)
    for _ in range(n):
        id = lab.train(pause=0.02)
        lab.ring()
        fence = lab.runs(id)
        lab.pid(id)
        time.sleep(draw.uniform(0, 0.3))
        lab.kill_child(id)
        with times.measure("a child's death to the next attempt, as shipped"):
            lab.runs(id, after=fence)
        lab.reaches(id, "succeeded")
