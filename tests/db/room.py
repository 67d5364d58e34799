"""A database that has run out of room: what is larger than some kilobytes is refused by the database itself, what is small still fits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import ConnectionPoolEntry

_PAGE = 4096
_REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF pg_column_size(NEW) > %d THEN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON blob_chunk FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TRIGGER refuse BEFORE INSERT ON job_event FOR EACH ROW EXECUTE FUNCTION refuse();
"""
_NO_LIMIT = (1 << 32) - 2


@contextmanager
def full(url: str, *, spare: int = 40) -> Iterator[None]:
    """The database at `url` is full for as long as this lasts; `spare` pages of 4 KiB are left for what is small.

    SQLite itself then refuses to let the file grow, which holds for the connections of this process. A server's disk cannot be filled
    here: PostgreSQL raises the error of a full disk from a trigger.
    """
    if url.startswith("postgresql"):
        with psycopg.connect(url, autocommit=True) as operator:
            operator.execute(_REFUSE % (spare * _PAGE))
            try:
                yield
            finally:
                operator.execute("DROP FUNCTION refuse CASCADE")
        return
    bound: list[int] = []

    def limit(connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
        record.info["limited"] = True
        if not bound:
            bound.append(connection.execute("PRAGMA page_count").fetchone()[0] + spare)
        connection.execute(f"PRAGMA max_page_count = {bound[0]}")

    event.listen(sa.pool.Pool, "checkout", limit)
    try:
        yield
    finally:
        event.remove(sa.pool.Pool, "checkout", limit)


def _lift(connection: Any, record: ConnectionPoolEntry) -> None:
    """A connection goes back into its pool without the limit."""
    if record.info.pop("limited", False) and connection is not None:
        connection.execute(f"PRAGMA max_page_count = {_NO_LIMIT}")


event.listen(sa.pool.Pool, "checkin", _lift)
