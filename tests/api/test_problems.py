"""Every error is a problem that says what is wrong, where, whose fault it is and what to try."""

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.settings import Settings
from db.session import Database
from tests.api.lab import ONE_DATABASE, Server, User

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id", "retryable", "hint", "fault", "errors"}


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The body of an answer that must be a problem of this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body.keys() >= MEMBERS
    assert body["status"] == status
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert body["instance"] == answer.request.url.path
    assert body["fault"] == ("system" if status >= 500 else "user")
    return body


@ONE_DATABASE
@pytest.mark.parametrize("key", [None, "_", "rt_nobody", "rt_00000000_" + "x" * 43, "x" * 5000, "\N{SNOWMAN}".encode()])
def test_without_a_valid_key_nothing_is_told(url: str, key: str | bytes | None) -> None:
    word = key if isinstance(key, bytes) else (key or "").encode()
    headers = {} if key is None else {b"Authorization": b"Bearer " + word}
    answer = httpx.get(f"{url}/v1/jobs", headers=headers, trust_env=False)
    body = problem(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "Authorization" in body["hint"]
    assert body["code"] == "unauthenticated"


@ONE_DATABASE
def test_the_key_is_asked_for_before_the_body_is_judged(url: str) -> None:
    problem(httpx.post(f"{url}/v1/jobs", json={"nonsense": 1}, trust_env=False), 401)


@ONE_DATABASE
def test_an_unknown_address_is_a_problem(http: httpx.Client) -> None:
    for path in ("/", "/v1", "/v2/jobs", "/v1/jobs/", "/v1/jobs/job_1/nothing"):
        assert problem(http.get(path), 404)["code"] == "not_found"


@ONE_DATABASE
@pytest.mark.parametrize("id", ["nonsense", "job_%00", "..%2f..", "job_" + "a" * 500, "job_1", "JOB_1", "job_1%27--"])
def test_an_id_that_cannot_be_is_not_found(http: httpx.Client, id: str) -> None:
    problem(http.get(f"/v1/jobs/{id}"), 404)


@ONE_DATABASE
def test_a_method_that_an_address_does_not_take_is_a_problem(http: httpx.Client) -> None:
    answer = http.patch("/v1/jobs")
    assert problem(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["Allow"] == "GET, POST"


@ONE_DATABASE
def test_a_body_that_is_too_large_is_refused_without_being_read(http: httpx.Client) -> None:
    problem(http.post("/v1/jobs", content=b" " * (1 << 20) + b"{}", headers={"Content-Type": "application/json"}), 413)


@ONE_DATABASE
def test_a_body_of_unknown_length_is_counted_as_it_comes(http: httpx.Client) -> None:
    chunks = (b" " * 65536 for _ in range(20))
    problem(http.post("/v1/jobs", content=chunks, headers={"Content-Type": "application/json"}), 413)


@ONE_DATABASE
def test_a_body_that_is_not_json_is_refused_by_its_type(http: httpx.Client) -> None:
    assert "application/json" in problem(http.post("/v1/jobs", data={"a": "b"}), 415)["hint"]
    problem(http.post("/v1/jobs", content=b"{}"), 415)


@ONE_DATABASE
def test_broken_json_is_told_with_its_place(http: httpx.Client) -> None:
    answer = http.post("/v1/jobs", content=b'{"name": }', headers={"Content-Type": "application/json"})
    assert "character 9" in problem(answer, 422)["detail"]


@ONE_DATABASE
def test_json_that_is_nested_too_deeply_is_refused(http: httpx.Client) -> None:
    deep = b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert "deep" in problem(http.post("/v1/jobs", content=deep, headers={"Content-Type": "application/json"}), 422)["detail"]


@ONE_DATABASE
@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "after=%00", "status=dead", "after=job_" + "a" * 99])
def test_a_query_that_makes_no_sense_is_refused(http: httpx.Client, query: str) -> None:
    body = problem(http.get(f"/v1/jobs?{query}"), 422)
    assert query.partition("=")[0] in body["detail"]


def test_a_database_that_cannot_be_reached_is_a_passing_fault_of_the_service(
    user: User, settings: Settings, database: Database, tmp_path: Path
) -> None:
    unreachable = "postgresql://nobody@127.0.0.1:1/none" if database.dialect == "postgresql" else f"sqlite:///{tmp_path}/no/such/folder.db"
    server = Server(settings.model_copy(update={"database_url": unreachable}))
    try:
        answer = httpx.get(f"{server.url}/v1/jobs", headers=user.headers, trust_env=False, timeout=30)
        body = problem(answer, 503)
    finally:
        server.close()
    assert int(answer.headers["Retry-After"]) > 0
    assert body["retryable"]
    assert body["code"] == "unavailable"


def test_a_defect_of_ours_is_logged_with_its_cause_and_not_told(
    settings: Settings, database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_defect(settings: Settings) -> FastAPI:
        app = create_app(settings)

        @app.get("/defect")
        def defect() -> None:
            raise ZeroDivisionError("a secret detail")

        return app

    monkeypatch.setattr("tests.api.lab.create_app", with_a_defect)
    server = Server(settings)
    try:
        answer = httpx.get(f"{server.url}/defect", trust_env=False)
    finally:
        server.close()
    body = problem(answer, 500)
    assert "secret" not in answer.text
    assert body["request_id"] in body["hint"]
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


@ONE_DATABASE
def test_a_wrong_parameter_is_not_laid_on_the_body(http: httpx.Client) -> None:
    body = problem(http.get("/v1/jobs?limit=0"), 422)
    assert body["detail"].startswith("the query parameter limit: ")
    body = problem(http.post("/v1/jobs", content=b"[]", headers={"Content-Type": "application/json"}), 422)
    assert body["detail"].startswith("the body: ")
