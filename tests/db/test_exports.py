"""Which formats of a student there are, and that nobody makes one twice."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from db import life
from db.access import Tenant, create_tenant
from db.assets import list_artifacts
from db.exports import create_export, list_exports
from db.life import Job, NewArtifact, TooManyQueued
from db.session import Database
from tests.db.given import PROBLEM, claimed, reread, running, submitted, uploaded


@pytest.fixture
def tenant(database: Database) -> Tenant:
    return create_tenant(database, "t")


def ends(db: Database, tenant: Tenant, claim: life.Claim, *formats: str, result: dict[str, Any] | None = None) -> Job:
    """The job after it succeeded with a file of each format."""
    blob = uploaded(db, tenant)
    made = [NewArtifact(name=f"model.{format}", format=format, sha256=blob, bytes=7, facts={"of": claim.job.id}) for format in formats]
    assert life.complete(db, claim, result=result or {}, artifacts=made)
    return reread(db, claim.job)


@pytest.fixture
def source(database: Database, tenant: Tenant) -> Job:
    """A job that left its student as safetensors."""
    return ends(database, tenant, running(database, tenant, spec={"exports": ["safetensors"]}), "safetensors")


def export(db: Database, tenant: Tenant, source: Job, *formats: str, **more: Any) -> tuple[Job, bool]:
    request: dict[str, Any] = {"task": {}, "blobs": {}, "max_queued": 9}
    return create_export(db, tenant, source, formats=formats, **request | more)


def test_eight_requests_at_once_make_one_job(connected: Callable[[], Database], tenant: Tenant, source: Job) -> None:
    databases = [connected() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda db: export(db, tenant, source, "onnx"), databases))
    assert len({job.id for job, _ in made}) == 1
    assert [is_new for _, is_new in made].count(True) == 1


def test_of_several_tries_the_one_that_is_ready_counts_else_the_last(database: Database, tenant: Tenant, source: Job) -> None:
    export(database, tenant, source, "onnx", "int8")
    first = ends(
        database, tenant, claimed(database), "onnx", result={"exports": [{"format": "int8", "refused": "it differs", "facts": {}}]}
    )
    export(database, tenant, source, "onnx", "int8")
    told = {each.format: (each.status, each.job == first.id) for each in list_exports(database, tenant, source)}
    assert told == {"safetensors": ("ready", False), "onnx": ("ready", True), "int8": ("processing", False)}
    ends(database, tenant, claimed(database), "int8")
    assert {each.format: each.status for each in list_exports(database, tenant, source)}["int8"] == "ready"


def test_what_is_ready_stays_so_when_an_older_try_is_repeated(database: Database, tenant: Tenant, source: Job) -> None:
    failed, _ = export(database, tenant, source, "onnx")
    life.cancel(database, tenant, failed.id)
    export(database, tenant, source, "onnx")
    done = ends(database, tenant, claimed(database), "onnx")
    assert life.retry_as_new(database, tenant, failed.id) is not None
    assert [(each.status, each.job) for each in list_exports(database, tenant, source) if each.format == "onnx"] == [("ready", done.id)]


def test_what_holds_an_export_up_is_told(database: Database, tenant: Tenant, source: Job) -> None:
    export(database, tenant, source, "onnx")
    assert life.retry(database, claimed(database), code="native_crash", problem=PROBLEM, backoff=0, max_crashes=1) == "quarantined"
    told = {each.format: (each.status, each.reason) for each in list_exports(database, tenant, source)}
    assert told["onnx"] == ("processing", PROBLEM["reason"])


def test_a_cancelled_export_is_told_as_rejected(database: Database, tenant: Tenant, source: Job) -> None:
    job, _ = export(database, tenant, source, "onnx")
    life.cancel(database, tenant, job.id)
    told = {each.format: (each.status, each.reason) for each in list_exports(database, tenant, source)}
    assert told["onnx"] == ("rejected", "the job is cancelled, without it")


def test_exports_count_among_the_jobs_that_wait(database: Database, tenant: Tenant, source: Job) -> None:
    submitted(database, tenant)
    with pytest.raises(TooManyQueued):
        export(database, tenant, source, "onnx", max_queued=1)
    with pytest.raises(KeyError):
        export(database, tenant, source, "onnx", blobs={"in/student.safetensors": "0" * 64})


def test_the_files_of_another_students_exports_are_not_among_ones_own(database: Database, tenant: Tenant, source: Job) -> None:
    other = ends(database, tenant, running(database, tenant), "safetensors")
    export(database, tenant, other, "onnx")
    ends(database, tenant, claimed(database), "onnx")
    assert [each.format for each in list_artifacts(database, tenant, source.id)] == ["safetensors"]
    assert [each.format for each in list_artifacts(database, tenant, other.id)] == ["safetensors", "onnx"]
    stranger = create_tenant(database, "s")
    assert list_artifacts(database, stranger, other.id) == []
