"""What every test may ask for: real servers, started once, and a fresh database in the schema of today, on SQLite and on PostgreSQL."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from db.session import Database, connect
from migrations.schema import upgrade
from tests.servers import start_postgres, start_redis


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server where databases may be made: the one of DATABASE_URL, or one that lives as long as the tests."""
    if given := os.environ.get("DATABASE_URL"):
        yield given
        return
    with start_postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server: the one of REDIS_URL, or one that lives as long as the tests."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    with start_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database in the schema of today, to be copied."""
    file = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    _migrate(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> Iterator[str]:
    """The name of a PostgreSQL database in the schema of today, to be copied."""
    with _postgres_database(postgres_url) as url:
        _migrate(url)
        yield url.rpartition("/")[2]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def dialect(request: pytest.FixtureRequest) -> str:
    """The two databases that everything must work on."""
    name: str = request.param
    return name


@pytest.fixture
def empty_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with nothing in it."""
    if dialect == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with _postgres_database(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.fixture
def database_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database in the schema of today with no rows."""
    if dialect == "sqlite":
        file = shutil.copyfile(request.getfixturevalue("migrated_file"), tmp_path / "retort.db")
        yield f"sqlite:///{file}"
        return
    template = request.getfixturevalue("migrated_postgres")
    with _postgres_database(request.getfixturevalue("postgres_url"), template=template) as url:
        yield url


@pytest.fixture
def connected(database_url: str) -> Iterator[Callable[[], Database]]:
    """Makes connections to the test's database that have nothing in common, as two processes would."""
    opened: list[Database] = []

    def another() -> Database:
        opened.append(connect(database_url))
        return opened[-1]

    yield another
    for one in opened:
        one.close()


@pytest.fixture
def database(connected: Callable[[], Database]) -> Database:
    """The test's database."""
    return connected()


def _migrate(url: str) -> None:
    db = connect(url)
    upgrade(db)
    db.close()


class _postgres_database:
    """A database on the server for the length of a `with`."""

    def __init__(self, server: str, *, template: str = "template0") -> None:
        self.server = server
        self.name = f"retort_{uuid.uuid4().hex}"
        self.template = template

    def __enter__(self) -> str:
        self._execute("CREATE DATABASE {} TEMPLATE {}", self.name, self.template)
        return _url_of(self.server, self.name)

    def __exit__(self, *_error: object) -> None:
        self._execute("DROP DATABASE {} WITH (FORCE)", self.name)

    def _execute(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _url_of(server: str, name: str) -> str:
    """The URL of another database on the same server."""
    return urlsplit(server)._replace(path=f"/{name}").geturl()
