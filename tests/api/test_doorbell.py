"""The doorbell: rung after the commit for workers that live, and never in the way of a request."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.doorbell import Doorbell
from api.settings import Settings
from db import workers
from db.session import Database
from tests.api.lab import STUDENT, Lab
from tests.servers import free_port

PATIENCE = 30.0


@pytest.fixture
def rung(tmp_path: Path) -> Callable[[], list[str]]:
    """The queues that were rung and whose ring nobody took yet."""
    return lambda: sorted(file.name.split(".")[-2].rpartition("_")[2] for file in (tmp_path / "broker" / "messages").glob("*.msg"))


def live(database: Database, *queues: str) -> None:
    workers.heartbeat(database, id="wrk_1", host="box", pid=1, queues=queues, device="cpu", slots=1, threads=1, busy=0)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_new_job_rings_the_workers_that_live(http: httpx.Client, lab: Lab, database: Database, rung: Callable[[], list[str]]) -> None:
    http.post("/v1/architectures", json={"name": "a", "architecture": STUDENT}).raise_for_status()
    live(database, "cpu")
    http.post("/v1/jobs", json=lab.spec(device="cuda")).raise_for_status()
    http.post("/v1/jobs", json=lab.spec()).raise_for_status()
    until(lambda: rung() == ["cpu"])


def test_what_was_asked_for_is_rung_before_it_stops(settings: Settings, database: Database, rung: Callable[[], list[str]]) -> None:
    live(database, "cpu", "gpu")
    doorbell = Doorbell(settings.broker_url, database, timeout=2, living=60)
    for queue in ("cpu", "gpu", "any"):
        doorbell.ring([queue])
    doorbell.close()
    assert rung() == ["cpu", "cpu", "gpu", "gpu"]


def test_a_broker_that_is_gone_keeps_no_job_from_being_queued(
    http: httpx.Client, lab: Lab, serve: Any, settings: Settings, database: Database
) -> None:
    live(database, "cpu")
    url = serve(settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"}))
    for seed in range(3):
        assert http.post(f"{url}/v1/jobs", json=lab.spec(seed=seed)).status_code == 201
