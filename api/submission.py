"""From a job spec to a row in the queue: find what it names, plan it, and only then write it down."""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import ValidationError

from api.deps import Service, need_room
from api.findings import Finding, findings
from api.problems import Problem, invalid, key_reused, not_kept, too_many_queued
from core.anatomy import Anatomy
from core.data.report import DatasetReport
from core.frozen import FAMILY
from core.plan import Plan, plan
from core.spec import DatasetRef, JobSpec, identity
from db import assets, life
from db.access import Tenant
from db.assets import Asset
from db.crashpoint import crashpoint
from db.life import Job
from db.states import AssetKind

QUEUES = {"auto": "any", "cuda": "gpu", "cpu": "cpu"}
"""The device of a spec, and the queue whose workers have it; every worker takes from "any"."""
_PLANNING = threading.Lock()
"""One plan at a time: it sets torch's generators, which the whole process shares, and readers must not wait behind many."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A job that was planned and may be queued: its job.json, and the blobs that lie beside it."""

    spec: JobSpec
    plan: Plan
    task: dict[str, Any]
    blobs: dict[str, str]


def draft(running: Service, tenant: Tenant, spec: JobSpec) -> Draft:
    """Plan a job with what it names. A Problem where something is not there or not ready, `Refused` where it does not fit together."""
    teacher = ready(running, tenant, "teacher", spec.teacher, "/teacher") if spec.teacher else None
    student = ready(running, tenant, "architecture", spec.student.architecture, "/student/architecture")
    dataset = ready(running, tenant, "dataset", spec.dataset.id, "/dataset/id")
    ref: DatasetRef | None = spec.teacher_dataset
    other = ready(running, tenant, "dataset", ref.id, "/teacher_dataset/id") if ref else None
    weights = spec.student.weights
    blobs = {
        teacher_path(teacher): teacher.blob if teacher else None,
        "in/dataset.safetensors": dataset.blob,
        "in/teacher_dataset.safetensors": other.blob if other else None,
        "in/student.safetensors": _weights(running, tenant, weights) if isinstance(weights, str) else None,
    }
    task = {
        "kind": "distil",
        "spec": spec.model_dump(mode="json"),
        "teacher": network(teacher) if teacher else None,
        "student": network(student),
        "dataset": _report(dataset),
        "teacher_dataset": _report(other) if other else None,
    }
    with _PLANNING, torch.device("meta"):
        planned = plan(
            spec,
            anatomy(teacher) if teacher else None,
            anatomy(student),
            dataset=DatasetReport.model_validate(_report(dataset)),
            teacher_dataset=DatasetReport.model_validate(_report(other)) if other else None,
            teacher_labels=teacher.request.get("labels") if teacher else None,
        )
    return Draft(spec, planned, task, {path: digest for path, digest in blobs.items() if digest})


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
    try:
        job = life.submit(
            running.database,
            tenant,
            name=spec.name,
            spec=drafted.task["spec"],
            spec_sha=identity(spec),
            inputs={"task": drafted.task, "blobs": drafted.blobs, "warnings": drafted.plan.warnings},
            queue=QUEUES[spec.device],
            seconds_limit=spec.limits.seconds,
            metadata=spec.metadata,
            idempotency=(key, fingerprint(act + spec.model_dump_json())) if key else None,
            trial=trial,
            max_queued=running.settings.max_queued,
        )
    except life.KeyReused as reused:
        raise key_reused(reused) from None
    except life.TooManyQueued as many:
        raise too_many_queued(many) from None
    except KeyError as gone:
        raise not_kept(gone) from None
    crashpoint("api.after_commit")
    running.doorbell.ring([job.queue])
    return job


def fingerprint(request: str) -> str:
    """What an idempotency key is remembered with: the same key for another request is refused."""
    return hashlib.sha256(request.encode()).hexdigest()


def ready(running: Service, tenant: Tenant, kind: AssetKind, id: str, where: str) -> Asset:
    """An asset whose inspection has passed; a Problem that points at `where` in the request for any other."""
    asset = assets.get_asset(running.database, tenant, id, kind=kind)
    if asset is None:
        raise invalid([Finding(where, "not_found", f"there is no {kind} {id}", f"GET /v1/{kind}s lists yours")])
    if asset.status == "ready":
        return asset
    reason = str((asset.problem or {}).get("reason", ""))
    raise Problem(
        409,
        f"the {kind} {id} is {asset.status}" + (f": {reason}" if reason else ""),
        code="not_ready",
        hint="wait until its inspection has passed" if asset.status == "processing" else "add it again, mended",
        retryable=asset.status == "processing",
        errors=[Finding(where, "not_ready", f"it is {asset.status}")],
        more={"current_status": asset.status},
    )


def _weights(running: Service, tenant: Tenant, id: str) -> str:
    """The digest of the weights that the student starts from: an upload of its own, or what another job made."""
    where = "/student/weights"
    if id.startswith("art_"):
        artifact = assets.get_artifact(running.database, tenant, id)
        if artifact is None:
            raise invalid([Finding(where, "not_found", f"there is no artifact {id}")])
        return artifact.sha256
    upload = assets.get_upload(running.database, tenant, id)
    if upload is None:
        raise invalid([Finding(where, "not_found", f"there is no upload {id}")])
    if upload.status != "completed":
        raise Problem(
            409, f"the upload {id} is {upload.status}", code="not_ready", errors=[Finding(where, "not_ready", f"it is {upload.status}")]
        )
    return upload.sha256


def network(asset: Asset) -> dict[str, Any]:
    """What a child is told of a network: what it is, how its inputs are normalised and, of a teacher, what its outputs are called."""
    described = {"architecture": asset.request["architecture"], "normalization": asset.request.get("normalization")}
    return {**described, "classes": asset.request.get("labels")} if asset.kind == "teacher" else described


def teacher_path(teacher: Asset | None) -> str:
    """Where a job folder has the teacher: weights of a family, or a whole model."""
    is_whole = teacher is not None and teacher.request["architecture"].get("family") == FAMILY
    return "in/teacher.onnx" if is_whole else "in/teacher.safetensors"


def anatomy(asset: Asset) -> Anatomy:
    """What the inspection of a network measured."""
    return Anatomy.model_validate(_report(asset)["anatomy"])


def _report(asset: Asset) -> dict[str, Any]:
    return asset.report or {}
