"""Uploads: declared, streamed, checked, and repeatable until they are whole."""

import gc
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from api.settings import Settings
from db import uploads
from db.blobs import Blobs
from db.session import Database
from tests.api.lab import User, upload

DATA = b"bytes of a model" * 100_000


def declare(http: httpx.Client, data: bytes = DATA, **more: Any) -> dict[str, Any]:
    body = {"purpose": "teacher", "filename": "t.safetensors", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **more}
    answer = http.post("/v1/uploads", json=body)
    assert answer.status_code == 201, answer.text
    declared: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/v1/uploads/{declared['id']}"
    return declared


def test_declared_bytes_come_and_are_kept(http: httpx.Client, user: User, database: Database) -> None:
    declared = declare(http)
    assert (declared["object"], declared["status"], declared["offset"]) == ("upload", "pending", 0)
    answer = http.put(f"/v1/uploads/{declared['id']}/content", content=DATA)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["status"], answer.json()["offset"]) == ("completed", len(DATA))
    assert http.get(f"/v1/uploads/{declared['id']}").json() == answer.json()
    assert b"".join(Blobs(database, user.tenant).get(declared["sha256"])) == DATA


def test_a_completed_upload_takes_no_more_bytes(http: httpx.Client) -> None:
    id = upload(http, DATA, "teacher")
    answer = http.put(f"/v1/uploads/{id}/content", content=DATA)
    assert (answer.status_code, answer.json()["code"], answer.json()["current_status"]) == (409, "already_completed", "completed")


def test_a_deleted_upload_takes_no_bytes_and_makes_no_asset(http: httpx.Client) -> None:
    id = declare(http)["id"]
    assert http.delete(f"/v1/uploads/{id}").status_code == 204
    answer = http.put(f"/v1/uploads/{id}/content", content=DATA)
    assert (answer.status_code, answer.json()["code"], answer.json()["current_status"]) == (409, "already_cancelled", "cancelled")
    body = {"name": "t", "upload": id, "architecture": {"family": "mlp", "input": [4], "classes": 2}, "normalization": None}
    answer = http.post("/v1/teachers", json=body)
    assert (answer.status_code, answer.json()["hint"]) == (409, "declare a new upload")


def test_other_bytes_than_declared_are_refused_and_the_upload_can_be_repeated(http: httpx.Client, user: User, database: Database) -> None:
    declared = declare(http)
    wrong = b"x" * len(DATA)
    answer = http.put(f"/v1/uploads/{declared['id']}/content", content=wrong)
    assert (answer.status_code, answer.json()["code"]) == (422, "digest_mismatch")
    assert not Blobs(database, user.tenant).has(hashlib.sha256(wrong).hexdigest())
    assert http.get(f"/v1/uploads/{declared['id']}").json()["status"] == "pending"
    assert http.put(f"/v1/uploads/{declared['id']}/content", content=DATA).status_code == 200


def test_another_length_than_declared_is_refused(http: httpx.Client) -> None:
    declared = declare(http)
    answer = http.put(f"/v1/uploads/{declared['id']}/content", content=DATA[:-1])
    assert (answer.status_code, answer.json()["code"]) == (422, "length_mismatch")


def test_a_body_of_unknown_length_is_refused(http: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield DATA

    answer = http.put(f"/v1/uploads/{declare(http)['id']}/content", content=chunks())
    assert (answer.status_code, answer.json()["code"]) == (411, "length_required")


def test_a_sender_that_hangs_up_leaves_the_upload_pending(http: httpx.Client, user: User, database: Database) -> None:
    declared = declare(http)

    def chunks() -> Iterator[bytes]:
        yield DATA[: len(DATA) // 2]
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        http.put(f"/v1/uploads/{declared['id']}/content", content=chunks(), headers={"Content-Length": str(len(DATA))})
    answer = http.put(f"/v1/uploads/{declared['id']}/content", content=DATA)
    while answer.status_code == 423:  # the server has not yet noticed that the first sender is gone
        time.sleep(0.05)
        answer = http.put(f"/v1/uploads/{declared['id']}/content", content=DATA)
    assert answer.status_code == 200, answer.text


class Slow:
    """A sender in a thread of its own that stops in the middle of the bytes until it is told to go on."""

    data = bytes(16 << 20)

    def __init__(self, user: User, url: str) -> None:
        self.id = declare(user.http, self.data)["id"]
        self.url = f"{url}/v1/uploads/{self.id}/content"
        self.headers = {**user.headers, "Content-Length": str(len(self.data))}
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.answers: list[httpx.Response] = []
        self.thread = threading.Thread(target=self._send)
        self.thread.start()
        assert self.begun.wait(60)

    def finish(self) -> httpx.Response:
        self.go_on.set()
        self.thread.join(60)
        return self.answers[0]

    def _send(self) -> None:
        self.answers.append(httpx.put(self.url, content=self._chunks(), headers=self.headers, trust_env=False, timeout=60))

    def _chunks(self) -> Iterator[bytes]:
        yield self.data[: 12 << 20]  # more than all buffers on the way hold: when it is gone, the server is at it
        self.begun.set()
        self.go_on.wait(60)
        yield self.data[12 << 20 :]


def test_only_one_request_sends_an_upload_at_a_time(user: User, url: str) -> None:
    first = Slow(user, url)
    try:
        second = user.http.put(first.url, content=first.data)
        assert (second.status_code, second.json()["code"], second.json()["retryable"]) == (423, "upload_busy", True)
        assert user.http.delete(f"/v1/uploads/{first.id}").status_code == 423
    finally:
        assert first.finish().status_code == 200


def test_a_sender_that_falls_silent_is_given_up(serve: Callable[[Settings], str], settings: Settings, user: User) -> None:
    stalled = Slow(user, serve(settings.model_copy(update={"upload_idle": 0.3})))
    try:
        while (answer := user.http.put(stalled.url, content=stalled.data)).status_code == 423:
            time.sleep(0.05)
        assert answer.status_code == 200
    finally:
        given_up = stalled.finish()
    assert (given_up.status_code, given_up.json()["code"]) == (408, "timeout")


def test_an_upload_that_is_too_large_is_refused_before_its_bytes_come(
    serve: Callable[[Settings], str], settings: Settings, users: Callable[[str], User]
) -> None:
    ada = users("ada")
    small = serve(settings.model_copy(update={"max_upload": 1000}))
    body = {"purpose": "teacher", "filename": "f", "bytes": 1001, "sha256": "0" * 64}
    answer = ada.http.post(f"{small}/v1/uploads", json=body)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    declared = declare(ada.http)
    assert ada.http.put(f"{small}/v1/uploads/{declared['id']}/content", content=DATA).status_code == 413


@pytest.mark.parametrize(
    ("field", "value"),
    [("purpose", "virus"), ("bytes", 0), ("bytes", -1), ("bytes", 2**60), ("sha256", "XYZ"), ("filename", ""), ("more", 1)],
)
def test_a_declaration_that_makes_no_sense_is_refused_by_field(http: httpx.Client, field: str, value: Any) -> None:
    body = {"purpose": "teacher", "filename": "f", "bytes": 1, "sha256": "0" * 64, field: value}
    answer = http.post("/v1/uploads", json=body)
    assert answer.status_code == 422
    assert [each["pointer"] for each in answer.json()["errors"]] == [f"/{field}"]


def test_only_the_last_part_of_a_file_name_is_kept(http: httpx.Client) -> None:
    assert declare(http, filename="../../etc/passwd")["filename"] == "passwd"
    assert declare(http, filename="C:\\models\\t.bin")["filename"] == "t.bin"


def test_a_deleted_upload_takes_no_bytes(http: httpx.Client, user: User, database: Database) -> None:
    declared = declare(http)
    assert http.delete(f"/v1/uploads/{declared['id']}").status_code == 204
    assert http.put(f"/v1/uploads/{declared['id']}/content", content=DATA).status_code == 409
    found = uploads.get_upload(database, user.tenant, declared["id"])
    assert found is not None
    assert found.status == "cancelled"


def test_what_a_store_refused_of_an_evicted_sender_is_told_to_it_and_is_no_error_of_the_service(
    serve: Callable[[Settings], str], settings: Settings, user: User, caplog: pytest.LogCaptureFixture
) -> None:
    # It is looked for every two seconds whether the sender was evicted, and no batch is old enough then to be handed over.
    place = urlsplit(serve(settings.model_copy(update={"upload_beat": 60.0, "upload_idle": 4.0})))
    data = bytes(20 << 20)
    id = declare(user.http, data)["id"]
    lines = {"Host": place.netloc, **user.headers, "Content-Length": len(data)}
    request = f"PUT /v1/uploads/{id}/content HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    with socket.create_connection((place.hostname, place.port or 80), timeout=60) as line:
        line.sendall(request.encode() + data[: 5 << 20])
        deadline = time.monotonic() + 60
        while user.http.get(f"/v1/uploads/{id}").json()["offset"] < 4 << 20:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        user.http.head(f"/v1/uploads/{id}/content")
        line.sendall(data[5 << 20 : 9 << 20])
        assert b"upload_evicted" in line.recv(1 << 16)
    gc.collect()
    assert [record.getMessage() for record in caplog.records if "never retrieved" in record.getMessage()] == []
