"""The two ways to run Retort, started as a person starts them: `retort up`, and the processes of docker-compose.yml."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg import sql

from tests import compose
from tests.retort.service import call, environment, processes_of, up, wait_until
from tests.servers import free_port

CONVERT = {"RETORT_CONVERT": "isolated"}
VARIABLES = {"RETORT_APP_PASSWORD": "app", "RETORT_OWNER_PASSWORD": "owner", **CONVERT}


@dataclass
class Stack:
    """A running service, its first key, and how another tenant's key is made there."""

    name: str
    url: str
    key: str
    folder: Path
    stranger: Callable[[], str]

    def retort(self, *words: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
        """One call of the command."""
        return call(*words, env={"RETORT_URL": self.url, "RETORT_API_KEY": key or self.key})

    def asked(self, *words: str, code: int = 0, key: str | None = None) -> Any:
        """The JSON that one call answers with, which must end with `code`."""
        ended = self.retort(*words, "--json", key=key)
        assert ended.returncode == code, ended.stderr + ended.stdout
        return json.loads(ended.stdout)


@contextmanager
def embedded(folder: Path) -> Iterator[Stack]:
    """`retort up`: SQLite, Celery on a folder, one terminal."""
    with up(folder / "data", "--slots", "2", env=CONVERT) as service:
        known = json.loads((service.folder / "service.json").read_text())

        def stranger() -> str:
            made = call("key", "make", "theirs", "--tenant", "strangers", "--json", env={"RETORT_DATA": str(service.folder)})
            assert made.returncode == 0, made.stderr
            return str(json.loads(made.stdout)["key"])

        yield Stack("embedded", service.url, known["key"], service.folder, stranger)


@contextmanager
def many_machines(folder: Path, *, postgres: str, redis: str) -> Iterator[Stack]:
    """The services of docker-compose.yml as processes: a migration, the API and two workers, on PostgreSQL and Redis."""
    with ExitStack() as stack:
        database = stack.enter_context(_database(postgres))
        server = postgres.partition("@")[2].partition("/")[0]
        port = free_port()
        owner = f"{postgres.partition('@')[0]}@{server}/{database}"
        at_hand = {
            "postgresql://retort:owner@postgres:5432/retort": owner,
            "postgres:5432/retort": f"{server}/{database}",
            "redis://redis:6379/0": redis,
            "0.0.0.0": "127.0.0.1",
        }

        def run(name: str, data: str, *words: str, **more: str) -> subprocess.Popen[str]:
            service = compose.service(name, VARIABLES, at_hand)
            (folder / data).mkdir(exist_ok=True)
            settings = {**service.environment, "RETORT_DATA": str(folder / data), "RETORT_THREADS": "1", **more}
            if name == "api":
                settings = {**settings, "RETORT_PORT": str(port)}
            command = [sys.executable, *service.command[1:], *words]
            with (folder / f"{data}.log").open("ab") as log:
                pipe = subprocess.PIPE if words else log
                return subprocess.Popen(
                    command, env=environment(settings), cwd=folder, text=True, stdout=pipe, stderr=log, stdin=subprocess.DEVNULL
                )

        def make_key(tenant: str) -> str:
            told, _ = run("api", "key", "key", "--tenant", tenant, "--name", "first").communicate(timeout=60)
            return str(json.loads(told)["key"])

        migration = run("migrate", "migrate")
        assert migration.wait(60) == 0, (folder / "migrate.log").read_text()
        key = make_key("local")
        stack.callback(wait_until, lambda: not processes_of(folder))
        for name, data in (("api", "api"), ("worker-cpu", "worker-1"), ("worker-cpu", "worker-2")):
            process = run(name, data, RETORT_PARENT=str(os.getpid()))
            stack.callback(_end, process)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _is_ready(url))
        yield Stack("many machines", url, key, folder, lambda: make_key("strangers"))


@contextmanager
def _database(server: str) -> Iterator[str]:
    name = f"retort_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield name
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False, timeout=5.0).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
