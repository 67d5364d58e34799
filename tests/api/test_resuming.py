"""Uploads that resume: an offset is told, kept, and gone on from; one sender at a time, on however many servers."""

import hashlib
import json
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from urllib.parse import urlsplit

import httpx
import pytest

from api.settings import Settings
from db.blobs import Blobs
from db.places import CHUNK
from db.session import Database, connect
from tests.api.lab import User
from tests.api.test_uploads import Slow, declare

DATA = random.Random(3).randbytes(5 * CHUNK + 4321)
TYPE = "application/partial-upload"
PATIENCE = 60.0


@pytest.fixture(params=["rows", "files"])
def place(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings without, and with, a directory of large blobs, and with senders that are given up soon."""
    changes = {"upload_beat": 0.2, "blobs": settings.data / "blobs" if request.param == "files" else None}
    return settings.model_copy(update=changes)


@pytest.fixture
def here(serve: Callable[[Settings], str], place: Settings, user: User) -> Iterator[httpx.Client]:
    """The user's client of a service in that place."""
    with httpx.Client(base_url=serve(place), headers=user.headers, timeout=PATIENCE, trust_env=False) as client:
        yield client


def patch(
    http: httpx.Client, id: str, offset: int, data: bytes, *, complete: bool = False, more: Mapping[str, str] | None = None
) -> httpx.Response:
    asked = {"Upload-Offset": str(offset), "Upload-Complete": f"?{int(complete)}", "Content-Type": TYPE, **(more or {})}
    return http.patch(f"/v1/uploads/{id}/content", content=data, headers=asked)


def head(http: httpx.Client, id: str) -> tuple[int, str]:
    """The kept offset, and whether it is complete."""
    answer = http.head(f"/v1/uploads/{id}/content")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (204, "no-store")
    assert answer.headers["Upload-Limit"].startswith("max-size=")
    return int(answer.headers["Upload-Offset"]), answer.headers["Upload-Complete"]


def cut(http: httpx.Client, user: User, id: str, *, offset: int, stop: int) -> None:
    """Announce all the rest, send bytes up to `stop`, and hang up in the middle once they are kept."""
    place = urlsplit(str(http.base_url))
    lines = {"Host": place.netloc, **user.headers, "Upload-Offset": offset, "Upload-Complete": "?1", "Content-Type": TYPE}
    lines["Content-Length"] = len(DATA) - offset
    request = f"PATCH /v1/uploads/{id}/content HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with socket.create_connection((place.hostname, place.port or 80), timeout=PATIENCE) as line:
        line.sendall(request.encode() + b"\r\n" + DATA[offset:stop])
        until(lambda: http.get(f"/v1/uploads/{id}").json()["offset"] == stop)


def until(holds: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def go_on(http: httpx.Client, id: str) -> httpx.Response:
    """Send the rest, as a client does: ask for the offset, and once more where the sender before was not gone yet."""
    deadline = time.monotonic() + PATIENCE
    while True:
        offset, _ = head(http, id)
        answer = patch(http, id, offset, DATA[offset:], complete=True)
        if answer.status_code not in (409, 423) or time.monotonic() > deadline:
            return answer
        time.sleep(0.02)


def stored(place: Settings, user: User, sha256: str) -> bytes:
    db = connect(place.database_url, directory=place.blobs)
    try:
        return b"".join(Blobs(db, user.tenant).get(sha256))
    finally:
        db.close()


def test_parts_are_kept_one_after_the_other_and_the_last_completes(here: httpx.Client, user: User, place: Settings) -> None:
    declared = declare(here, DATA)
    id = declared["id"]
    assert head(here, id) == (0, "?0")
    edges = [0, 1, CHUNK - 1, CHUNK + 7, 4 * CHUNK + 1, len(DATA)]
    for begin, end in pairwise(edges):
        last = end == len(DATA)
        answer = patch(here, id, begin, DATA[begin:end], complete=last)
        assert (answer.status_code, answer.headers["Upload-Offset"]) == (200 if last else 204, str(end)), answer.text
        assert answer.headers["Upload-Complete"] == f"?{int(last)}"
        assert head(here, id) == (end, f"?{int(last)}")
    assert answer.json()["status"] == "completed"
    assert stored(place, user, declared["sha256"]) == DATA


def test_a_declared_upload_tells_its_offset_and_limits(here: httpx.Client) -> None:
    body = {"purpose": "teacher", "filename": "f", "bytes": 9, "sha256": "0" * 64}
    headers = here.post("/v1/uploads", json=body).headers
    assert (headers["Upload-Offset"], headers["Upload-Complete"]) == ("0", "?0")
    assert headers["Upload-Limit"] == f"max-size={8 << 30}, max-age={7 * 86400}"


def test_what_came_before_a_line_was_cut_is_kept_also_the_started_mebibyte(here: httpx.Client, user: User, place: Settings) -> None:
    declared = declare(here, DATA)
    id, offset = declared["id"], 0
    for stop in (1000, CHUNK, CHUNK + 1, 3 * CHUNK - 5, 5 * CHUNK + 1):
        cut(here, user, id, offset=offset, stop=stop)
        until(lambda at=stop: patch(here, id, at, b"").status_code == 204)  # type: ignore[misc]
        offset = stop
    answer = patch(here, id, offset, DATA[offset:], complete=True)
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert stored(place, user, declared["sha256"]) == DATA


def test_a_whole_that_was_cut_off_is_gone_on_with(here: httpx.Client, user: User, place: Settings) -> None:
    declared = declare(here, DATA)
    id = declared["id"]

    def chunks() -> Iterator[bytes]:
        yield DATA[: 3 * CHUNK]
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        here.put(f"/v1/uploads/{id}/content", content=chunks(), headers={"Content-Length": str(len(DATA))})
    assert head(here, id)[0] <= 3 * CHUNK
    assert go_on(here, id).status_code == 200
    assert stored(place, user, declared["sha256"]) == DATA


def test_a_wrong_offset_is_answered_with_the_right_one(here: httpx.Client) -> None:
    id = declare(here, DATA)["id"]
    patch(here, id, 0, DATA[:10])
    for offset in (0, 9, 11):
        answer = patch(here, id, offset, b"x")
        problem = answer.json()
        assert (answer.status_code, answer.headers["Upload-Offset"]) == (409, "10")
        assert problem["type"] == "https://iana.org/assignments/http-problem-types#mismatching-upload-offset"
        assert (problem["expected-offset"], problem["provided-offset"]) == (10, offset)
    assert head(here, id) == (10, "?0")


def test_more_bytes_than_declared_are_refused_and_the_rest_is_kept(here: httpx.Client) -> None:
    id = declare(here, DATA)["id"]
    announced = patch(here, id, 0, DATA + b"x")
    assert (announced.status_code, announced.json()["code"]) == (422, "length_mismatch")
    assert announced.json()["type"] == "https://iana.org/assignments/http-problem-types#inconsistent-upload-length"
    assert head(here, id) == (0, "?0")

    def unannounced() -> Iterator[bytes]:
        yield DATA
        yield b"x"

    headers = {"Upload-Offset": "0", "Upload-Complete": "?0", "Content-Type": TYPE}
    answer = here.patch(f"/v1/uploads/{id}/content", content=unannounced(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "length_mismatch")
    assert here.post(f"/v1/uploads/{id}/complete").json()["status"] == "completed"


def test_an_end_before_the_declared_length_is_refused_and_what_came_is_kept(here: httpx.Client) -> None:
    id = declare(here, DATA)["id"]
    answer = patch(here, id, 0, DATA[:100], complete=True)
    assert (answer.status_code, answer.json()["code"], answer.headers["Upload-Offset"]) == (422, "length_mismatch", "100")
    assert here.post(f"/v1/uploads/{id}/complete").status_code == 422
    assert head(here, id) == (100, "?0")


@pytest.mark.parametrize("whole", [False, True])
def test_bytes_with_another_digest_fail_and_may_come_again_from_the_start(
    here: httpx.Client, user: User, place: Settings, *, whole: bool
) -> None:
    declared = declare(here, DATA)
    id = declared["id"]
    wrong = patch(here, id, 0, DATA[:-1] + b"x", complete=True)
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["Upload-Offset"]) == (422, "digest_mismatch", "0")
    card = here.get(f"/v1/uploads/{id}").json()
    assert (card["status"], card["failed"], card["offset"]) == ("pending", True, 0)
    assert head(here, id) == (0, "?0")
    again = here.put(f"/v1/uploads/{id}/content", content=DATA) if whole else patch(here, id, 0, DATA, complete=True)
    assert (again.status_code, again.json()["failed"]) == (200, False)
    assert stored(place, user, declared["sha256"]) == DATA


def test_a_completed_upload_takes_no_part_and_stays_completed(here: httpx.Client) -> None:
    id = declare(here, DATA)["id"]
    assert patch(here, id, 0, DATA, complete=True).status_code == 200
    answer = patch(here, id, len(DATA), b"", complete=True)
    assert (answer.status_code, answer.json()["code"]) == (409, "already_completed")
    assert answer.json()["type"] == "https://iana.org/assignments/http-problem-types#completed-upload"
    assert here.post(f"/v1/uploads/{id}/complete").json()["status"] == "completed"
    assert head(here, id) == (len(DATA), "?1")


def test_another_server_goes_on_where_the_first_was_and_reads_the_digest_of_what_it_did_not_see(
    here: httpx.Client, serve: Callable[[Settings], str], user: User, place: Settings
) -> None:
    declared = declare(here, DATA)
    patch(here, declared["id"], 0, DATA[: 2 * CHUNK + 5])
    with httpx.Client(base_url=serve(place), headers=user.headers, timeout=PATIENCE, trust_env=False) as there:
        assert head(there, declared["id"]) == (2 * CHUNK + 5, "?0")
        answer = patch(there, declared["id"], 2 * CHUNK + 5, DATA[2 * CHUNK + 5 :], complete=True)
        assert answer.json()["status"] == "completed", answer.text
    assert stored(place, user, declared["sha256"]) == DATA


def test_a_second_sender_waits_on_every_server_until_it_takes_over(
    here: httpx.Client, serve: Callable[[Settings], str], user: User, place: Settings
) -> None:
    first = Slow(user, str(here.base_url).rstrip("/"))
    with httpx.Client(base_url=serve(place), headers=user.headers, timeout=PATIENCE, trust_env=False) as there:
        time.sleep(5 * place.upload_beat)  # a sender that is silent for a while lives: it says so
        for server in (here, there):
            answer = patch(server, first.id, 0, b"other")
            assert (answer.status_code, answer.json()["code"]) == (423, "upload_busy")
        offset, _ = head(there, first.id)
        assert 0 < offset <= 12 << 20
        answer = patch(there, first.id, offset, first.data[offset:], complete=True)
        assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    evicted = first.finish()
    assert (evicted.status_code, evicted.json()["code"]) in ((409, "upload_evicted"), (409, "already_completed"))


def test_tus_senders_end_where_the_declared_length_is_reached(here: httpx.Client) -> None:
    id = declare(here, DATA)["id"]
    headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream", "Tus-Resumable": "1.0.0"}
    assert here.patch(f"/v1/uploads/{id}/content", content=DATA[:-1], headers=headers).status_code == 204
    headers["Upload-Offset"] = str(len(DATA) - 1)
    assert here.patch(f"/v1/uploads/{id}/content", content=DATA[-1:], headers=headers).json()["status"] == "completed"


@pytest.mark.parametrize(
    ("headers", "status", "named"),
    [
        ({"Content-Type": "application/json"}, 415, "application/partial-upload"),
        ({"Upload-Offset": "-1"}, 422, "upload-offset"),
        ({"Upload-Offset": "one"}, 422, "upload-offset"),
        ({"Upload-Complete": "1"}, 422, "upload-complete"),
        ({"Upload-Length": "1"}, 422, "declared were"),
    ],
)
def test_a_part_whose_headers_make_no_sense_is_refused_by_header(
    http: httpx.Client, headers: dict[str, str], status: int, named: str
) -> None:
    answer = patch(http, declare(http)["id"], 0, b"x", more=headers)
    assert (answer.status_code, named in json.dumps(answer.json()).lower()) == (status, True), answer.text


def test_a_part_without_a_word_on_the_end_is_refused(http: httpx.Client) -> None:
    headers = {"Upload-Offset": "0", "Content-Type": TYPE}
    answer = http.patch(f"/v1/uploads/{declare(http)['id']}/content", content=b"x", headers=headers)
    assert (answer.status_code, "Upload-Complete" in answer.json()["detail"]) == (400, True)


def test_pending_uploads_of_a_file_are_listed_by_its_digest(http: httpx.Client, users: Callable[[str], User]) -> None:
    first, other = declare(http, DATA), declare(http, b"other")
    digest = hashlib.sha256(DATA).hexdigest()
    found = http.get("/v1/uploads", params={"sha256": digest, "status": "pending"}).json()
    assert [one["id"] for one in found["data"]] == [first["id"]]
    assert [one["id"] for one in http.get("/v1/uploads").json()["data"]] == [other["id"], first["id"]]
    assert users("eve").http.get("/v1/uploads").json()["data"] == []
    patch(http, first["id"], 0, DATA, complete=True)
    assert http.get("/v1/uploads", params={"sha256": digest, "status": "pending"}).json()["data"] == []


def test_another_tenant_cannot_ask_send_or_complete(http: httpx.Client, users: Callable[[str], User], database: Database) -> None:
    id = declare(http, DATA)["id"]
    eve = users("eve").http
    assert eve.head(f"/v1/uploads/{id}/content").status_code == 404
    assert patch(eve, id, 0, DATA, complete=True).status_code == 404
    assert eve.post(f"/v1/uploads/{id}/complete").status_code == 404
    assert eve.delete(f"/v1/uploads/{id}").status_code == 404
    assert head(http, id) == (0, "?0")
