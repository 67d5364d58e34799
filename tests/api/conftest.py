"""The API as a user meets it: a real server on a free port, over each of the two databases."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.settings import Settings
from db import access
from db.session import Database
from tests.api.lab import Lab, Server, User, equip

QUICK: dict[str, Any] = {"stream_poll": 0.05, "stream_ping": 0.2, "shutdown": 2}


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of a small service, everything about thirty times as fast."""
    return Settings(database_url=database_url, broker_url=f"filesystem://{tmp_path / 'broker'}", data=tmp_path / "data", **QUICK)


@pytest.fixture
def serve() -> Iterator[Callable[[Settings], str]]:
    """Starts a server and gives its address."""
    servers: list[Server] = []

    def start(settings: Settings) -> str:
        servers.append(Server(settings))
        return servers[-1].url

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def url(serve: Callable[[Settings], str], settings: Settings) -> str:
    """A running service."""
    return serve(settings)


@pytest.fixture
def users(url: str, database: Database) -> Iterator[Callable[[str], User]]:
    """Makes users, each with a tenant of his own."""
    made: list[httpx.Client] = []

    def user(name: str) -> User:
        tenant = access.create_tenant(database, name)
        key = access.create_key(database, tenant, name="test")
        made.append(httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False))
        return User(made[-1], tenant, key)

    yield user
    for client in made:
        client.close()


@pytest.fixture
def user(users: Callable[[str], User]) -> User:
    """A user."""
    return users("ada")


@pytest.fixture
def http(user: User) -> httpx.Client:
    """A user's client."""
    return user.http


@pytest.fixture
def lab(database: Database, user: User) -> Lab:
    """A user's teacher, architecture and dataset."""
    return equip(database, user)


@pytest.fixture
def submitted(http: httpx.Client, lab: Lab) -> dict[str, Any]:
    """A queued job."""
    answer = http.post("/v1/jobs", json=lab.spec())
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job
