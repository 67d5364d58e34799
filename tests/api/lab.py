"""What the API's tests work with: a server in this process, users with keys, and what a worker would do behind the API's back."""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from safetensors.numpy import save

from api.app import create_app
from api.settings import Settings
from core.anatomy import measure
from core.data.report import DatasetReport
from core.networks import parse
from db import life
from db.access import Tenant
from db.blobs import Blobs
from db.life import Claim
from db.session import Database

TEACHER = {"family": "mlp", "hidden": [16], "input": [1, 8, 8], "classes": 10, "rectified": False}
STUDENT = {"family": "mlp", "hidden": [4], "input": [1, 8, 8], "classes": 10}


ONE_DATABASE = pytest.mark.parametrize("dialect", ["sqlite"])
"""For what is decided before any database is asked."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with a key: his client, and his tenant for what a worker does behind the API."""

    http: httpx.Client
    tenant: Tenant
    key: str

    @property
    def headers(self) -> dict[str, str]:
        """For a request that the client cannot make."""
        return {"Authorization": f"Bearer {self.key}"}


class Server:
    """The application on uvicorn, in a thread of the test process."""

    def __init__(self, settings: Settings) -> None:
        config = uvicorn.Config(create_app(settings), port=0, log_config=None, timeout_graceful_shutdown=settings.shutdown, ws="none")
        self.uvicorn = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.uvicorn.run, name="api")
        self.thread.start()
        while not self.uvicorn.started and self.thread.is_alive():
            self.thread.join(0.01)
        assert self.uvicorn.started
        host, port = self.uvicorn.servers[0].sockets[0].getsockname()
        self.url = f"http://{host}:{port}"

    def close(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


def upload(http: httpx.Client, data: bytes, purpose: str) -> str:
    """Send bytes; the id of the completed upload."""
    declared = {"purpose": purpose, "filename": "file", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    id: str = http.post("/v1/uploads", json=declared).raise_for_status().json()["id"]
    http.put(f"/v1/uploads/{id}/content", content=data).raise_for_status()
    return id


def weights(architecture: dict[str, Any] = TEACHER) -> bytes:
    """A state dict of zeros for an architecture, as safetensors."""
    shapes = measure(parse(architecture)).weights
    return save({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


def digits() -> DatasetReport:
    """What the inspection of a small dataset of digits reports."""
    return DatasetReport(
        input=(1, 8, 8),
        classes=10,
        class_names=tuple(str(digit) for digit in range(10)),
        counts={"train": 500, "test": 100},
        per_class={"train": (50,) * 10, "test": (10,) * 10},
        mean=(0.3,),
        std=(0.4,),
        range=(0.0, 1.0),
        dtype="uint8",
    )


def claim_of(database: Database, id: str) -> Claim:
    """Claim work as a worker would, until this job is the one."""
    while True:
        claim = life.claim(database, worker="wrk_test", queues=["cpu", "gpu"], lease=60)
        assert claim is not None, f"nothing to claim before {id}"
        if claim.job.id == id:
            return claim


def finished(
    database: Database,
    user: User,
    id: str,
    files: Mapping[tuple[str, str], bytes],
    *,
    result: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """End a job as a worker would, with files by their format and name."""
    blobs = Blobs(database, user.tenant)
    new = [
        life.NewArtifact(name=name, format=format, sha256=blobs.put([content]), bytes=len(content), facts=facts or {"top1_agreement": 1.0})
        for (format, name), content in files.items()
    ]
    assert life.complete(database, claim_of(database, id), result=result or {}, artifacts=new)


def inspected(database: Database, user: User, asset: dict[str, Any], *, report: dict[str, Any]) -> dict[str, Any]:
    """End an inspection as a worker would; the asset as it then reads."""
    claim = claim_of(database, asset["job"])
    canonical = Blobs(database, user.tenant).put([b"canonical"]) if asset["object"] == "dataset" else None
    assert life.complete(database, claim, result={"report": report}, canonical=canonical)
    ready: dict[str, Any] = user.http.get(f"/v1/{asset['object']}s/{asset['id']}").json()
    assert ready["status"] == "ready"
    return ready


def anatomy_report(architecture: dict[str, Any]) -> dict[str, Any]:
    """What the inspection of a network reports."""
    anatomy = measure(parse(architecture))
    return {"anatomy": anatomy.to_json(), "parameters": anatomy.parameters, "bytes": 4 * anatomy.parameters, "format": "safetensors"}


@dataclass(frozen=True, slots=True)
class Lab:
    """All that a job needs, ready."""

    teacher: str
    student: str
    dataset: str

    def spec(self, **more: Any) -> dict[str, Any]:
        """A small job."""
        return {
            "name": "digits",
            "teacher": self.teacher,
            "student": {"architecture": self.student},
            "dataset": {"id": self.dataset},
            "methods": [{"name": "kd"}],
            "recipe": {"epochs": 2, "batch_size": 50},
            **more,
        }


def equip(database: Database, user: User, *, teacher: dict[str, Any] = TEACHER, student: dict[str, Any] = STUDENT) -> Lab:
    """A teacher, a student's architecture and a dataset, all inspected."""
    http = user.http
    body: dict[str, Any] = {
        "name": "t",
        "upload": upload(http, weights(teacher), "teacher"),
        "architecture": teacher,
        "normalization": None,
    }
    tch = http.post("/v1/teachers", json=body).raise_for_status().json()
    arc = http.post("/v1/architectures", json={"name": "s", "architecture": student}).raise_for_status().json()
    body = {"name": "d", "upload": upload(http, b"npz", "dataset"), "format": "npz"}
    ds = http.post("/v1/datasets", json=body).raise_for_status().json()
    inspected(database, user, tch, report=anatomy_report(teacher))
    inspected(database, user, arc, report=anatomy_report(student))
    inspected(database, user, ds, report=digits().model_dump(mode="json"))
    return Lab(tch["id"], arc["id"], ds["id"])
