"""No tenant meets another's: every route that takes an id, by every method, answers a stranger as if there were nothing."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from db import life
from db.blobs import Blobs
from db.life import NewArtifact
from db.session import Database
from tests.api.lab import User, claim_of, equip, upload

KINDS = {
    "uploads": "upload",
    "teachers": "teacher",
    "architectures": "student",
    "datasets": "dataset",
    "artifacts": "artifact",
    "jobs": "job",
    "sweeps": "sweep",
}

SENT: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/v1/jobs/{id}/exports"): {"json": {"formats": ["onnx"]}},
    ("post", "/v1/teachers/{id}/evaluate"): {"json": {"dataset": "ds_1"}},
    ("patch", "/v1/uploads/{id}/content"): {
        "headers": {"Upload-Offset": "0", "Upload-Complete": "?0", "Content-Type": "application/partial-upload"},
        "content": b"x",
    },
}
"""What is sent where a request is looked at before its id is."""


@pytest.fixture
def belongings(users: Callable[[str], User], database: Database) -> dict[str, str]:
    """One of everything, and all of it Ada's."""
    ada = users("ada")
    lab = equip(database, ada)
    job = ada.http.post("/v1/jobs", json=lab.spec()).json()["id"]
    claim = claim_of(database, job)
    digest = Blobs(database, ada.tenant).put([b"bytes"])
    life.complete(database, claim, result={}, artifacts=[NewArtifact(name="m", format="safetensors", sha256=digest, bytes=5, facts={})])
    [artifact] = ada.http.get(f"/v1/jobs/{job}/artifacts").json()["data"]
    sweep = {"base": lab.spec(), "space": {"recipe.optimizer.lr": {"choice": [0.1]}}}
    swept = ada.http.post("/v1/sweeps", json=sweep).json()["id"]
    ada.http.post(f"/v1/sweeps/{swept}/cancel").raise_for_status()  # so that nothing but a stranger could change it
    [key] = ada.http.get("/v1/api_keys").json()["data"]
    return {
        "uploads": upload(ada.http, b"x", "dataset"),
        "teachers": lab.teacher,
        "architectures": lab.student,
        "datasets": lab.dataset,
        "jobs": job,
        "artifacts": artifact["id"],
        "sweeps": swept,
        "api_keys": key["id"],
    }


def test_a_stranger_finds_nothing_at_any_route(users: Callable[[str], User], belongings: dict[str, str]) -> None:
    ada, eve = users("ada"), users("eve")
    before = {kind: [ada.http.get(f"/v1/{kind}/{id}").text for kind, id in belongings.items() if kind != "api_keys"] for kind in ("all",)}
    tried = 0
    for path, methods in eve.http.get("/openapi.json").json()["paths"].items():
        if "{id}" not in path:
            continue
        id = belongings[path.split("/")[2]]
        for method in methods:
            for headers in ({}, {"Accept": "text/event-stream"}):
                sent: dict[str, Any] = {"headers": headers} | SENT.get((method, path), {})
                answer = eve.http.request(method, path.replace("{id}", id), **sent)
                assert answer.status_code == 404, f"{method} {path}: {answer.status_code}"
                nothing = eve.http.request(method, path.replace("{id}", id[:-3] + "000"), **sent)
                assert nothing.status_code == 404
                if method != "head":
                    assert _told(answer, id) == _told(nothing, id[:-3] + "000"), path
                tried += 1
    assert tried > 40
    after = {kind: [ada.http.get(f"/v1/{kind}/{id}").text for kind, id in belongings.items() if kind != "api_keys"] for kind in ("all",)}
    assert after == before


def _told(answer: httpx.Response, id: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert problem["detail"].endswith(id)
    return {name: value for name, value in problem.items() if name not in {"request_id", "instance", "detail"}}


def test_a_strangers_lists_are_empty(users: Callable[[str], User], belongings: dict[str, str]) -> None:
    eve = users("eve")
    for kind in ("teachers", "architectures", "datasets", "jobs", "sweeps"):
        assert eve.http.get(f"/v1/{kind}").json()["data"] == []
        assert eve.http.get(f"/v1/{kind}", params={"after": belongings[kind]}).json()["data"] == []
    assert len(eve.http.get("/v1/api_keys").json()["data"]) == 1


def test_what_belongs_to_another_cannot_be_named_in_a_body(
    users: Callable[[str], User], belongings: dict[str, str], database: Database
) -> None:
    eve = users("eve")
    own = equip(database, eve)
    spec = own.spec()
    for change, pointer in (
        ({"teacher": belongings["teachers"]}, "/teacher"),
        ({"student": {"architecture": belongings["architectures"]}}, "/student/architecture"),
        ({"student": {"architecture": own.student, "weights": belongings["uploads"]}}, "/student/weights"),
        ({"student": {"architecture": own.student, "weights": belongings["artifacts"]}}, "/student/weights"),
        ({"dataset": {"id": belongings["datasets"]}}, "/dataset/id"),
        ({"teacher_dataset": {"id": belongings["datasets"]}}, "/teacher_dataset/id"),
    ):
        answer = eve.http.post("/v1/jobs", json={**spec, **change})
        assert answer.status_code == 422, answer.text
        assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [(pointer, "not_found")]
    answer = eve.http.post("/v1/datasets", json={"name": "d", "upload": belongings["uploads"], "format": "npz"})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "not_found")
    body = {"name": "t", "upload": upload(eve.http, b"x", "teacher"), "architecture": belongings["architectures"], "normalization": None}
    answer = eve.http.post("/v1/teachers", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/architecture")
    assert eve.http.get("/v1/jobs").json()["data"] == []
