"""The student of a finished job goes on: as the next job's teacher, and as the weights that the next student starts from."""

from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from core.spec import JobSpec, identity
from db import life
from db.blobs import Blobs
from db.session import Database
from db.tables import job
from tests.api.lab import ONE_DATABASE, STUDENT, TEACHER, Lab, User, anatomy_report, claim_of, inspected, weights

pytestmark = ONE_DATABASE


def finish(database: Database, user: User, id: str, *, accuracy: float = 0.9, gives: str = "model.safetensors") -> str:
    """End a job as a worker would; the id of its artifact."""
    digest = Blobs(database, user.tenant).put([weights(STUDENT)])
    made = life.NewArtifact(name=gives, format="safetensors", sha256=digest, bytes=len(weights(STUDENT)), facts={})
    result = {"test": {"accuracy": accuracy, "n": 100}}
    assert life.complete(database, claim_of(database, id), result=result, artifacts=[made], canonical=None)
    [artifact] = user.http.get(f"/v1/jobs/{id}/artifacts").json()["data"]
    return str(artifact["id"])


def submit(http: httpx.Client, spec: dict[str, Any]) -> dict[str, Any]:
    answer = http.post("/v1/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


def errors(http: httpx.Client, spec: dict[str, Any], status: int = 422) -> list[dict[str, Any]]:
    answer = http.post("/v1/jobs", json=spec)
    assert answer.status_code == status, answer.text
    found: list[dict[str, Any]] = answer.json()["errors"]
    return found


def test_a_finished_student_teaches_the_next_one_and_that_the_one_after(
    http: httpx.Client, user: User, lab: Lab, database: Database
) -> None:
    first = submit(http, lab.spec())
    finish(database, user, first["id"])
    second = submit(http, lab.spec(teacher=first["id"], seed=1))
    claim = claim_of(database, second["id"])
    task, blobs = claim.job.inputs["task"], claim.job.inputs["blobs"]
    assert task["teacher"]["architecture"]["hidden"] == STUDENT["hidden"]
    assert (task["teacher"]["job"], task["teacher"]["classes"]) == (first["id"], [str(digit) for digit in range(10)])
    assert b"".join(Blobs(database, user.tenant).get(blobs["in/teacher.safetensors"])) == weights(STUDENT)
    assert second["spec"]["teacher"] == first["id"]
    assert identity(JobSpec.model_validate(second["spec"])) != identity(JobSpec.model_validate({**second["spec"], "teacher": lab.teacher}))
    life.fail(database, claim, code="diverged", problem={"where": "", "reason": "r", "hint": "", "code": "diverged"})
    again = http.post(f"/v1/jobs/{second['id']}/retry").json()
    finish(database, user, again["id"])
    third = submit(http, lab.spec(teacher=again["id"]))
    assert http.post(f"/v1/jobs/{third['id']}/clone", json={}).status_code == 201


def test_the_taps_of_a_finished_student_may_be_named(http: httpx.Client, user: User, lab: Lab, database: Database) -> None:
    first = submit(http, lab.spec())
    finish(database, user, first["id"])
    [error] = errors(http, lab.spec(teacher=first["id"], methods=[{"name": "fitnet", "pairs": [["nowhere", "linear1"]]}]))
    assert error["pointer"] == "/methods/0/pairs/0/0"
    pairs = http.get("/v1/pairs", params={"teacher": first["id"], "architecture": lab.student})
    assert pairs.status_code == 200, pairs.text


def test_a_job_that_has_not_succeeded_has_no_student_yet(http: httpx.Client, user: User, lab: Lab, database: Database) -> None:
    first = submit(http, lab.spec())
    for where, spec in {
        "/teacher": lab.spec(teacher=first["id"]),
        "/student/weights": lab.spec(student={"architecture": lab.student, "weights": first["id"]}),
    }.items():
        answer = http.post("/v1/jobs", json=spec)
        assert (answer.status_code, answer.json()["current_status"], answer.json()["retryable"]) == (409, "queued", True)
        assert [each["pointer"] for each in answer.json()["errors"]] == [where]
    http.post(f"/v1/jobs/{first['id']}/cancel")
    answer = http.post("/v1/jobs", json=lab.spec(teacher=first["id"])).json()
    assert (answer["current_status"], answer["retryable"]) == ("cancelled", False)


def test_another_tenants_job_and_an_inspection_are_no_teachers(
    http: httpx.Client, users: Any, user: User, lab: Lab, database: Database
) -> None:
    first = submit(http, lab.spec())
    finish(database, user, first["id"])
    inspection = http.get(f"/v1/teachers/{lab.teacher}").json()["job"]
    assert [error["code"] for error in errors(http, lab.spec(teacher=inspection))] == ["not_found"]
    stranger = errors(users("eve").http, lab.spec(teacher=first["id"]))
    assert ("/teacher", "not_found") in [(error["pointer"], error["code"]) for error in stranger]


@pytest.mark.parametrize("by", ["job", "artifact"])
def test_a_student_starts_from_the_weights_of_a_finished_job(http: httpx.Client, user: User, lab: Lab, database: Database, by: str) -> None:
    first = submit(http, lab.spec())
    artifact = finish(database, user, first["id"])
    given = first["id"] if by == "job" else artifact
    second = submit(http, lab.spec(student={"architecture": lab.student, "weights": given}))
    blobs = claim_of(database, second["id"]).job.inputs["blobs"]
    assert b"".join(Blobs(database, user.tenant).get(blobs["in/student.safetensors"])) == weights(STUDENT)


def test_weights_of_another_network_are_refused_by_the_first_that_differs(
    http: httpx.Client, user: User, lab: Lab, database: Database
) -> None:
    first = submit(http, lab.spec())
    finish(database, user, first["id"])
    asset = http.post("/v1/architectures", json={"name": "wide", "architecture": TEACHER}).json()
    wide = inspected(database, user, asset, report=anatomy_report(TEACHER))["id"]
    [error] = errors(http, lab.spec(student={"architecture": wide, "weights": first["id"]}))
    assert error["pointer"] == "/student/weights"
    assert "(4, 64)" in error["detail"]
    assert "(16, 64)" in error["detail"]


def test_what_is_no_weights_is_refused(http: httpx.Client, user: User, lab: Lab, database: Database) -> None:
    first = submit(http, lab.spec())
    artifact = finish(database, user, first["id"], gives="README.md")
    for given in (artifact, first["id"]):
        [error] = errors(http, lab.spec(student={"architecture": lab.student, "weights": given}))
        assert error["pointer"] == "/student/weights"
        assert "weights" in error["detail"]


def test_a_job_from_before_measurements_were_kept_needs_its_architecture(
    http: httpx.Client, user: User, lab: Lab, database: Database
) -> None:
    first = submit(http, lab.spec())
    finish(database, user, first["id"])
    with database.begin() as tx:
        inputs = dict(tx.execute(sa.select(job.c.inputs).where(job.c.id == first["id"])).scalar_one())
        del inputs["student"]
        tx.execute(sa.update(job).where(job.c.id == first["id"]).values(inputs=inputs))
    submit(http, lab.spec(teacher=first["id"]))
    asset = http.post("/v1/architectures", json={"name": "again", "architecture": STUDENT}).json()
    other = inspected(database, user, asset, report=anatomy_report(STUDENT))["id"]
    http.delete(f"/v1/architectures/{lab.student}")
    [error] = errors(http, lab.spec(teacher=first["id"], student={"architecture": other}))
    assert (error["pointer"], error["code"]) == ("/teacher", "not_kept")
