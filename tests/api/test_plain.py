"""The baseline that a student's gain is measured against: found where it was trained, for the job that is submitted and for its exports."""

from typing import Any

import httpx

from db import jobs
from db.session import Database
from tests.api.lab import Lab, User, finished

FILES = {("safetensors", "model.safetensors"): b"weights"}


def told(database: Database, user: User, id: str) -> Any:
    """The baseline that the job.json of a job holds."""
    row = jobs.get_job(database, user.tenant, id)
    assert row is not None
    return row.inputs["task"]["baseline"]


def test_a_job_and_its_exports_know_the_baseline_once_it_has_succeeded(
    http: httpx.Client, user: User, lab: Lab, submitted: dict[str, Any], database: Database
) -> None:
    assert told(database, user, submitted["id"]) is None
    plain = http.post(f"/v1/jobs/{submitted['id']}/baseline").json()["id"]
    early = http.post("/v1/jobs", json=lab.spec(seed=0, name="while the baseline waits")).json()["id"]
    assert told(database, user, early) is None
    finished(database, user, submitted["id"], FILES, result={"test": {"accuracy": 0.9, "n": 100}, "epochs": 2})
    finished(database, user, plain, FILES, result={"test": {"accuracy": 0.85, "n": 100}, "epochs": 2})
    expected = {"job": plain, "accuracy": 0.85, "n": 100, "seed": 0}
    late = http.post("/v1/jobs", json=lab.spec(name="after it")).json()["id"]
    assert told(database, user, late) == expected
    export = http.post(f"/v1/jobs/{submitted['id']}/exports", json={"formats": ["onnx"]}).json()["id"]
    assert told(database, user, export) == expected
    other = http.post("/v1/jobs", json=lab.spec(seed=1)).json()["id"]
    assert told(database, user, other) is None  # another seed is another baseline
