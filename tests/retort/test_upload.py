import hashlib
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from retort import Client
from retort.errors import ApiError, Misused, Unreachable
from tests.retort.stage import Answer, Request, stage


class Drain(httpx.BaseTransport):
    """Reads a body piece by piece and keeps none: a socket would do the same, but its server lives in this process and counts too."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        for _ in request.stream:
            pass
        if request.method == "GET":
            return httpx.Response(200, json={"data": [], "has_more": False})
        card = {"id": "upl_1", "purpose": "dataset", "filename": "f", "bytes": 64 << 20, "sha256": "", "offset": 0, "status": "completed"}
        return httpx.Response(200, json=card, headers={"Upload-Offset": "0", "Upload-Complete": "?0"})


class Vault:
    """Takes uploads; of each PATCH only as many bytes as `takes` says, if it says so still, and then breaks the line."""

    def __init__(self, *takes: int) -> None:
        self.takes = list(takes)
        self.uploads: list[dict[str, Any]] = []
        self.kept = b""
        self.refuses: list[Answer] = []

    def __call__(self, request: Request) -> Answer:
        card = self.uploads[-1] if self.uploads else {}
        if request.method == "POST":
            self.kept = b""
            self.uploads.append({**json.loads(request.body), "id": f"upl_{len(self.uploads)}", "status": "pending", "offset": 0})
            return Answer(201, json.dumps(self.uploads[-1]).encode())
        if request.method == "GET" and "?" in request.path:
            asked = dict(parse_qsl(urlsplit(request.path).query))
            data = [each for each in self.uploads if (each["sha256"], each["status"]) == (asked["sha256"], asked["status"])]
            return Answer(200, json.dumps({"data": data, "has_more": False}).encode())
        if request.method == "GET":
            return Answer(200, json.dumps(card).encode())
        told = {"Upload-Offset": str(card["offset"]), "Upload-Complete": f"?{int(card['status'] == 'completed')}"}
        if request.method == "HEAD":
            return Answer(204, headers=told)
        return self.refuses.pop(0) if self.refuses else self._take(request, card)

    def _take(self, request: Request, card: dict[str, Any]) -> Answer:
        assert request.headers["upload-offset"] == str(card["offset"])
        assert request.headers["content-type"] == "application/partial-upload"
        taken = self.takes.pop(0) if self.takes else None
        self.kept += request.body[:taken]
        card["offset"] = len(self.kept)
        if card["offset"] == card["bytes"] and hashlib.sha256(self.kept).hexdigest() != card["sha256"]:
            card["offset"], self.kept = 0, b""
            return Answer(422, b'{"code": "digest_mismatch"}')
        card["status"] = "completed" if card["offset"] == card["bytes"] else "pending"
        return Answer(hang_up=True) if taken is not None else Answer(200, json.dumps(card).encode())


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between two attempts."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


def written(folder: Path, data: bytes) -> Path:
    file = folder / "teacher.safetensors"
    file.write_bytes(data)
    return file


DATA = bytes(range(256)) * 10_000


def test_the_digest_is_declared_before_the_bytes_go(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    vault = Vault()
    with stage(vault) as service:
        done = Client(service.url, key="k").upload(written(tmp_path, DATA), purpose="teacher", progress=lambda *each: told.append(each))
    declared = {"purpose": "teacher", "filename": "teacher.safetensors", "bytes": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}
    assert declared.items() <= vault.uploads[0].items()
    assert vault.kept == DATA
    assert done.status == "completed"
    assert [request.method for request in service.requests] == ["GET", "POST", "HEAD", "PATCH"]
    assert service.requests[3].headers["content-length"] == str(len(DATA))
    assert told[-1] == (len(DATA), len(DATA))
    assert len(told) == 4


def test_a_broken_line_is_gone_on_with_from_the_kept_offset(tmp_path: Path) -> None:
    told: list[int] = []
    vault = Vault(1000, 0, 1 << 20)
    with stage(vault) as service:
        Client(service.url, key="k").upload(written(tmp_path, DATA), purpose="teacher", progress=lambda done, _all: told.append(done))
    offsets = [int(request.headers["upload-offset"]) for request in service.requests if request.method == "PATCH"]
    assert offsets == [0, 1000, 1000, 1000 + (1 << 20)]
    assert vault.kept == DATA
    assert told[-1] == len(DATA)
    assert {0, *offsets} <= set(told)


def test_a_line_that_breaks_after_the_last_byte_does_not_fail_the_upload(tmp_path: Path) -> None:
    with stage(Vault(3)) as service:
        assert Client(service.url, key="k").upload(written(tmp_path, b"abc"), purpose="dataset").status == "completed"
    assert [request.method for request in service.requests] == ["GET", "POST", "HEAD", "PATCH", "HEAD", "GET"]


def test_the_same_file_again_goes_on_with_the_pending_upload(tmp_path: Path) -> None:
    vault = Vault(*[700] + [0] * 9)
    file = written(tmp_path, DATA)
    with stage(vault) as service:
        client = Client(service.url, key="k")
        with pytest.raises(Unreachable):
            client.upload(file, purpose="teacher")
        assert client.upload(file, purpose="teacher").id == "upl_0"
    assert (len(vault.uploads), vault.kept) == (1, DATA)
    assert service.requests[-1].headers["upload-offset"] == "700"


def test_a_pending_upload_for_another_purpose_is_left_alone(tmp_path: Path) -> None:
    vault = Vault()
    other = {"id": "x", "status": "pending", "purpose": "dataset", "bytes": 1, "offset": 0}
    vault.uploads.append({**other, "sha256": hashlib.sha256(b"a").hexdigest()})
    with stage(vault) as service:
        Client(service.url, key="k").upload(written(tmp_path, b"a"), purpose="teacher")
    assert len(vault.uploads) == 2


def test_what_an_earlier_attempt_sent_wrong_is_sent_again_from_the_start(tmp_path: Path) -> None:
    vault = Vault(700)
    file = written(tmp_path, DATA)
    with stage(vault) as service:
        client = Client(service.url, key="k")
        client.upload(file, purpose="teacher")
        vault.uploads[0] |= {"status": "pending", "offset": 700}
        vault.kept = bytes(700)
        assert client.upload(file, purpose="teacher").status == "completed"
    assert vault.kept == DATA


@pytest.mark.parametrize("changed", [b"x" * 30, b"x"])
def test_a_file_that_changes_while_it_is_sent_is_the_callers_mistake(tmp_path: Path, changed: bytes) -> None:
    file = written(tmp_path, b"y" * 30)

    class Meddling(Vault):
        def __call__(self, request: Request) -> Answer:
            if request.method == "HEAD":
                file.write_bytes(changed)
            return super().__call__(request)

    with stage(Meddling()) as service, pytest.raises(Misused, match="while it was sent"):
        Client(service.url, key="k").upload(file, purpose="teacher")


def test_a_sender_who_is_in_the_way_is_waited_for_and_a_refusal_is_told(tmp_path: Path) -> None:
    vault = Vault()
    refused = {"upload_busy": 423, "upload_evicted": 409, "storage_full": 507}
    vault.refuses = [Answer(status, json.dumps({"code": code}).encode()) for code, status in refused.items()]
    file = written(tmp_path, b"abc")
    with stage(vault) as service:
        client = Client(service.url, key="k")
        with pytest.raises(ApiError) as told:
            client.upload(file, purpose="teacher")
        assert told.value.code == "storage_full"
        assert client.upload(file, purpose="teacher").status == "completed"


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


@pytest.mark.parametrize(("name", "said"), [("nothing", "cannot read .*nothing: No such file"), ("empty", "empty is empty")])
def test_a_file_that_cannot_be_sent_is_the_callers_mistake(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(Misused, match=said):
        Client("http://127.0.0.1:1", key="k").upload(tmp_path / name, purpose="teacher")
