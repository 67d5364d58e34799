"""The role that the service runs as on PostgreSQL: it uses the tables that the owner made, and cannot change or drop them."""

from psycopg.sql import SQL, Identifier, Literal

from db.session import Database

ROLE = "retort_app"


def make_application_role(db: Database, password: str) -> None:
    """Make the role, or give it this password if it is there, and let it use every table of the schema; nothing on SQLite."""
    if db.dialect != "postgresql":
        return
    with db.begin() as tx:
        there = tx.exec_driver_sql("SELECT 1 FROM pg_roles WHERE rolname = %s", (ROLE,)).first()
        role, verb = Identifier(ROLE), SQL("ALTER" if there else "CREATE")
        for statement in (
            SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, role, Literal(password)),
            SQL("GRANT USAGE ON SCHEMA public TO {}").format(role),
            SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}").format(role),
            SQL("REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM {}").format(role),
        ):
            tx.exec_driver_sql(statement.as_string().replace("%", "%%"))
