"""Bring a database to the schema of this code, and say where it stands."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from db.session import Database

_ONE_AT_A_TIME = 0x4D696772617465
_HOME = Path(__file__).parent


class NewerThanCode(Exception):
    """The database was made by a later version of Retort than this one."""


def upgrade(db: Database) -> str:
    """Bring the database to the newest schema, from nothing or from any older one, in one transaction; its revision.

    `NewerThanCode` if this code is too old for it. Two at once take turns, and the second finds nothing to do.
    """
    config = Config()
    config.set_main_option("script_location", str(_HOME).replace("%", "%%"))
    with db.begin() as connection:
        if db.dialect == "postgresql":
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_AT_A_TIME})
        _known(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return head()


def at_head(db: Database) -> bool:
    """Whether the database has the schema of this code."""
    with db.read() as connection:
        return _known(connection) == head()


def head() -> str:
    """The newest revision that this code knows."""
    newest = _scripts().get_current_head()
    if newest is None:
        raise RuntimeError("there are no migrations")
    return newest


def _known(connection: Connection) -> str | None:
    """The revision of the database, None for an empty one."""
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and revision not in {script.revision for script in _scripts().walk_revisions()}:
        raise NewerThanCode(
            f"the database has the schema {revision}, and this version of Retort knows schemas up to {head()} only: run the version that "
            "made it, or a later one"
        )
    return revision


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_HOME))
