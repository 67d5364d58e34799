"""From a job spec to a row in the queue: find what it names, plan it, and only then write it down."""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import ValidationError

from api import named
from api.deps import Service, need_room
from api.findings import findings
from api.named import Network, initial_weights, ready
from api.plain import plain
from api.problems import Problems, invalid
from api.queueing import queueing
from api.scores import Score, score
from core.data.report import DatasetReport
from core.plan import Plan, plan
from core.spec import DatasetRef, JobSpec, identity
from db import life
from db.access import Tenant
from db.assets import Asset
from db.crashpoint import crashpoint
from db.life import Job

QUEUES = {"auto": "any", "cuda": "gpu", "cpu": "cpu"}
"""The device of a spec, and the queue whose workers have it; every worker takes from "any"."""
_PLANNING = threading.Lock()
"""One plan at a time: it sets torch's generators, which the whole process shares, and readers must not wait behind many."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A job that was planned and may be queued: its job.json, the blobs that lie beside it, and what it was planned from."""

    spec: JobSpec
    plan: Plan
    task: dict[str, Any]
    blobs: dict[str, str]
    teacher: Network | None
    student: Network
    dataset: Asset
    score: Score | None

    @property
    def warnings(self) -> list[str]:
        """What the person should know before the job runs."""
        return [*self.plan.warnings, *([self.score.warning] if self.score and self.score.warning else [])]


def draft(running: Service, tenant: Tenant, spec: JobSpec) -> Draft:
    """Plan a job with what it names. A Problem where something is not there or not ready, `Refused` where it does not fit together."""
    teacher = student = dataset = other = None
    weights, missing = None, Problems()
    if spec.teacher:
        with missing.gather():
            teacher = named.teacher(running, tenant, spec.teacher, "/teacher")
    with missing.gather():
        student = named.architecture(running, tenant, spec.student.architecture, "/student/architecture")
    with missing.gather():
        dataset = ready(running, tenant, "dataset", spec.dataset.id, "/dataset/id")
    ref: DatasetRef | None = spec.teacher_dataset
    if ref:
        with missing.gather():
            other = ready(running, tenant, "dataset", ref.id, "/teacher_dataset/id")
    if isinstance(spec.student.weights, str):
        with missing.gather():
            weights = initial_weights(running, tenant, spec.student.weights, student.anatomy if student else None)
    missing.check()
    assert student is not None
    assert dataset is not None
    blobs = {
        teacher.place if teacher else "in/teacher.safetensors": teacher.weights if teacher else None,
        "in/dataset.safetensors": dataset.blob,
        "in/teacher_dataset.safetensors": other.blob if other else None,
        "in/student.safetensors": weights,
    }
    task = {
        "kind": "distil",
        "spec": spec.model_dump(mode="json"),
        "teacher": teacher.described if teacher else None,
        "student": student.described,
        "dataset": dataset.report,
        "teacher_dataset": other.report if other else None,
    }
    with _PLANNING, torch.device("meta"):
        planned = plan(
            spec,
            teacher.anatomy if teacher else None,
            student.anatomy,
            dataset=DatasetReport.model_validate(dataset.report),
            teacher_dataset=DatasetReport.model_validate(other.report) if other else None,
            teacher_labels=teacher.labels if teacher else None,
        )
    task["baseline"] = plain(running, tenant, spec, planned.epochs)
    found = {path: digest for path, digest in blobs.items() if digest}
    return Draft(
        spec, planned, task, found, teacher, student, dataset, score(running, tenant, teacher, dataset, spec.label_map) if teacher else None
    )


def overridden(spec: Mapping[str, Any], overrides: Mapping[str, Any]) -> JobSpec:
    """The spec with the overrides merged in: a JSON merge patch (RFC 7386), in which null removes a field, so that its default holds, and
    a list is replaced whole. A Problem that names the fields where that is no job spec."""
    document = _merged(spec, overrides)
    try:
        return JobSpec.model_validate(document)
    except ValidationError as wrong:
        found = findings([{**each, "loc": ("body", *each["loc"])} for each in wrong.errors()], document, JobSpec)
        raise invalid([each if _holds(overrides, each.pointer) else replace(each, hint=_INHERITED) for each in found]) from None


_INHERITED = "the old job's spec has it: null in the overrides removes it"


def _holds(document: Any, pointer: str) -> bool:
    """Whether the overrides themselves say something at this place."""
    for part in pointer.split("/")[1:]:
        if not isinstance(document, Mapping):
            break
        if part not in document:
            return False
        document = document[part]
    return True


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def submit(
    running: Service, tenant: Tenant, drafted: Draft, *, key: str | None, act: str = "", trial: tuple[str, int] | None = None
) -> Job:
    """Queue a planned job and ring for a worker. With a `key` the same request twice is one job, where `act` says what else than the spec
    the request was; with `trial` = (sweep, number) it is that trial, or `life.NotTheNext`."""
    need_room(running)
    spec = drafted.spec
    with queueing():
        job = life.submit(
            running.database,
            tenant,
            name=spec.name,
            spec=drafted.task["spec"],
            spec_sha=identity(spec),
            inputs={
                "task": drafted.task,
                "blobs": drafted.blobs,
                "warnings": drafted.warnings,
                "student": drafted.student.anatomy.to_json(),
            },
            queue=QUEUES[spec.device],
            seconds_limit=spec.limits.seconds,
            metadata=spec.metadata,
            idempotency=(key, fingerprint(act + spec.model_dump_json())) if key else None,
            trial=trial,
            max_queued=running.settings.max_queued,
        )
    crashpoint("api.after_commit")
    running.doorbell.ring([job.queue])
    return job


def fingerprint(request: str) -> str:
    """What an idempotency key is remembered with: the same key for another request is refused."""
    return hashlib.sha256(request.encode()).hexdigest()
