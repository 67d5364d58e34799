"""What is known of how well a teacher does on a dataset, and the job that finds it out."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from api.deps import Service
from api.named import Network
from api.problems import not_kept, too_many_queued
from db import jobs, life
from db.access import Tenant
from db.assets import Asset
from db.life import Job

LabelMap = Mapping[str, str | int] | None


def teacher_score(running: Service, tenant: Tenant, teacher: Asset, dataset: Asset, label_map: LabelMap = None) -> dict[str, Any] | None:
    """The newest evaluation of a teacher on a dataset: {"accuracy", "loss", "n", "chance", "near_chance", "dataset", "split", "of"}, None
    where there was none. It is the one of its arrival, or that of an `evaluate` job, by content: of equal datasets one is enough.
    """
    found: dict[str, Any] | None
    if label_map is None:
        found = (teacher.report or {}).get("evaluation")
        if found and found["dataset"] == dataset.id:
            return found
    done = jobs.find_by_spec(running.database, tenant, _sha(teacher, dataset, label_map))
    if done is None or done.state != "succeeded":
        return None
    found = (done.result or {}).get("evaluation")
    return found


def evaluation(running: Service, tenant: Tenant, teacher: Network, dataset: Asset, label_map: LabelMap = None) -> Job:
    """The job that evaluates a teacher on a dataset: the one that there is, unless it ended badly, or a new one."""
    assert teacher.asset is not None, "a teacher of one's own is an asset"
    sha = _sha(teacher.asset, dataset, label_map)
    if known := jobs.find_by_spec(running.database, tenant, sha):
        return known
    spec = {"teacher": teacher.asset.id, "dataset": dataset.id, "label_map": label_map}
    task = {"kind": "evaluate", **spec, "teacher": teacher.described}
    try:
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
    except life.TooManyQueued as many:
        raise too_many_queued(many) from None
    except KeyError as gone:
        raise not_kept(gone) from None
    running.doorbell.ring([job.queue])
    return job


def _sha(teacher: Asset, dataset: Asset, label_map: LabelMap) -> str:
    """What an evaluation depends on: the bytes, and how inputs and outputs are read."""
    read = [teacher.request.get("normalization"), teacher.request.get("labels"), label_map]
    depends = json.dumps(["evaluate", teacher.blob, dataset.blob, *read], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(depends.encode()).hexdigest()
