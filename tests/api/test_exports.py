"""Exports of a finished student: a job of their own, its files with the student's, and formats that are there made once."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from db import garbage, jobs, life
from db.blobs import Blobs
from db.session import Database
from tests.api.lab import Lab, User, claim_of, finished

WEIGHTS = b"the weights of the student"
RESULT = {"test": {"accuracy": 0.9, "n": 100}, "teacher": {"accuracy": 0.95, "n": 100}}


@pytest.fixture
def student(http: httpx.Client, user: User, submitted: dict[str, Any], database: Database) -> str:
    """A job that succeeded and left its student as safetensors."""
    files = {("safetensors", "model.safetensors"): WEIGHTS, ("safetensors", "README.md"): b"# card\n"}
    finished(database, user, submitted["id"], files, result=RESULT)
    return str(submitted["id"])


@pytest.fixture
def ask(http: httpx.Client, student: str) -> Callable[..., httpx.Response]:
    """Asks for formats of the student."""
    return lambda *formats, **more: http.post(f"/v1/jobs/{student}/exports", json={"formats": formats}, **more)


def listed(http: httpx.Client, id: str) -> dict[str, tuple[str, str | None]]:
    """The status and the reason of every format of a student."""
    return {each["format"]: (each["status"], each["reason"]) for each in http.get(f"/v1/jobs/{id}/exports").json()["data"]}


def test_an_export_is_a_job_of_the_cpu_queue_that_has_all_it_needs(
    ask: Callable[..., httpx.Response], http: httpx.Client, user: User, student: str, database: Database
) -> None:
    answer = ask("onnx", "int8")
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert (job["kind"], job["parent"], job["status"]) == ("export", student, "queued")
    assert job["id"] not in [each["id"] for each in http.get("/v1/jobs").json()["data"]]
    row, source = jobs.get_job(database, user.tenant, job["id"]), jobs.get_job(database, user.tenant, student)
    assert row is not None
    assert source is not None
    assert row.queue == "cpu"
    given = source.inputs["blobs"]
    weights = Blobs(database, user.tenant).put([WEIGHTS])
    assert row.inputs["blobs"] == {
        "in/student.safetensors": weights,
        "in/dataset.safetensors": given["in/dataset.safetensors"],
        "in/teacher.safetensors": given["in/teacher.safetensors"],
    }
    task = row.inputs["task"]
    assert (task["kind"], task["formats"], task["test"], task["result"]) == (
        "export",
        ["onnx", "int8"],
        RESULT["test"],
        RESULT | {"exports": []},
    )
    assert task["files"]["model.safetensors"] == weights  # for the provenance
    for name in ("spec", "student", "teacher", "dataset"):
        assert task[name] == source.inputs["task"][name]


def test_its_files_stand_with_the_students_and_in_the_bundle(
    ask: Callable[..., httpx.Response], http: httpx.Client, user: User, student: str, database: Database
) -> None:
    before = http.head(f"/v1/jobs/{student}/bundle").headers["ETag"]
    job = ask("onnx").json()["id"]
    finished(database, user, job, {("onnx", "model.onnx"): b"graph", ("onnx", "README.md"): b"# card of onnx\n"})
    made = http.get(f"/v1/jobs/{student}/artifacts").json()["data"]
    assert {each["path"]: each["job"] for each in made} == {
        "README.md": student,
        "model.safetensors": student,
        "onnx/README.md": job,
        "model.onnx": job,
    }
    alone = http.get(f"/v1/jobs/{job}/artifacts").json()["data"]
    assert alone == [each for each in made if each["job"] == job]
    whole = http.get(f"/v1/jobs/{student}/bundle")
    assert set(zipfile.ZipFile(io.BytesIO(whole.content)).namelist()) == {
        "README.md", "model.safetensors", "onnx/README.md", "model.onnx", "SHA256SUMS",
    }  # fmt: skip
    stale = http.get(f"/v1/jobs/{student}/bundle", headers={"Range": "bytes=10-", "If-Range": before})
    assert (stale.status_code, stale.content) == (200, whole.content)


def test_the_documents_of_the_last_job_stand_in_the_bundle(
    ask: Callable[..., httpx.Response], http: httpx.Client, user: User, student: str, database: Database
) -> None:
    for format, card in (("onnx", b"# knows one\n"), ("int8", b"# knows both\n")):
        job = ask(format).json()["id"]
        finished(
            database, user, job, {(format, f"model.{format}"): b"graph", ("card", "README.md"): card, ("card", "SHA256SUMS"): b"some\n"}
        )
    read = zipfile.ZipFile(io.BytesIO(http.get(f"/v1/jobs/{student}/bundle").content))
    assert set(read.namelist()) == {
        "README.md", "safetensors/README.md", "model.safetensors", "model.onnx", "model.int8", "SHA256SUMS",
    }  # fmt: skip
    assert read.read("README.md") == b"# knows both\n"
    made = http.get(f"/v1/jobs/{student}/artifacts").json()["data"]
    assert sorted(str(each["path"]) for each in made if each["format"] == "card") == ["None", "None", "None", "README.md"]
    assert listed(http, student).keys() == {"safetensors", "onnx", "int8"}


def test_a_format_that_is_there_or_on_its_way_is_not_made_again(
    ask: Callable[..., httpx.Response], http: httpx.Client, user: User, student: str, database: Database
) -> None:
    there = ask("safetensors")
    assert (there.status_code, there.json()["id"]) == (200, student)
    first = ask("onnx", "safetensors", "onnx").json()
    assert first["spec"]["formats"] == ["onnx"]
    again = ask("onnx")
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    second = ask("onnx", "int8").json()
    assert second["spec"]["formats"] == ["int8"]
    finished(database, user, first["id"], {("onnx", "model.onnx"): b"graph"})
    assert ask("onnx").json()["id"] == first["id"]
    assert ask("onnx", "int8").json()["id"] == second["id"]  # the one that is still on its way
    assert listed(http, student) == {"safetensors": ("ready", None), "onnx": ("ready", None), "int8": ("processing", None)}


def test_a_repeated_request_is_one_job(ask: Callable[..., httpx.Response]) -> None:
    key = {"Idempotency-Key": "once"}
    first = ask("onnx", headers=key).json()["id"]
    assert ask("onnx", headers=key).json()["id"] == first
    assert ask("int8", headers=key).json()["code"] == "key_reused"


def test_a_format_that_differs_from_the_student_is_told_with_the_reason_and_may_be_asked_for_again(
    ask: Callable[..., httpx.Response], http: httpx.Client, user: User, student: str, database: Database
) -> None:
    facts = {"top1_agreement": 0.6, "n": 100}
    said: list[dict[str, Any]] = [
        {"format": "int8", "refused": "it agrees on 60 of 100", "facts": facts},
        {"format": "onnx", "refused": None, "facts": {"n": 1}},
    ]
    job = ask("onnx", "int8").json()["id"]
    finished(database, user, job, {("onnx", "model.onnx"): b"graph"}, result={"exports": said})
    told = {each["format"]: each for each in http.get(f"/v1/jobs/{student}/exports").json()["data"]}
    assert (told["int8"]["status"], told["int8"]["reason"], told["int8"]["facts"]) == ("rejected", "it agrees on 60 of 100", facts)
    assert (told["onnx"]["status"], told["onnx"]["facts"], told["onnx"]["job"]) == ("ready", {"n": 1}, job)
    again = ask("int8")
    assert again.status_code == 202
    row = jobs.get_job(database, user.tenant, again.json()["id"])
    assert row is not None
    assert row.inputs["task"]["result"]["exports"] == said  # for the model card
    assert row.inputs["task"]["files"].keys() >= {"model.safetensors", "model.onnx"}
    assert listed(http, student)["int8"] == ("processing", None)


def test_an_export_that_failed_says_why_and_its_retry_counts_as_its_students(
    ask: Callable[..., httpx.Response], http: httpx.Client, user: User, student: str, database: Database
) -> None:
    job = ask("onnx").json()["id"]
    problem = {"where": "/exports", "reason": "onnxruntime is not installed", "hint": "", "code": "invalid_input"}
    life.fail(database, claim_of(database, job), code="invalid_input", problem=problem)
    assert listed(http, student)["onnx"] == ("rejected", "onnxruntime is not installed")
    retried = http.post(f"/v1/jobs/{job}/retry").json()["id"]
    assert listed(http, student)["onnx"] == ("processing", None)
    finished(database, user, retried, {("onnx", "model.onnx"): b"graph"})
    assert listed(http, student)["onnx"] == ("ready", None)
    assert "model.onnx" in {each["path"] for each in http.get(f"/v1/jobs/{student}/artifacts").json()["data"]}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({"formats": ["onyx"]}, "/formats/0"), ({"formats": []}, "/formats"), ({}, "/formats"), ({"formats": ["onnx"], "x": 1}, "/x")],
)
def test_a_wrong_request_is_refused_by_its_field(body: dict[str, Any], pointer: str, http: httpx.Client, student: str) -> None:
    answer = http.post(f"/v1/jobs/{student}/exports", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    if pointer == "/formats/0":
        assert "safetensors" in answer.text
        assert "onnx" in answer.json()["hint"]


def test_a_job_that_has_no_student_yet_exports_none(http: httpx.Client, submitted: dict[str, Any]) -> None:
    answer = http.post(f"/v1/jobs/{submitted['id']}/exports", json={"formats": ["onnx"]})
    assert (answer.status_code, answer.json()["current_status"]) == (409, "queued")
    assert listed(http, submitted["id"]) == {"safetensors": ("processing", None)}


def test_an_export_is_not_exported(ask: Callable[..., httpx.Response], http: httpx.Client, student: str) -> None:
    job = ask("onnx").json()["id"]
    answer = http.post(f"/v1/jobs/{job}/exports", json={"formats": ["onnx"]})
    assert answer.status_code == 409
    assert student in answer.json()["hint"]


def test_a_job_that_left_no_safetensors_says_so(http: httpx.Client, user: User, submitted: dict[str, Any], database: Database) -> None:
    finished(database, user, submitted["id"], {("onnx", "model.onnx"): b"graph"})
    answer = http.post(f"/v1/jobs/{submitted['id']}/exports", json={"formats": ["int8"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_kept")
    assert "model.safetensors" in answer.json()["detail"]


def test_a_dataset_that_was_cleared_away_is_named(
    ask: Callable[..., httpx.Response], http: httpx.Client, lab: Lab, database: Database
) -> None:
    assert http.delete(f"/v1/datasets/{lab.dataset}").status_code == 204
    with database.begin() as tx:
        tx.execute(sa.text("UPDATE blob SET touched_at = 0"))
    assert garbage.collect(database, older=1) > 0
    answer = ask("onnx")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_kept")
    assert "dataset" in answer.json()["detail"]
    assert "dataset" in answer.json()["hint"]


def test_another_tenant_exports_nothing_of_it(users: Any, student: str) -> None:
    eve = users("eve").http
    assert eve.post(f"/v1/jobs/{student}/exports", json={"formats": ["onnx"]}).status_code == 404
    assert eve.get(f"/v1/jobs/{student}/exports").status_code == 404
