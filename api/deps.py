"""What every route is given: the running service, ids and cursors of the right form, and the job of an id."""

import shutil
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request

from api.doorbell import Doorbell
from api.feed import Feeds
from api.problems import not_found, storage_full
from api.receiving import Receiving
from api.settings import Settings
from db import jobs
from db.access import Tenant
from db.life import Job
from db.session import Database


@dataclass(frozen=True, slots=True)
class Service:
    """What lives as long as the process does."""

    settings: Settings
    database: Database
    doorbell: Doorbell
    feeds: Feeds
    receiving: Receiving


async def service(request: Request) -> Service:
    """The service that this application runs."""
    found: Service = request.app.state.service
    return found


Running = Annotated[Service, Depends(service)]


def need_room(running: Service, wanted: int = 0) -> None:
    """A Problem where a disk would have less than `min_free` bytes beside the `wanted` ones: that of an SQLite database, or that of the
    directory where uploads go. The disk of a server is not seen from here: PostgreSQL itself says when it is full.
    """
    database = running.database
    folders = {file.parent: 0 if database.directory else wanted for file in [database.file] if file}
    if database.directory is not None:
        database.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders[database.directory] = wanted
    for folder, more in folders.items():
        free, least = shutil.disk_usage(folder).free, running.settings.min_free + more
        if free < least:
            raise storage_full(f"{free} bytes are free, {least} are wanted")


async def _room(running: Running) -> None:
    need_room(running)


Roomy = Depends(_room)
"""For a route that takes something in."""
ID = r"^[a-z]{2,5}_[0-9a-z]{1,40}$"
Id = Annotated[str, Path(pattern=ID, description="as the service gave it")]
Name = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,60}$")]
Limit = Annotated[int, Query(ge=1, le=100, description="the most to list")]
IdempotencyKey = Annotated[
    str | None, Header(max_length=257, description="any text of your own: the same request sent twice with it is carried out once")
]
After = Annotated[str | None, Query(pattern=ID, description="`next_cursor` of the page before", examples=[None])]


def find_job(running: Service, tenant: Tenant, id: str) -> Job:
    """The tenant's job of this id, of any kind; a Problem where there is none."""
    job = jobs.get_job(running.database, tenant, id)
    if job is None:
        raise not_found("job", id)
    return job
