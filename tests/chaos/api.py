"""The API of a laboratory as a process, and a client that asks again until it knows, as ours do."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from db.access import create_key
from tests.api.lab import User, equip
from tests.chaos import toy
from tests.chaos.lab import PATIENCE, Lab, Process, until
from tests.servers import free_port

COMMAND = (sys.executable, "-m", "api")


class Api:
    """One port, on which an API is started again and again. The jobs that it plans are then done by the toy child."""

    def __init__(self, lab: Lab, **started: Any) -> None:
        self.lab = lab
        self.port = free_port()
        key = create_key(lab.database, lab.tenant, name="chaos")
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {key}"}, timeout=httpx.Timeout(PATIENCE)
        )
        self.process = self.start(**started)
        lab.clear()  # nobody but `equip` may take the inspections: the toy cannot read what they are about
        self.assets = equip(lab.database, User(self.http, lab.tenant, key))

    def start(self, *, command: Sequence[str] = COMMAND, crash: str | None = None, **chosen: Any) -> Process:
        """Start the API, with `crash` armed to die at that crash point; `chosen` are settings."""
        urls = {"database_url": self.lab.database_url, "broker_url": self.lab.broker_url}
        settings = {
            **urls,
            "data": self.lab.folder / "api",
            "port": self.port,
            "worker_living": 5,
            "shutdown": 1,
            "upload_beat": 0.2,
            **chosen,
        }
        (self.lab.folder / "api").mkdir(exist_ok=True)
        named = {f"RETORT_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = started = self.lab.start(f"api{self.lab.number('api')}", command, named, crash=crash)

        def answers() -> bool:
            assert started.alive, (self.lab.folder / f"{started.name}.log").read_text()
            try:
                return self.http.get("/livez").status_code == 200
            except httpx.TransportError:
                return False

        until(answers)
        return started

    def kill(self) -> None:
        """SIGKILL."""
        self.lab.kill(self.process)

    def body(self, key: str) -> dict[str, Any]:
        """A job without a teacher, under the name of its key."""
        return {
            "name": key, "student": {"architecture": self.assets.student}, "dataset": {"id": self.assets.dataset}, "methods": [],
            "recipe": {"epochs": 2, "batch_size": 50}, "seed": self.lab.number("seed"),
        }  # fmt: skip

    def submit(self, body: dict[str, Any]) -> str | None:
        """Send a job once, with its name as the key; its id, or None where no answer came."""
        try:
            answer = self.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": body["name"]})
        except httpx.TransportError:
            return None
        assert answer.status_code == 201, f"{answer.status_code}: {answer.text}"
        id: str = answer.json()["id"]
        return self.lab.accept(id, steps=toy.STEPS, sha256=toy.reference(body["seed"], toy.STEPS), key=body["name"])

    def insist(self, body: dict[str, Any]) -> str:
        """Send a job until an answer comes."""
        return until(lambda: self.submit(body))

    def stop(self) -> None:
        """Let go of the port; no fault, and not in the log."""
        self.lab.end(self.process)
        self.http.close()


@contextmanager
def api(lab: Lab, **started: Any) -> Iterator[Api]:
    """The API of a laboratory, for a while; `started` as `Api.start` takes it."""
    opened = Api(lab, **started)
    try:
        yield opened
    finally:
        opened.stop()
