"""The broker dies, forgets, stands still, or cannot be reached: B1 to B5. A message is a doorbell, so each is a matter of time only."""

import random
import time

import redis

from tests.chaos.catalogue import Times, scenario
from tests.chaos.lab import Lab, until
from tests.chaos.proxy import Mode, proxied
from tests.servers import free_port

QUEUED = 20
BROKEN: tuple[tuple[Mode, float], ...] = (("blackhole", 0), ("reset", 0), ("limit", 200), ("down", 0), ("drop replies", 0))


@scenario("B2")
def redis_forgets(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """FLUSHALL while twenty jobs wait and have been rung for."""
    lab.have(2)
    for _ in range(n):
        ids = [lab.train(steps=20) for _ in range(QUEUED)]
        for _ in ids:
            lab.ring()
        until(lambda: _messages(lab))
        time.sleep(draw.uniform(0, 0.2))
        lab.flush_redis()
        with times.measure("a flush to the end of twenty jobs"):
            for id in ids:
                lab.reaches(id, "succeeded")


@scenario("B4")
def the_broker_cannot_be_reached(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """The only worker's connection to Redis is held, reset, cut, refused, or loses its answers."""
    _alone(lab)
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


@scenario("B5")
def there_is_no_broker(lab: Lab, n: int, _draw: random.Random, times: Times) -> None:
    """A worker starts where no Redis is, and works."""
    _alone(lab)
    lab.log.write("absent", "redis")
    lab.start_worker(broker_url=f"redis://127.0.0.1:{free_port()}/0")
    for _ in range(n):
        id = lab.train(steps=20)
        with times.measure("a submit to the end of the job, without a broker"):
            lab.reaches(id, "succeeded")


def _alone(lab: Lab) -> None:
    """No worker is there that could do the work of the one in question."""
    for each in lab.healthy:
        lab.end(each)


def _messages(lab: Lab) -> int:
    """How many rings wait in Redis."""
    with redis.Redis.from_url(lab.broker_url) as client:
        return int(client.llen("cpu"))
