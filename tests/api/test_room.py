"""When there is no room: what would be taken in is refused with 507, what is there can be read, and afterwards all is as before."""

import hashlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api.settings import Settings
from db.session import Database
from tests.api.lab import ONE_DATABASE, Lab, User
from tests.db.room import full

DATA = bytes(range(256)) * 8192


def _declaration(data: bytes = DATA) -> dict[str, Any]:
    return {"purpose": "teacher", "filename": "t.safetensors", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _refused(answer: httpx.Response) -> None:
    assert answer.status_code == 507, answer.text
    problem = answer.json()
    assert (problem["code"], problem["retryable"], problem["fault"]) == ("storage_full", True, "system")
    assert problem["hint"]
    assert int(answer.headers["Retry-After"]) > 0


def test_a_full_database_takes_no_bytes_and_takes_them_later(http: httpx.Client, database: Database, database_url: str) -> None:
    declared = http.post("/v1/uploads", json=_declaration()).json()
    with full(database_url):
        _refused(http.put(f"/v1/uploads/{declared['id']}/content", content=DATA))
        assert http.get(f"/v1/uploads/{declared['id']}").json()["status"] == "pending"
    assert http.put(f"/v1/uploads/{declared['id']}/content", content=DATA).json()["status"] == "completed"


@ONE_DATABASE
def test_below_the_least_free_space_nothing_is_taken_in_and_all_can_be_read(
    serve: Callable[[Settings], str], settings: Settings, lab: Lab, user: User
) -> None:
    short = serve(settings.model_copy(update={"min_free": 1 << 60}))
    with httpx.Client(base_url=short, headers=user.http.headers, timeout=30, trust_env=False) as http:
        _refused(http.post("/v1/jobs", json=lab.spec()))
        _refused(http.post("/v1/uploads", json=_declaration()))
        _refused(http.post("/v1/architectures", json={"architecture": {"family": "mlp", "hidden": [4], "input": [4], "classes": 2}}))
        assert http.post("/v1/jobs", params={"dry_run": True}, json=lab.spec()).status_code == 200
        assert http.get("/v1/jobs").json()["data"] == []
    assert user.http.post("/v1/jobs", json=lab.spec()).status_code == 201


@ONE_DATABASE
def test_an_upload_that_would_not_fit_is_refused_when_it_is_declared(
    serve: Callable[[Settings], str], settings: Settings, user: User
) -> None:
    large = serve(settings.model_copy(update={"max_upload": 1 << 60, "min_free": 0}))
    with httpx.Client(base_url=large, headers=user.http.headers, timeout=30, trust_env=False) as http:
        _refused(http.post("/v1/uploads", json={**_declaration(), "bytes": 1 << 52}))
        assert http.post("/v1/uploads", json=_declaration()).status_code == 201


@pytest.mark.parametrize("dialect", [pytest.param("postgresql", marks=pytest.mark.servers)])
def test_the_disk_of_a_server_is_not_judged_from_here(serve: Callable[[Settings], str], settings: Settings, lab: Lab, user: User) -> None:
    short = serve(settings.model_copy(update={"min_free": 1 << 60}))
    with httpx.Client(base_url=short, headers=user.http.headers, timeout=30, trust_env=False) as http:
        assert http.post("/v1/jobs", json=lab.spec()).status_code == 201
