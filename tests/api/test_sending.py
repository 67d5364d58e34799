"""Conditions and ranges of a download, with the answers that RFC 9110 gives for a file of ten bytes."""

import base64
import hashlib
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request, Response
from starlette.testclient import TestClient

from api import problems
from api.gate import Gate
from api.sending import Representation, send

DATA = b"0123456789"
TAG = '"v1"'


@pytest.fixture(scope="module")
def http() -> Iterator[TestClient]:
    """A service with two files: one of ten bytes, and one of none."""
    app = FastAPI()
    problems.install(app)

    def file(content: bytes) -> Representation:
        digest = hashlib.sha256(content).hexdigest()
        return Representation("a file.bin", "application/x-test", "v1", len(content), digest, lambda a, b: iter([content[a:b]]))

    @app.api_route("/ten", methods=["GET", "HEAD"])
    def ten(request: Request) -> Response:
        return send(request, file(DATA))

    @app.get("/none")
    def none(request: Request) -> Response:
        return send(request, file(b""))

    app.add_middleware(Gate, max_body=1 << 20, max_depth=20)
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(
    ("asked", "body", "content_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=0-", DATA, "bytes 0-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", DATA, "bytes 0-9/10"),
        ("bytes=9-99999999999999999999", b"9", "bytes 9-9/10"),
        ("BYTES= 2-4 ", b"234", "bytes 2-4/10"),
    ],
)
def test_a_range_is_sent_alone_and_says_which_it_is(asked: str, body: bytes, content_range: str, http: TestClient) -> None:
    answer = http.get("/ten", headers={"Range": asked})
    assert (answer.status_code, answer.content, answer.headers["Content-Range"]) == (206, body, content_range)
    assert (answer.headers["Content-Length"], answer.headers["ETag"]) == (str(len(body)), TAG)


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-12", "bytes=99999999999999999999-", "bytes=-0"])
def test_a_range_behind_the_end_is_refused_with_the_size(asked: str, http: TestClient) -> None:
    answer = http.get("/ten", headers={"Range": asked})
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */10")
    assert (answer.json()["code"], answer.json()["fault"]) == ("range_not_satisfiable", "user")


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,4-5",
        "bytes=0-0,-1",
        "bytes=" + ",".join(f"{i}-{i}" for i in range(5000)),
        "bytes=" + "0" * 100 + "-",
        "bytes=4-2",
        "bytes=-",
        "bytes=a-b",
        "bytes=٣-",
        "bytes",
        "items=0-1",
        "",
    ],
)
def test_several_ranges_or_none_that_can_be_read_get_the_whole(asked: str, http: TestClient) -> None:
    answer = http.get("/ten", headers=[(b"range", asked.encode())])
    assert (answer.status_code, answer.content) == (200, DATA)
    assert "Content-Range" not in answer.headers


def test_two_range_headers_get_the_whole(http: TestClient) -> None:
    assert http.get("/ten", headers=[("Range", "bytes=0-1"), ("Range", "bytes=4-5")]).content == DATA


@pytest.mark.parametrize(
    ("condition", "status"),
    [(TAG, 206), ('"v0"', 200), ('W/"v1"', 200), ("Wed, 21 Oct 2026 07:28:00 GMT", 200), ("v1", 200)],
    ids=["the same", "another", "a weak one", "a date", "no tag"],
)
def test_a_range_of_another_version_is_not_sent(condition: str, status: int, http: TestClient) -> None:
    answer = http.get("/ten", headers={"Range": "bytes=5-", "If-Range": condition})
    assert (answer.status_code, answer.content) == (status, DATA[5:] if status == 206 else DATA)


def test_a_range_behind_the_end_of_another_version_gets_the_whole(http: TestClient) -> None:
    assert http.get("/ten", headers={"Range": "bytes=50-", "If-Range": '"v0"'}).content == DATA


@pytest.mark.parametrize("given", [TAG, f'"v0", {TAG}', f"W/{TAG}", "*", f' "v0" ,{TAG} '])
def test_who_has_the_bytes_need_not_fetch_them(given: str, http: TestClient) -> None:
    for answer in (
        http.get("/ten", headers={"If-None-Match": given, "Range": "bytes=0-1"}),
        http.head("/ten", headers={"If-None-Match": given}),
    ):
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", TAG)


def test_who_has_other_bytes_gets_these(http: TestClient) -> None:
    assert http.get("/ten", headers={"If-None-Match": '"v0", "v1x"'}).content == DATA


def test_a_look_says_what_the_download_would_and_knows_no_ranges(http: TestClient) -> None:
    look, whole = http.head("/ten", headers={"Range": "bytes=2-4"}), http.get("/ten")
    assert (look.status_code, look.content) == (200, b"")
    for name in ("ETag", "Content-Length", "Content-Type", "Content-Disposition", "Accept-Ranges", "Repr-Digest", "Cache-Control"):
        assert look.headers[name] == whole.headers[name]
    assert whole.headers["Accept-Ranges"] == "bytes"


def test_the_digest_of_the_whole_comes_with_every_part(http: TestClient) -> None:
    expected = f"sha-256=:{base64.b64encode(hashlib.sha256(DATA).digest()).decode()}:"
    assert http.get("/ten").headers["Repr-Digest"] == http.get("/ten", headers={"Range": "bytes=-1"}).headers["Repr-Digest"] == expected


def test_an_empty_file_has_no_ranges(http: TestClient) -> None:
    assert http.get("/none").content == b""
    assert http.get("/none", headers={"Range": "bytes=-5"}).status_code == 200
    first = http.get("/none", headers={"Range": "bytes=0-"})
    assert (first.status_code, first.headers["Content-Range"]) == (416, "bytes */0")
