"""Connections: how they are set, what an outage looks like, and what importing costs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from db.access import Tenant, create_tenant, find_tenant
from db.session import Database, Full, Unavailable, clock, connect
from tests.db.given import submitted
from tests.servers import free_port


def _one(db: Database, statement: str) -> object:
    with db.read() as tx:
        return tx.exec_driver_sql(statement).scalar_one()


def _mistake(tx: sa.Connection, *before: str) -> None:
    for statement in before:
        tx.exec_driver_sql(statement)
    tx.exec_driver_sql("SELECT nothing FROM nowhere")


def test_an_sqlite_connection_is_set_for_one_writer_and_lasting_commits(tmp_path: Path) -> None:
    db = connect(f"sqlite:///{tmp_path / 'new.db'}")
    settings = {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 5000, "foreign_keys": 1}
    assert {name: _one(db, f"PRAGMA {name}") for name in settings} == settings
    db.close()


@pytest.mark.servers
def test_a_postgresql_connection_waits_for_nothing_long(postgres_url: str) -> None:
    db = connect(postgres_url)
    settings = {
        "statement_timeout": "10s",
        "lock_timeout": "3s",
        "idle_in_transaction_session_timeout": "15s",
        "application_name": "retort",
    }
    assert {name: _one(db, f"SHOW {name}") for name in settings} == settings
    db.close()


def test_the_clock_counts_seconds_since_the_epoch(database: Database) -> None:
    now = "julianday('now') * 86400.0 - 2440587.5 * 86400.0" if database.dialect == "sqlite" else "extract(epoch FROM now())"
    with database.read() as tx:
        ours = tx.execute(sa.select(clock())).scalar_one()
        theirs = tx.exec_driver_sql(f"SELECT {now}").scalar_one()
    assert ours == pytest.approx(float(theirs), abs=60)


def test_an_error_takes_back_the_whole_transaction(database: Database, tenant: Tenant) -> None:
    with pytest.raises(sa.exc.DBAPIError), database.begin() as tx:
        _mistake(tx, "DELETE FROM tenant")
    assert find_tenant(database, "ours") == tenant


def test_a_reader_does_not_wait_for_the_writer(connected: Callable[[], Database], tenant: Tenant) -> None:
    with connected().begin() as tx:
        tx.execute(sa.text("UPDATE tenant SET max_running = 1"))
        assert find_tenant(connected(), "ours") == tenant


def test_a_database_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/nowhere/file.db", f"postgresql://nobody@127.0.0.1:{free_port()}/none"):
        db = connect(url)
        with pytest.raises(Unavailable), db.begin():
            raise AssertionError("it was opened")
        db.close()


def test_a_file_that_cannot_grow_is_full(tmp_path: Path) -> None:
    db = connect(f"sqlite:///{tmp_path / 'full.db'}")
    with db.read() as tx:
        tx.exec_driver_sql("PRAGMA max_page_count = 4")  # of the one connection in the pool
    with pytest.raises(Full, match="full"), db.begin() as tx:
        tx.exec_driver_sql("CREATE TABLE t AS SELECT zeroblob(1000000)")
    db.close()


def test_a_mistake_in_a_statement_is_not_an_outage(database: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError), database.begin() as tx:
        _mistake(tx)


@pytest.mark.servers
def test_a_connection_that_was_cut_is_unavailable_once_and_then_replaced(postgres_url: str) -> None:
    db = connect(postgres_url)
    with pytest.raises(Unavailable), db.begin() as tx:
        tx.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert _one(db, "SELECT 1") == 1
    db.close()


def test_a_database_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="sqlite or postgresql, not mysql"):
        connect("mysql://somewhere/else")


def test_a_number_that_is_not_finite_is_never_written(database: Database, tenant: Tenant) -> None:
    with pytest.raises((sa.exc.StatementError, ValueError)):
        submitted(database, tenant, metadata={"loss": float("nan")})


def test_a_tenant_survives_a_new_connection(connected: Callable[[], Database]) -> None:
    made = create_tenant(connected(), "ours")
    assert find_tenant(connected(), "ours") == made == create_tenant(connected(), "ours")


def test_importing_the_database_layer_imports_no_celery_no_torch_and_no_web() -> None:
    code = "import sys, db.life, db.assets, db.jobs, db.history, db.workers, db.blobs; print(*sorted(sys.modules))"
    found = set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())
    assert "sqlalchemy" in found
    assert not found & {"celery", "kombu", "redis", "torch", "numpy", "fastapi", "starlette", "core", "alembic"}
