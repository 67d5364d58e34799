"""Migrations lead from nothing to the schema of today, and never touch what a later version made."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from db.access import create_tenant
from db.session import Database, Unavailable, connect
from db.tables import metadata
from migrations.roles import ROLE
from migrations.schema import NewerThanCode, at_head, head, upgrade


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    """A database with nothing in it."""
    db = connect(empty_url)
    yield db
    db.close()


def test_an_empty_database_is_brought_to_the_newest_schema_and_left_there(empty: Database) -> None:
    assert not at_head(empty)
    assert upgrade(empty) == head()
    assert at_head(empty)
    tenant = create_tenant(empty, "ours")
    upgrade(empty)
    assert create_tenant(empty, "ours") == tenant


def test_the_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_the_migrations_make_exactly_the_constraints_of_the_code(database: Database, empty: Database) -> None:
    with empty.begin() as connection:
        metadata.create_all(connection)
    assert _shape(database) == _shape(empty)


def _shape(db: Database) -> dict[str, Any]:
    """Everything that can be read of each table, in an order that does not depend on how it was made."""
    with db.read() as connection:
        look = sa.inspect(connection)
        ask: list[Callable[[str], Any]] = [
            look.get_columns,
            look.get_pk_constraint,
            look.get_foreign_keys,
            look.get_unique_constraints,
            look.get_check_constraints,
            look.get_indexes,
        ]
        return {table: [_sorted(question(table)) for question in ask] for table in look.get_table_names() if table != "alembic_version"}


def _sorted(answer: Any) -> list[str]:
    return sorted(map(_written, answer)) if isinstance(answer, list) else [_written(answer)]


def _written(part: Any) -> str:
    """As text: two reflections of one partial index hold different objects."""
    return str({name: _written(value) for name, value in part.items()}) if isinstance(part, dict) else str(part)


def test_a_database_of_a_later_version_is_refused_by_name_and_left_alone(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerThanCode, match="the schema 9999"):
        upgrade(database)
    with pytest.raises(NewerThanCode):
        at_head(database)
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"


def test_a_migration_that_fails_leaves_nothing_behind(empty: Database) -> None:
    with empty.begin() as connection:
        connection.execute(sa.text("CREATE TABLE worker (id integer)"))
    with pytest.raises(sa.exc.DBAPIError):
        upgrade(empty)
    with empty.read() as connection:
        assert sa.inspect(connection).get_table_names() == ["worker"]


def test_two_who_migrate_at_once_take_turns(empty_url: str) -> None:
    gate, outcomes = threading.Barrier(2), []

    def migrate() -> None:
        db = connect(empty_url)
        gate.wait(10)
        outcomes.append(upgrade(db))
        db.close()

    both = [threading.Thread(target=migrate) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert outcomes == [head(), head()]


def _run(url: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "RETORT_DATABASE_URL": url, **environment}
    return subprocess.run([sys.executable, "-m", "migrations", *words], capture_output=True, text=True, env=variables, check=False)


def test_the_command_migrates_and_says_where_the_database_stands(empty_url: str) -> None:
    assert _run(empty_url, "--check").returncode == 1
    done = _run(empty_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"the database is at schema {head()}\n", "")
    assert _run(empty_url, "--check").returncode == 0


def test_the_command_names_what_it_cannot_serve(database: Database, database_url: str) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    refused = _run(database_url)
    assert refused.returncode == 2
    assert "the schema 9999" in refused.stderr
    assert "RETORT_DATABASE_URL is not set" in _run("").stderr


@pytest.mark.parametrize("dialect", [pytest.param("postgresql", marks=pytest.mark.servers)])
def test_the_service_has_a_role_that_uses_tables_and_cannot_change_them(empty_url: str) -> None:
    for password in ("first 'one' %s", "second"):
        assert _run(empty_url, RETORT_APP_PASSWORD=password).returncode == 0
    application = sa.make_url(empty_url).set(username=ROLE, password="second").render_as_string(hide_password=False)
    db = connect(application)
    try:
        create_tenant(db, "ours")
        assert at_head(db)
        for forbidden in ("DROP TABLE job_event", "UPDATE alembic_version SET version_num = '0'", "ALTER TABLE job DISABLE TRIGGER ALL"):
            with pytest.raises((sa.exc.ProgrammingError, Unavailable)), db.begin() as connection:
                connection.exec_driver_sql(forbidden)
    finally:
        db.close()
        with psycopg.connect(empty_url, autocommit=True) as owner:
            owner.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")
