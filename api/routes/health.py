"""Whether the service lives, whether it can work, and what it is."""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version as installed
from pathlib import Path
from typing import Literal

import structlog
from fastapi import APIRouter, Response, status
from pydantic import BaseModel, Field

from api.deps import Running, Service
from migrations.schema import at_head, head

router = APIRouter(tags=["health"])
log = structlog.get_logger(__name__)


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Check(BaseModel):
    """One thing that the service needs."""

    name: str
    ok: bool
    detail: str


class Readiness(BaseModel):
    """Whether every check passed."""

    status: Literal["ready", "not_ready"]
    checks: list[Check]
    conversion: Literal["off", "isolated", "anyway"] = Field(description="whether PyTorch checkpoints are opened, and how contained")


class Version(BaseModel):
    """What runs here."""

    version: str
    api: Literal["v1"] = "v1"
    python: str
    torch: str


@router.get("/livez", summary="Does the process live")
async def livez() -> Alive:
    """Answers as long as the process does; looks at nothing else."""
    return Alive()


@router.get("/readyz", summary="Can the service work", responses={503: {"model": Readiness}})
def readyz(running: Running, response: Response) -> Readiness:
    """The database, its schema, the broker and the storage, each by name. Workers are not part of it: see /v1/capabilities."""
    checks = [_check(name, look, running) for name, look in _CHECKS.items()]
    is_ready = all(check.ok for check in checks)
    if not is_ready:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        response.headers["Retry-After"] = "5"
    return Readiness(status="ready" if is_ready else "not_ready", checks=checks, conversion=running.settings.convert)


@router.get("/version", summary="What runs here")
async def version() -> Version:
    """The versions that an error report should name."""
    return Version(version=installed("retort-service"), python=sys.version.partition(" ")[0], torch=installed("torch"))


def _database(running: Service) -> str:
    running.database.reach()
    return running.database.dialect


def _migrations(running: Service) -> str:
    if not at_head(running.database):
        raise RuntimeError("the schema is not that of this code: run `python -m migrations`")
    return f"at {head()}"


def _broker(running: Service) -> str:
    running.doorbell.reach()
    return running.settings.broker_url.partition("://")[0]


def _storage(running: Service) -> str:
    return f"{_writable(running.settings.data, running)} bytes are free"


def _blobs(running: Service) -> str:
    directory = running.database.directory
    if directory is None:
        return "all in the database"
    return f"large ones in a directory, where {_writable(directory, running)} bytes are free"


def _writable(folder: Path, running: Service) -> int:
    """The free bytes of a folder where a file can be written and locked."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"ready")
        os.fsync(file.fileno())
        fcntl.flock(file, fcntl.LOCK_EX)
    free = shutil.disk_usage(folder).free
    if free < running.settings.min_free:
        raise RuntimeError(f"{free} bytes are free, {running.settings.min_free} are wanted")
    return free


_CHECKS: dict[str, Callable[[Service], str]] = {
    "database": _database,
    "migrations": _migrations,
    "broker": _broker,
    "storage": _storage,
    "blobs": _blobs,
}


def _check(name: str, look: Callable[[Service], str], running: Service) -> Check:
    try:
        return Check(name=name, ok=True, detail=look(running))
    except Exception as error:  # whatever is wrong with it is the answer
        log.warning("not ready", check=name, error=str(error))
        return Check(name=name, ok=False, detail=str(error) or type(error).__name__)
