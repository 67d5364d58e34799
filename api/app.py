"""The application: the service that lives as long as the process, the routes, and the one form of every error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import FastAPI

from api import problems
from api.deps import Service
from api.doorbell import Doorbell
from api.feed import Feeds
from api.gate import Gate
from api.problems import ProblemBody
from api.receiving import Receiving
from api.routes import access, artifacts, assets, events, exports, health, jobs, methods, pairs, preview, sweeps, uploads, wishes
from api.settings import Settings
from api.sweeper import Sweeper
from db.session import connect

DESCRIPTION = """\
Knowledge distillation as a service: upload a trained teacher and a dataset, describe a small student, submit a job, download the student.

Every request carries `Authorization: Bearer rt_…`. Every error is `application/problem+json` with `code`, `hint`, `fault`, and the
wrong fields under `errors`, each with a JSON pointer."""

_PROBLEM = {"application/problem+json": {"schema": ProblemBody.model_json_schema()}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": _PROBLEM}
    for status, description in {"4XX": "the request is at fault", "5XX": "the service is at fault"}.items()
}


def create_app(settings: Settings) -> FastAPI:
    """The API over the database and the broker that the settings name."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = settings.request_threads
        database = connect(settings.database_url, directory=settings.blobs)
        doorbell = Doorbell(settings.broker_url, database, timeout=settings.wake_timeout, living=settings.worker_living)
        app.state.service = Service(
            settings=settings,
            database=database,
            doorbell=doorbell,
            feeds=Feeds(database, poll=settings.stream_poll, most=settings.max_streams),
            receiving=Receiving(most=settings.max_uploads, idle=settings.upload_idle, beat=settings.upload_beat),
        )
        sweeper = Sweeper(app.state.service, every=settings.sweep_seconds)
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(sweeper.close)
            await anyio.to_thread.run_sync(doorbell.close)
            database.close()

    app = FastAPI(title="Retort", version="1", description=DESCRIPTION, lifespan=lifespan, redoc_url=None, redirect_slashes=False)
    problems.install(app)
    # methods before assets: /v1/architectures/catalog is no id.
    for each in (uploads, methods, assets, preview, pairs, jobs, wishes, events, sweeps, artifacts, exports, access, health):
        app.include_router(each.router, responses=_ERRORS)
    app.add_middleware(Gate, max_body=settings.max_body, max_depth=settings.max_depth)
    return app
