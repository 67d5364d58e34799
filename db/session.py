"""The database as one object: how to connect, one transaction at a time, and the clock that everybody goes by."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, Table, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

_READ = "retort_read"
_DISK_FULL = "53100"
_POSTGRES = {
    "connect_timeout": 3,
    "application_name": "retort",
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "options": "-c statement_timeout=10s -c lock_timeout=3s -c idle_in_transaction_session_timeout=15s",
}
_PATIENCE = 5.0
_SQLITE = ("busy_timeout=5000", "synchronous=FULL", "foreign_keys=ON")
_SQLITE_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}


class Unavailable(Exception):
    """The database cannot be reached, does not answer in time, or cannot write. What was asked may or may not have happened."""


class Full(Unavailable):
    """The database answers, but there is no room for what was to be written: nothing of it was. What is smaller may still fit."""


class clock(FunctionElement[float]):
    """Seconds since the epoch, by the database's clock: no two machines need to agree on the time."""

    type = sa.Double()
    inherit_cache = True


@compiles(clock, "sqlite")
def _sqlite_clock(_element: clock, _compiler: Any, **_options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"  # unixepoch('subsec') needs SQLite 3.42


@compiles(clock, "postgresql")
def _postgres_clock(_element: clock, _compiler: Any, **_options: Any) -> str:
    return "(extract(epoch FROM clock_timestamp())::double precision)"


class Database:
    """A pool of connections to one database. Every function of this package takes it first and makes one short transaction."""

    def __init__(self, engine: Engine, directory: Path | None) -> None:
        self._engine = engine
        self.directory = directory
        """The folder beside it where large blobs lie; None: there is none."""
        self._reader = engine.execution_options(**{_READ: True})

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @property
    def file(self) -> Path | None:
        """The file that an SQLite database is; None for a server, whose disk only the server sees."""
        name = self._engine.url.database
        return Path(name) if name and self.dialect == "sqlite" else None

    def begin(self) -> AbstractContextManager[Connection]:
        """One writing transaction: commits at the end, rolls back on an error. `Unavailable` on any failure of the connection."""
        return self._transaction(self._engine)

    def read(self) -> AbstractContextManager[Connection]:
        """One reading transaction; on SQLite it does not wait for the writer."""
        return self._transaction(self._reader)

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except PoolTimeout as late:
            raise Unavailable("no connection became free in time") from late
        except DBAPIError as error:
            said = str(error.orig).strip() or type(error.orig).__name__
            if _is_full(error):
                raise Full(said) from error
            if _is_outage(error):
                raise Unavailable(said) from error
            raise

    def reach(self) -> None:
        """Ask the database the smallest question; `Unavailable` where it gives no answer."""
        with self.read() as connection:
            connection.execute(sa.select(1))

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()


def connect(url: str, *, directory: Path | None = None) -> Database:
    """The database at `sqlite:////absolute/file.db` or `postgresql://user:password@host:port/name`, and the folder of its large blobs;
    nothing is opened yet.
    """
    target = sa.make_url(url)
    encode = partial(json.dumps, separators=(",", ":"), allow_nan=False)
    match target.get_backend_name():
        case "postgresql":
            engine = sa.create_engine(
                target.set(drivername="postgresql+psycopg"),
                json_serializer=encode, connect_args=_POSTGRES, pool_pre_ping=True, pool_timeout=5, max_overflow=15,
            )  # fmt: skip
        case "sqlite":
            engine = sa.create_engine(target, json_serializer=encode, pool_timeout=10, max_overflow=35)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        case other:
            raise ValueError(f"the database must be sqlite or postgresql, not {other}")
    return Database(engine, directory)


def insert_or(connection: Connection, table: Table) -> "postgresql.Insert | sqlite.Insert":
    """An INSERT that can say what to do on a conflict, in the words that both dialects share."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own
    for setting in _SQLITE:
        connection.execute(f"PRAGMA {setting}")
    _write_ahead(connection)


def _write_ahead(connection: Any) -> None:
    """Switch a new file to WAL. Two who do it at the same moment would deadlock, so SQLite fails one of them at once: it tries again."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as busy:
            if busy.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at the start: a transaction that upgrades from reading fails at once, whatever the busy timeout says."""
    reading = connection.get_execution_options().get(_READ, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _is_full(error: DBAPIError) -> bool:
    """Whether a disk or a quota is used up. Shared memory beside an SQLite file that cannot grow has no other likely cause."""
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0)
        return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE
    return getattr(error.orig, "sqlstate", None) == _DISK_FULL or "quota exceeded" in str(error.orig)


def _is_outage(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _SQLITE_TRANSIENT
    return isinstance(error, OperationalError | sa.exc.InterfaceError)
