"""`python -m migrations` brings the database of RETORT_DATABASE_URL to the newest schema; with `--check` it only looks.

On PostgreSQL with RETORT_APP_PASSWORD it also makes the role that the service runs as, which may use the tables and not change them.
"""

import argparse
import os
import sys
import time

from db.session import Database, Unavailable, connect
from migrations.roles import make_application_role
from migrations.schema import NewerThanCode, at_head, head, upgrade

_PATIENCE = 30.0


def main() -> int:
    """The exit code: 0 at the newest schema, 1 not there, 2 for a database or a request that this code cannot serve."""
    parser = argparse.ArgumentParser(prog="python -m migrations", description=__doc__)
    parser.add_argument("--check", action="store_true", help="look, change nothing, exit 1 if the database is not at the newest schema")
    options = parser.parse_args()
    url = os.environ.get("RETORT_DATABASE_URL", "")
    if not url:
        sys.stderr.write("RETORT_DATABASE_URL is not set: name the database, sqlite:////absolute/file.db or postgresql://…\n")
        return 2
    db = connect(url)
    try:
        _wait_for(db)
        if options.check:
            return 0 if at_head(db) else 1
        upgrade(db)
        if password := os.environ.get("RETORT_APP_PASSWORD"):
            make_application_role(db, password)
    except (NewerThanCode, Unavailable) as refused:
        sys.stderr.write(f"{refused}\n")
        return 2
    finally:
        db.close()
    sys.stdout.write(f"the database is at schema {head()}\n")
    return 0


def _wait_for(db: Database) -> None:
    """A server that was started a moment ago may not answer yet."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with db.read():
                return
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
