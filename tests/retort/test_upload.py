import hashlib
import json
import tracemalloc
from pathlib import Path

import httpx
import pytest

from retort import Client
from retort.errors import Misused
from tests.retort.stage import Answer, Request, stage


class Drain(httpx.BaseTransport):
    """Reads a body piece by piece and keeps none: a socket would do the same, but its server lives in this process and counts too."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        for _ in request.stream:
            pass
        card = {"id": "upl_1", "purpose": "dataset", "filename": "large", "bytes": 1, "sha256": "", "offset": 0, "status": "completed"}
        return httpx.Response(200, json=card)


class Vault:
    """Takes one upload; breaks the line after the bytes of the first `broken` attempts."""

    def __init__(self, *, broken: int = 0) -> None:
        self.broken = broken
        self.declared: dict[str, object] = {}
        self.status = "pending"
        self.digests: list[str] = []

    def __call__(self, request: Request) -> Answer:
        if request.method == "POST":
            self.declared = json.loads(request.body)
        elif request.method == "PUT":
            self.digests.append(hashlib.sha256(request.body).hexdigest())
            if self.status == "completed":
                return Answer(409, b'{"detail": "completed already"}')
            self.status = "completed"
            if self.broken:
                self.broken -= 1
                return Answer(hang_up=True)
        card = {**self.declared, "id": "upl_1", "offset": 0, "status": self.status}
        return Answer(200, json.dumps(card).encode())


def test_the_digest_is_declared_before_the_bytes_go(tmp_path: Path) -> None:
    file = tmp_path / "teacher.safetensors"
    file.write_bytes(bytes(range(256)) * 10_000)
    told: list[tuple[int, int]] = []
    vault = Vault()
    with stage(vault) as service:
        done = Client(service.url, key="k").upload(file, purpose="teacher", progress=lambda *each: told.append(each))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert vault.declared == {"purpose": "teacher", "filename": "teacher.safetensors", "bytes": 2_560_000, "sha256": digest}
    assert vault.digests == [digest]
    assert done.status == "completed"
    assert [request.method for request in service.requests] == ["POST", "PUT"]
    assert service.requests[1].headers["content-length"] == "2560000"
    assert told[-1] == (2_560_000, 2_560_000)
    assert len(told) == 3


def test_a_line_that_breaks_after_the_last_byte_does_not_fail_the_upload(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    file.write_bytes(b"abc")
    with stage(Vault(broken=1)) as service:
        assert Client(service.url, key="k").upload(file, purpose="dataset").status == "completed"
    assert [request.method for request in service.requests] == ["POST", "PUT", "PUT", "GET"]


def test_memory_stays_bounded_however_large_the_file(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as sparse:
        sparse.truncate(64 << 20)
    client = Client("http://127.0.0.1:1", key="k", transport=Drain())
    tracemalloc.start()
    client.upload(file, purpose="dataset")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_file_that_cannot_be_read_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(Misused, match=r"cannot read .*nothing: No such file"):
        Client("http://127.0.0.1:1", key="k").upload(tmp_path / "nothing", purpose="teacher")
