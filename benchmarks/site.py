"""An API with a store of its own, for a measurement, and bare lines to it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from db import access, garbage
from db.access import Tenant
from db.session import Database, connect
from migrations.schema import upgrade
from tests.servers import free_port, start_postgres


@dataclass(frozen=True, slots=True)
class Site:
    """One store, and the API that serves it."""

    environment: dict[str, str]
    database: Database
    tenant: Tenant
    key: str
    log: Path

    @property
    def port(self) -> int:
        """Where the API listens."""
        return int(self.environment["RETORT_PORT"])

    @contextmanager
    def api(self) -> Iterator[subprocess.Popen[bytes]]:
        """The API as a process, once it answers."""
        with process([sys.executable, "-m", "api"], self.port, self.log, env=self.environment) as started:
            yield started

    def client(self) -> httpx.Client:
        """A client with the key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=600, trust_env=False)

    def declare(self, size: int, digest: str) -> str:
        """The id of a new upload."""
        asked = {"purpose": "dataset", "filename": "big", "bytes": size, "sha256": digest}
        with self.client() as client:
            return str(client.post("/v1/uploads", json=asked).raise_for_status().json()["id"])

    def forget(self) -> None:
        """Nothing of what came is left."""
        with self.client() as client:
            for each in client.get("/v1/uploads", params={"limit": 100}).json()["data"]:
                client.delete(f"/v1/uploads/{each['id']}")
        garbage.collect(self.database, older=-1)


@contextmanager
def site(store: str, folder: Path) -> Iterator[Site]:
    """A store with a tenant in it. PostgreSQL is the tests' own, which does not sync to disk; the directory stands beside SQLite."""
    with ExitStack() as stack:
        folder.mkdir()
        url = stack.enter_context(start_postgres(folder)) if store == "postgresql" else f"sqlite:///{folder / 'retort.db'}"
        database = connect(url, directory=folder / "blobs" if store == "directory" else None)
        stack.callback(database.close)
        upgrade(database)
        tenant = access.create_tenant(database, "bench")
        environment = {
            "PATH": os.environ["PATH"], "RETORT_DATABASE_URL": url, "RETORT_BROKER_URL": f"filesystem://{folder / 'broker'}",
            "RETORT_DATA": str(folder / "data"), "RETORT_PORT": str(free_port()),
        }  # fmt: skip
        if database.directory is not None:
            environment["RETORT_BLOBS"] = str(database.directory)
        yield Site(environment, database, tenant, access.create_key(database, tenant, name="bench"), folder / "api.log")


@contextmanager
def process(words: list[str], port: int, log: Path, *, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A server, once it listens; killed at the end."""
    with log.open("ab") as file:
        started = subprocess.Popen(words, env=env, stdout=file, stderr=file)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if started.poll() is not None:
                    raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}") from None
                time.sleep(0.05)
        yield started
    finally:
        started.kill()
        started.wait()


def begin(place: Site, id: str, offset: int, size: int) -> socket.socket:
    """A line on which the rest of an upload was announced."""
    line = socket.create_connection(("127.0.0.1", place.port))
    told = {
        "Host": "127.0.0.1", "Authorization": f"Bearer {place.key}", "Content-Type": "application/partial-upload",
        "Content-Length": size - offset, "Upload-Offset": offset, "Upload-Complete": "?1",
    }  # fmt: skip
    words = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    line.sendall(f"PATCH /v1/uploads/{id}/content HTTP/1.1\r\n{words}\r\n".encode())
    return line


def answer(line: socket.socket) -> bytes:
    """The beginning of the answer; RuntimeError where it is a refusal."""
    head = line.recv(65536)
    if head.split(b" ", 2)[1][:1] != b"2":
        raise RuntimeError(head.decode(errors="replace"))
    return head
