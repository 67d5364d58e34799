"""The doorbell: heard where somebody listens, harmless where nobody does."""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from celery import Celery

from db import wake
from tests.servers import free_port


@pytest.fixture
def bell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celery]:
    """A doorbell at the broker of the test's parameter."""
    url = f"filesystem://{tmp_path / 'the broker'}" if request.param == "filesystem" else request.getfixturevalue("redis_url")
    app = wake.doorbell(url)
    with app.connection_for_write() as connection:
        for queue in wake.QUEUES:
            connection.SimpleQueue(queue).clear()
    yield app
    app.close()


def _heard(app: Celery, queue: str) -> int:
    """How many messages wait there, which are taken out by asking."""
    count = 0
    with app.connection_for_read() as connection, connection.SimpleQueue(queue) as messages, suppress(messages.Empty):
        while True:
            messages.get(block=False).ack()
            count += 1
    return count


BROKERS = ["filesystem", pytest.param("redis", marks=pytest.mark.servers)]


@pytest.mark.parametrize("bell", BROKERS, indirect=True)
def test_a_ring_is_heard_on_its_queue(bell: Celery) -> None:
    assert wake.ring(bell, ["cpu", "cpu"])
    assert [_heard(bell, queue) for queue in wake.QUEUES] == [0, 2]


@pytest.mark.parametrize("bell", BROKERS, indirect=True)
def test_a_ring_for_any_worker_is_heard_on_both_queues(bell: Celery) -> None:
    wake.ring(bell, ["any"])
    assert [_heard(bell, queue) for queue in wake.QUEUES] == [1, 1]


@pytest.mark.parametrize("bell", BROKERS[:1], indirect=True)
def test_a_ring_says_nothing_but_its_name(bell: Celery, tmp_path: Path) -> None:
    wake.ring(bell, ["gpu"])
    (message,) = (tmp_path / "the broker" / "messages").iterdir()
    headers = json.loads(message.read_text())["headers"]
    assert (headers["task"], headers["argsrepr"], headers["kwargsrepr"]) == ("retort.wake", "()", "{}")
    assert headers["expires"]


def test_a_broker_that_is_not_there_is_logged_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    app = wake.doorbell(f"redis://127.0.0.1:{free_port()}/0", socket_timeout=2)
    with caplog.at_level(logging.WARNING, logger="db.wake"):
        wake.ring(app, ["cpu"])
    app.close()
    assert "could not wake the queue cpu" in caplog.text


@pytest.mark.servers
def test_a_broker_that_hangs_does_not_hold_up_the_caller(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    app = wake.doorbell(redis_url, socket_timeout=2)
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("CLIENT", "PAUSE", "3000", "ALL")
    with caplog.at_level(logging.WARNING, logger="db.wake"):
        wake.ring(app, ["cpu"])
    with redis.Redis.from_url(redis_url) as client:
        client.ping()  # answers when the pause is over
    app.close()
    assert caplog.records
