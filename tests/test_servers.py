"""The tests' own servers: they answer, as root and as anybody, and they never outlive the tests."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
import redis

START_BOTH = """
import sys, tempfile, time
from pathlib import Path
from tests.servers import start_postgres, start_redis
with tempfile.TemporaryDirectory() as folder, start_postgres(Path(folder)) as postgres, start_redis(Path(folder)) as cache:
    print(postgres, cache, flush=True)
    sys.stdin.read()
"""
CAN_RUN_ITSELF = "import psycopg, subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
_PATIENCE = 30.0
ROOT = Path(__file__).parent.parent


@pytest.fixture
def start_both() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts another process that starts both servers; what they leave when they are killed goes at the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o1777)
        started: list[subprocess.Popen[str]] = []

        def start(command: Sequence[str] = ()) -> subprocess.Popen[str]:
            started.append(_start_both(command, folder))
            return started[-1]

        yield start
        for process in started:
            process.kill()
            process.communicate()


def _start_both(command: Sequence[str], folder: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, sys.executable, "-c", START_BOTH],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": folder},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _urls(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def _listens(url: str) -> bool:
    port = int(url.rpartition(":")[2].partition("/")[0])
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.servers
def test_the_servers_answer(postgres_url: str, redis_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()


@pytest.mark.servers
def test_the_servers_end_with_the_tests_also_when_those_are_killed(start_both: Callable[..., subprocess.Popen[str]]) -> None:
    process = start_both()
    urls = _urls(process)
    assert [_listens(url) for url in urls] == [True, True]
    process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE
    while any(_listens(url) for url in urls) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [_listens(url) for url in urls] == [False, False]


@pytest.mark.servers
@pytest.mark.skipif(os.getuid() != 0, reason="the other tests run as an ordinary user already")
def test_the_servers_start_for_an_ordinary_user(start_both: Callable[..., subprocess.Popen[str]]) -> None:
    as_nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    if subprocess.run([*as_nobody, sys.executable, "-c", CAN_RUN_ITSELF], check=False, capture_output=True).returncode:
        pytest.skip("this Python lies where an ordinary user cannot go")
    process = start_both(as_nobody)
    assert [_listens(url) for url in _urls(process)] == [True, True]
    process.communicate("")
    assert process.returncode == 0
