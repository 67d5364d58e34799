"""What a job spec names by its ids, found and ready: networks, datasets, weights, and the students of finished jobs in their place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.deps import Service
from api.findings import Finding
from api.problems import Problem, invalid
from core.anatomy import Anatomy
from db import assets, jobs, uploads
from db.access import Tenant
from db.assets import Asset
from db.life import Job
from db.states import TERMINAL, AssetKind

WEIGHTS = "model.safetensors"
"""The artifact of a job that holds its student's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network that a job is given: `described` as its job.json has it, `labels` the names of its outputs where somebody named them,
    `weights` the digest of its weights. It comes from an `asset`, or is the student of a finished `job`.
    """

    anatomy: Anatomy
    described: dict[str, Any]
    labels: Sequence[str] | None = None
    weights: str | None = None
    asset: Asset | None = None
    job: Job | None = None

    @property
    def place(self) -> str:
        """Where a job folder has a teacher: the weights of a family, or a whole model."""
        return "in/teacher.onnx" if self.anatomy.frozen else "in/teacher.safetensors"


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


def anatomy(asset: Asset) -> Anatomy:
    """What the inspection of a network measured."""
    return Anatomy.model_validate((asset.report or {})["anatomy"])


def described(asset: Asset) -> dict[str, Any]:
    """What a child is told of a network: what it is, how its inputs are normalised and, of a teacher, what its outputs are called."""
    told = {"architecture": asset.request["architecture"], "normalization": asset.request.get("normalization")}
    return {**told, "classes": asset.request.get("labels")} if asset.kind == "teacher" else told


def architecture(running: Service, tenant: Tenant, id: str, where: str) -> Network:
    """A network to train."""
    asset = ready(running, tenant, "architecture", id, where)
    return Network(anatomy=anatomy(asset), described=described(asset), asset=asset)


def teacher(running: Service, tenant: Tenant, id: str, where: str) -> Network:
    """A teacher of the user's own, or, by the id of a job, the student that it trained."""
    if id.startswith("job_"):
        return student_of(running, tenant, id, where)
    asset = ready(running, tenant, "teacher", id, where)
    told = described(asset)
    return Network(anatomy=anatomy(asset), described=told, labels=told["classes"], weights=asset.blob, asset=asset)


def student_of(running: Service, tenant: Tenant, id: str, where: str) -> Network:
    """The student of a finished job, with its weights. Its outputs are called as the classes that it was trained on."""
    job = _finished(running, tenant, id, where)
    task = job.inputs["task"]
    found = next((each for each in assets.list_artifacts(running.database, tenant, id) if each.name == WEIGHTS), None)
    if found is None:
        hint = 'clone it with "safetensors" among the exports'
        raise invalid([Finding(where, "not_found", f"the job {id} gave away no weights as safetensors", hint)])
    labels = (task["dataset"] or {}).get("class_names") or (task["teacher"] or {}).get("classes")
    return Network(
        anatomy=_measured(running, tenant, job, where),
        described={**task["student"], "classes": labels, "job": id},
        labels=labels,
        weights=found.sha256,
        job=job,
    )


def initial_weights(running: Service, tenant: Tenant, id: str, student: Anatomy | None) -> str:
    """The digest of the weights that a student starts from: an upload of its own, or what another job made. Whether they are of this
    `student`'s architecture is asked where that is known; of an upload the job's child knows first."""
    where = "/student/weights"
    if id.startswith("job_"):
        network = student_of(running, tenant, id, where)
        _same_weights(id, network.anatomy, student, where)
        return str(network.weights)
    if id.startswith("art_"):
        artifact = assets.get_artifact(running.database, tenant, id)
        if artifact is None:
            raise invalid([Finding(where, "not_found", f"there is no artifact {id}")])
        if artifact.name != WEIGHTS:
            raise invalid(
                [Finding(where, "invalid_input", f"the artifact {id} is {artifact.name}, no weights", f"the {WEIGHTS} of its job")]
            )
        return initial_weights(running, tenant, artifact.job, student)
    upload = uploads.get_upload(running.database, tenant, id)
    if upload is None:
        raise invalid([Finding(where, "not_found", f"there is no upload {id}")])
    if upload.status != "completed":
        raise Problem(
            409, f"the upload {id} is {upload.status}", code="not_ready", errors=[Finding(where, "not_ready", f"it is {upload.status}")]
        )
    return upload.sha256


def _finished(running: Service, tenant: Tenant, id: str, where: str) -> Job:
    job = jobs.get_job(running.database, tenant, id)
    if job is None or job.kind != "distil":
        raise invalid([Finding(where, "not_found", f"there is no job {id} with a student", "GET /v1/jobs lists yours")])
    if job.state == "succeeded":
        return job
    on_its_way = job.state not in TERMINAL
    raise Problem(
        409,
        f"the job {id} is {job.state}: it has no finished student",
        code="not_ready",
        hint="wait until it has succeeded" if on_its_way else "a job that succeeded, or a retry of this one",
        retryable=on_its_way,
        errors=[Finding(where, "not_ready", f"it is {job.state}")],
        more={"current_status": job.state},
    )


def _measured(running: Service, tenant: Tenant, job: Job, where: str) -> Anatomy:
    """A job's student as it was measured when the job was submitted; a job from before that was kept may still have its architecture."""
    kept = job.inputs.get("student")
    if kept is None:
        asset = assets.get_asset(running.database, tenant, job.spec["student"]["architecture"], kind="architecture")
        kept = (asset.report or {}).get("anatomy") if asset else None
    if kept is None:
        reason = f"the job {job.id} was submitted before the measurements of students were kept, and its architecture has been deleted"
        raise invalid([Finding(where, "not_kept", reason, "add its model.safetensors as a teacher")])
    return Anatomy.model_validate(kept)


def _same_weights(id: str, theirs: Anatomy, student: Anatomy | None, where: str) -> None:
    if student is None or theirs.weights == student.weights:
        return
    name = next(name for name in (*student.weights, *theirs.weights) if student.weights.get(name) != theirs.weights.get(name))
    ours, its = student.weights.get(name), theirs.weights.get(name)
    has = f"has {name!r} of {its}" if its else f"has no {name!r}"
    wants = f"one of {ours}" if ours else "none"
    reason = f"the student of {id} is another network: it {has}, and this architecture has {wants}"
    raise invalid([Finding(where, "invalid_input", reason, "the architecture of that job, or no weights")])
