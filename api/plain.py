"""What the same student scored without a teacher, where that was trained: what a gain is measured against."""

from typing import Any

from api.deps import Service
from core.spec import JobSpec, baseline, identity
from db import jobs
from db.access import Tenant


def plain(running: Service, tenant: Tenant, spec: JobSpec, epochs: int) -> dict[str, Any] | None:
    """The figures of a job's baseline, {"job", "accuracy", "n", "seed"}, if one has succeeded; `epochs` are those of all fits together."""
    if not spec.methods:
        return None
    found = jobs.find_by_spec(running.database, tenant, identity(baseline(spec, epochs)))
    test = (found.result or {}).get("test") or {} if found is not None and found.state == "succeeded" else {}
    if found is None or test.get("accuracy") is None:
        return None
    return {"job": found.id, "accuracy": test["accuracy"], "n": test.get("n"), "seed": found.spec.get("seed", 0)}
