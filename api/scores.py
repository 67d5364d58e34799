"""What is known of how well a teacher does on a dataset, and the job that finds it out."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.deps import Service
from api.named import Network
from api.queueing import queueing
from core.score import is_near_chance, warnings_of
from db import jobs, life
from db.access import Tenant
from db.assets import Asset
from db.life import Job

LabelMap = Mapping[str, str | int] | None


def teacher_score(running: Service, tenant: Tenant, teacher: Asset, dataset: Asset, label_map: LabelMap = None) -> dict[str, Any] | None:
    """The newest evaluation of a teacher on a dataset: {"accuracy", "loss", "n", "chance", "near_chance", "dataset", "split", "of"}, None
    where there was none. It is the one of its arrival, or that of an `evaluate` job, by content: of equal datasets one is enough.
    """
    on_arrival: dict[str, Any] = (teacher.report or {}).get("evaluation") or {}
    if label_map is None and on_arrival.get("dataset") == dataset.id:
        return on_arrival
    done = jobs.find_by_spec(running.database, tenant, _sha(teacher, dataset, label_map))
    if done is None or done.state != "succeeded":
        return None
    found: dict[str, Any] | None = (done.result or {}).get("evaluation")
    return found


def evaluation(running: Service, tenant: Tenant, teacher: Network, dataset: Asset, label_map: LabelMap = None) -> Job:
    """The job that evaluates a teacher on a dataset: the one that there is, unless it ended badly, or a new one."""
    assert teacher.asset is not None, "a teacher of one's own is an asset"
    sha = _sha(teacher.asset, dataset, label_map)
    if known := jobs.find_by_spec(running.database, tenant, sha):
        return known
    spec = {"teacher": teacher.asset.id, "dataset": dataset.id, "label_map": label_map}
    task = {"kind": "evaluate", **spec, "teacher": teacher.described}
    with queueing():
        job = life.submit(
            running.database,
            tenant,
            kind="evaluate",
            name=f"{teacher.asset.name} on {dataset.name}"[:200],
            spec=spec,
            spec_sha=sha,
            inputs={"task": task, "blobs": {teacher.place: teacher.weights, "in/dataset.safetensors": dataset.blob}},
            queue="cpu",
            priority=1,
            max_queued=running.settings.max_queued,
        )
    running.doorbell.ring([job.queue])
    return job


def _sha(teacher: Asset, dataset: Asset, label_map: LabelMap) -> str:
    """What an evaluation depends on: the bytes, and how inputs and outputs are read."""
    read = [teacher.request["architecture"], teacher.request.get("normalization"), teacher.request.get("labels"), label_map]
    depends = json.dumps(["evaluate", teacher.blob, dataset.blob, *read], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(depends.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Score:
    """What was measured, and what is to be said of it."""

    values: dict[str, Any]
    warning: str | None


def score(running: Service, tenant: Tenant, teacher: Network, dataset: Asset, label_map: LabelMap = None) -> Score | None:
    """The score of a job's teacher on its dataset, None where nobody measured it."""
    asset = teacher.asset
    found = teacher_score(running, tenant, asset, dataset, label_map) if asset else _of_job(teacher, dataset)
    if found is None:
        return None
    return Score(found, next(iter(warnings_of(found)), None))


def _of_job(teacher: Network, dataset: Asset) -> dict[str, Any] | None:
    """What a finished job measured of its own student, where it was tested on the same data."""
    job = teacher.job
    if job is None or job.inputs["blobs"].get("in/dataset.safetensors") != dataset.blob or job.spec["dataset"].get("classes"):
        return None
    test = (job.result or {}).get("test") or {}
    if "accuracy" not in test or "n" not in test:
        return None
    counts = (dataset.report or {})["per_class"]["test"]
    chance = max(counts) / sum(counts)
    return {
        "dataset": dataset.id, "split": "test", "accuracy": test["accuracy"], "n": test["n"], "chance": chance,
        "near_chance": is_near_chance(test["accuracy"], chance, test["n"]), "job": job.id,
    }  # fmt: skip
