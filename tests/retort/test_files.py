"""`retort download` and `export`, against a service that says what a test wrote for it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retort.cli import run
from tests.retort.stage import Answer, Request, stage

JOB = {"id": "job_1", "name": "small", "status": "succeeded", "phase": None, "is_terminal": True}
LATENCY = [{"batch": 1, "p50_ms": 0.123, "p95_ms": 0.2, "n": 100}, {"batch": 32, "p50_ms": 1.5, "p95_ms": 1.75, "n": 100}]
ONNX = {"format": "onnx", "status": "ready", "reason": None, "job": "job_2",
        "facts": {"bytes": 12345, "top1_agreement": 1.0, "max_abs_diff": 2e-6, "accuracy": 0.95, "latency": LATENCY}}  # fmt: skip
INT8 = {"format": "int8", "status": "rejected", "reason": "it agrees on 60 of 100", "job": "job_2",
        "facts": {"top1_agreement": 0.6}}  # fmt: skip


def file(id: str, name: str, format: str, path: str | None, **more: Any) -> dict[str, Any]:
    content = id.encode()
    sha = hashlib.sha256(content).hexdigest()
    return {"id": id, "name": name, "format": format, "path": path, "bytes": len(content), "sha256": sha, **more}


FILES = [
    file("art_1", "README.md", "card", "README.md"),
    file("art_2", "SHA256SUMS", "card", None),
    file("art_3", "model.pt2", "torch_export", "model.pt2", warning="loading it unpickles"),
]


def service(exports: list[list[dict[str, Any]]] | None = None, files: list[dict[str, Any]] = FILES) -> Callable[[Request], Answer]:
    """A job, its files and its exports; these change from one look to the next."""
    left = exports or [[]]

    def play(request: Request) -> Answer:
        where = request.path.removeprefix("/v1/")
        if where.startswith("artifacts/"):
            return Answer(200, where.split("/")[1].encode(), "application/octet-stream")
        if where == "jobs/job_1/artifacts":
            return Answer(200, json.dumps({"data": files}).encode())
        if where == "jobs/job_1/exports" and request.method == "GET":
            return Answer(200, json.dumps({"data": left.pop(0) if len(left) > 1 else left[0]}).encode())
        job = {**JOB, "id": "job_2", "queue_reason": "no worker lives"} if request.method == "POST" else JOB
        return Answer(200, json.dumps(job).encode())

    return play


def call(play: Callable[[Request], Answer], *words: str) -> tuple[int, list[Request]]:
    with stage(play) as here:
        return run([*words, "--url", here.url, "--key", "k"]), here.requests


def test_all_files_of_a_job_come_with_their_sums_and_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = call(service(), "download", "job_1", "--to", str(tmp_path), "--json")
    told = capsys.readouterr()
    assert code == 0
    assert {each.name for each in tmp_path.iterdir()} == {"README.md", "model.pt2", "SHA256SUMS"}
    assert {Path(each["path"]).name for each in json.loads(told.out)["files"]} == {"README.md", "model.pt2", "SHA256SUMS"}
    assert (tmp_path / "SHA256SUMS").read_text().split() == [FILES[0]["sha256"], "README.md", FILES[2]["sha256"], "model.pt2"]
    assert "warning: model.pt2: loading it unpickles" in told.err


def test_the_files_of_one_format_come_alone(tmp_path: Path) -> None:
    assert call(service(), "download", "job_1", "--to", str(tmp_path), "--format", "torch_export")[0] == 0
    assert [each.name for each in tmp_path.iterdir()] == ["model.pt2"]


def test_a_format_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(service(), "download", "job_1", "--to", str(tmp_path), "--format", "onxx")[0] == 2
    told = capsys.readouterr().err
    assert "'onxx'" in told
    assert "card, torch_export" in told


def test_a_bundle_of_one_format_is_a_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    code, requests = call(service(), "download", "job_1", "--bundle", "--format", "onnx")
    assert (code, requests) == (2, [])
    assert "every format" in capsys.readouterr().err


def test_a_job_without_files_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(service(files=[]), "download", "job_1", "--bundle")[0] == 2
    assert "succeeded" in capsys.readouterr().err


def test_an_export_is_waited_for_and_told_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    going = {**ONNX, "status": "processing", "facts": {}}
    code, requests = call(service([[going], [ONNX, INT8]]), "export", "job_1", "onnx")
    told = capsys.readouterr()
    assert code == 0
    [asked] = [request for request in requests if request.method == "POST"]
    assert (asked.path, json.loads(asked.body)) == ("/v1/jobs/job_1/exports", {"formats": ["onnx"]})
    assert "idempotency-key" in asked.headers
    assert [request.path for request in requests].count("/v1/jobs/job_2") == 1
    for figure in ("12,345", "1.0000", "2e-06", "0.9500", "0.123, 0.2", "1.5, 1.75"):
        assert figure in told.out
    assert "int8" not in told.out
    assert "no worker lives" in told.err


def test_a_format_that_is_refused_ends_with_1_and_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(service([[ONNX, INT8]]), "export", "job_1", "onnx", "int8")[0] == 1
    told = capsys.readouterr().out
    assert "int8 is not offered: it agrees on 60 of 100" in told
    assert call(service([[ONNX, INT8]]), "export", "job_1", "int8", "--json")[0] == 1
    assert json.loads(capsys.readouterr().out)["data"] == [INT8]


def test_an_export_that_rests_is_not_waited_for_for_ever(capsys: pytest.CaptureFixture[str]) -> None:
    going = {**ONNX, "status": "processing", "facts": {}}
    assert call(service([[going]]), "export", "job_1", "onnx")[0] == 1
    assert "retort get job_1" in capsys.readouterr().out


def test_no_format_only_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, requests = call(service([[ONNX, INT8]]), "export", "job_1")
    assert code == 0
    assert {request.method for request in requests} == {"GET"}
    assert "onnx" in capsys.readouterr().out
