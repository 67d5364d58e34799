"""`python -m api` serves; `python -m api key --tenant NAME --name NAME` makes an API key and prints it as JSON."""

import argparse
import json
import logging
import os
import sys

from pydantic import ValidationError

from api.settings import Settings
from core.shim import die_with_parent
from db import access
from db.session import Unavailable, connect

log = logging.getLogger("api")


def main() -> int:
    """What the words on the command line ask for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m api", description="The REST API of Retort. Settings come from RETORT_… variables.")
    commands = parser.add_subparsers(dest="command")
    key = commands.add_parser("key", help="make an API key and print it as JSON; it is shown this once")
    key.add_argument("--tenant", required=True, help="whose key it is; made if there is none of this name")
    key.add_argument("--name", required=True, help="what the key is for")
    words = parser.parse_args()
    try:
        settings = Settings()
    except ValidationError as wrong:
        missing = ", ".join(f"RETORT_{'_'.join(map(str, error['loc'])).upper()}: {error['msg']}" for error in wrong.errors())
        return _complain(missing)
    try:
        return make_key(settings, tenant=words.tenant, name=words.name) if words.command == "key" else serve(settings)
    except Unavailable as error:
        return _complain(f"the database cannot be reached: {error}")


def make_key(settings: Settings, *, tenant: str, name: str) -> int:
    """Print a new key of a tenant, which is made if it is not there."""
    database = connect(settings.database_url)
    owner = access.create_tenant(database, tenant)
    key = access.create_key(database, owner, name=name)
    database.close()
    sys.stdout.write(json.dumps({"key": key, "tenant": tenant, "name": name}) + "\n")
    return 0


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; running requests may end first."""
    if settings.parent is not None:
        die_with_parent(settings.parent)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # plans compute nothing: the cores belong to the workers

    import uvicorn

    from api.app import create_app
    from api.logs import configure

    configure()
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=settings.shutdown,
        )
    )
    log.info("serving on http://%s:%s", settings.host, settings.port)
    server.run()
    return 0 if server.started else 1


def _complain(sentence: str) -> int:
    sys.stderr.write(f"python -m api: {sentence}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
