"""The broker dies, forgets, stands still, or cannot be reached: B1 to B5. A message is a doorbell, so each is a matter of time only."""

import random
import time
from dataclasses import replace

from tests.chaos.api import Api, api
from tests.chaos.catalogue import Times, scenario
from tests.chaos.lab import Lab
from tests.chaos.proxy import Mode, proxied
from tests.servers import free_port

QUEUED = 20
BROKEN: tuple[tuple[Mode, float], ...] = (("blackhole", 0), ("reset", 0), ("limit", 200), ("down", 0), ("drop replies", 0))


@scenario("B1", dialects=("postgresql",))
def redis_comes_back_empty(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGKILL of Redis and an empty one in its place, while jobs are submitted over HTTP."""
    assert lab.redis
    with api(lab) as door:
        lab.have(2)
        for _ in range(n):
            ids = [_submit(door, times, "a submit before Redis is killed")]
            time.sleep(draw.uniform(0, 0.3))
            lab.log.write("restart", "redis")
            lab.redis.kill()
            ids.append(_submit(door, times, "a submit without Redis"))
            time.sleep(draw.uniform(0, 0.5))
            lab.redis.start()
            ids.append(_submit(door, times, "a submit to an empty Redis"))
            for id in ids:
                lab.reaches(id, "succeeded")


@scenario("B2", dialects=("postgresql",))
def redis_forgets(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """FLUSHALL while twenty jobs wait and have been rung for."""
    lab.have(2)
    for _ in range(n):
        ids = [lab.train(steps=20) for _ in range(QUEUED)]
        for _ in ids[: draw.randint(1, QUEUED)]:  # idle workers take rings as they come: a flush soon after finds some still there
            lab.ring()
        lab.flush_redis()
        with times.measure("a flush to the end of twenty jobs"):
            for id in ids:
                lab.reaches(id, "succeeded")


@scenario("B3", dialects=("postgresql",))
def redis_stands_still(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGSTOP of Redis while jobs run, are submitted and are cancelled over HTTP; then SIGCONT."""
    assert lab.redis
    with api(lab) as door:
        lab.have(2)
        well = lab.train(steps=30, pause=0.1)
        fence = lab.runs(well)
        lab.log.write("freeze", "redis")
        lab.redis.freeze()
        try:
            for i in range(n):
                id = _submit(door, times, "a submit while Redis stands still")
                if i % 2:
                    with times.measure("a cancel while Redis stands still"):
                        answer = door.http.post(f"/v1/jobs/{id}/cancel")
                    assert answer.status_code in (200, 202), f"{answer.status_code}: {answer.text}"
                    lab.accepted[id] = replace(lab.accepted[id], ends=frozenset({"cancelled"}))
            assert lab.reaches(well, "succeeded").fence == fence, f"the job {well} was disturbed"
            time.sleep(draw.uniform(0, 1))
        finally:
            lab.redis.thaw()
        with times.measure("Redis goes on to the end of the next job"):
            lab.reaches(_submit(door, times, "a submit after Redis stood still"), "succeeded")


@scenario("B4", dialects=("postgresql",))
def the_broker_cannot_be_reached(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """The only worker's connection to Redis is held, reset, cut, refused, or loses its answers."""
    lab.clear()
    assert lab.redis
    with proxied(lab.redis.url) as proxy:
        lab.start_worker(broker_url=proxy.url(lab.broker_url))
        for i in range(n):
            mode, amount = BROKEN[i % len(BROKEN)]
            lab.log.write(mode, "redis")
            proxy.switch(mode, amount)
            time.sleep(draw.uniform(0, 0.5))
            id = lab.train(steps=20)
            lab.ring()
            with times.measure("a ring that nobody hears to the end of the job"):
                lab.reaches(id, "succeeded")
            proxy.switch("pass")
            id = lab.train(steps=20)
            lab.ring()
            lab.reaches(id, "succeeded")


@scenario("B5", dialects=("postgresql",))
def there_is_no_broker(lab: Lab, n: int, _draw: random.Random, times: Times) -> None:
    """An API and a worker start where no Redis is, and serve."""
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    with api(lab, broker_url=nowhere) as door:
        lab.log.write("absent", "redis")
        lab.start_worker(broker_url=nowhere)
        for _ in range(n):
            id = _submit(door, times, "a submit without a broker")
            with times.measure("a submit without a broker to the end of the job"):
                lab.reaches(id, "succeeded")


def _submit(door: Api, times: Times, what: str) -> str:
    """A job over HTTP, its answer's time measured. It must be taken whatever the broker does."""
    with times.measure(what):
        id = door.submit(door.body(f"broker-{door.lab.number('key')}"))
    assert id, "the API did not answer"
    return id
