"""Teachers, architectures and datasets: each is made from what the user sent, and inspected by a worker before anything may use it."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response, status
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Caller
from api.deps import After, Id, Limit, Roomy, Running, Service
from api.findings import Finding
from api.named import ready
from api.named import teacher as named_teacher
from api.portrait import portrait
from api.problems import Problem, invalid, not_found
from api.queueing import queueing
from api.scores import evaluation
from api.shapes import AssetCard, JobCard, Listing, StageCard, TapCard, Taps, page, when
from core.errors import Refused
from core.frozen import FAMILY
from core.networks import Extent, parse
from db import assets, uploads
from db.access import Tenant
from db.assets import Asset
from db.states import AssetKind, Kind

router = APIRouter(prefix="/v1")

UploadId = Annotated[str, Field(max_length=64, description="a completed upload")]
_CONVERT = (
    "convert it yourself: `import torch, safetensors.torch as st; weights = torch.load('teacher.pth', weights_only=True); "
    "st.save_file({k: v.clone() for k, v in weights.items()}, 'teacher.safetensors')`; or its operator sets RETORT_CONVERT=isolated, here "
    "and for the workers"
)
Architecture = Annotated[dict[str, Any], Field(description="`family` and its hyper-parameters, flat: see /v1/architectures/catalog")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Normalization(_Part):
    """What a network does to its inputs first: (x - mean) / std, in the data's own units, one value for each channel."""

    mean: list[float] = Field(min_length=1, max_length=4096)
    std: list[Annotated[float, Field(gt=0)]] = Field(min_length=1, max_length=4096)


class _AssetRequest(_Part):
    name: str = Field(min_length=1, max_length=200)
    metadata: dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]] = Field(
        default_factory=dict, max_length=16, description="up to 16 texts of your own"
    )


class WeightsRequest(_Part):
    """How the tensors of a file are those of the architecture; what DataParallel and torch.compile put before names is known."""

    select: str | None = Field(None, max_length=256, description="which of several state dicts in a .pt file: `ema`, `teacher`")
    rename: dict[Annotated[str, Field(max_length=256)], Annotated[str, Field(max_length=256)]] = Field(
        default_factory=dict, max_length=256, description="{prefix: what stands in its place}; of several that fit, the longest, once"
    )


class TeacherRequest(_AssetRequest):
    """A trained network: its weights and what it is, or a whole ONNX model, which says so itself."""

    upload: UploadId
    format: Literal["safetensors", "torch", "onnx"] = Field(
        "safetensors", description="`torch` is a .pt or .pth file, which is converted first where the operator allows it"
    )
    architecture: Architecture | Annotated[str, Field(description="or the id of an architecture")] | None = Field(
        None, description="required but for `onnx`"
    )
    weights: WeightsRequest | None = Field(None, description="how the tensors of the file are those of the architecture")
    input: tuple[Extent, ...] | None = Field(
        None, min_length=1, max_length=3, description="the shape of one input, where an ONNX model leaves it open"
    )
    dataset: Annotated[str, Field(max_length=64)] | None = Field(None, description="a dataset on which the teacher is evaluated at once")
    normalization: Normalization | None = Field(description="required, because a wrong guess would ruin the teacher unseen; null for none")
    labels: list[Annotated[str, Field(max_length=200)]] | None = Field(
        None, max_length=100_000, description="the names of its outputs, in order"
    )


class EvaluationRequest(_Part):
    """On what a teacher is to be measured."""

    dataset: Annotated[str, Field(max_length=64, description="its test split is used")]
    label_map: dict[str, str | Annotated[int, Field(ge=0)]] | None = Field(
        None,
        min_length=1,
        max_length=100_000,
        description="which output, by label or number, answers for which class; equal names if left out",
    )


class ArchitectureRequest(_AssetRequest):
    """A network without weights, for students and teachers."""

    architecture: Architecture
    normalization: Normalization | None = None


class DatasetRequest(_AssetRequest):
    """Inputs, labelled or not: a zip of folders of images (train/class/image.png), arrays, Parquet with images, or a table as CSV."""

    upload: UploadId
    format: Literal["imagefolder", "npz", "safetensors", "parquet", "csv"]
    classes: int | None = Field(None, ge=2, le=100_000, description="checked against what the file holds")
    class_names: list[Annotated[str, Field(max_length=200)]] | None = Field(None, max_length=100_000)
    size: tuple[Extent, Extent] | None = Field(None, description="[height, width] that every image is brought to")
    layout: Literal["NHWC", "NCHW"] | None = Field(
        None, description="of images in .npz and safetensors, where their shape can be read both ways"
    )
    label: str | None = Field(None, min_length=1, max_length=200, description="the column of labels of Parquet and CSV")
    labelled: bool | None = Field(None, description="false for a set without labels, which serves transfer; left out, the data tells")


def card(asset: Asset) -> AssetCard:
    """An asset, as the API tells it."""
    return AssetCard(
        object=asset.kind,
        id=asset.id,
        name=asset.name,
        status=asset.status,
        problem=asset.problem,
        report=asset.report,
        parameters=(asset.report or {}).get("parameters"),
        bytes=asset.bytes,
        request=asset.request,
        metadata=asset.metadata,
        job=asset.job,
        created_at=when(asset.created_at),
    )


@router.post("/teachers", status_code=status.HTTP_202_ACCEPTED, dependencies=[Roomy], summary="Add a teacher", tags=["teachers"])
def create_teacher(running: Running, caller: Caller, body: TeacherRequest, response: Response) -> AssetCard:
    """A worker inspects the weights: `processing` becomes `ready`, or `rejected` with the reason."""
    architecture = _teachers_architecture(running, caller, body)
    request = {**_told(body), "architecture": architecture}
    blobs = _bytes(running, caller, body.upload, "teacher")
    if body.dataset is not None:
        data = ready(running, caller, "dataset", body.dataset, "/dataset")
        blobs["in/dataset.safetensors"] = str(data.blob)
    work: Kind = "convert" if body.format == "torch" else "inspect"
    return _create(running, caller, body, response, kind="teacher", request=request, blobs=blobs, work=work)


@router.post("/teachers/{id}/evaluate", status_code=status.HTTP_202_ACCEPTED, summary="Evaluate a teacher", tags=["teachers"])
def evaluate_teacher(running: Running, caller: Caller, id: Id, body: EvaluationRequest, response: Response) -> JobCard:
    """A job that measures it on the test split of a dataset; the one that did so before, where there is one."""
    if assets.get_asset(running.database, caller, id, kind="teacher") is None:
        raise not_found("teacher", id)
    teacher = named_teacher(running, caller, id, "")
    data = ready(running, caller, "dataset", body.dataset, "/dataset")
    job = evaluation(running, caller, teacher, data, body.label_map)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return portrait(running, caller, job)


def _teachers_architecture(running: Service, caller: Tenant, body: TeacherRequest) -> dict[str, Any]:
    if body.format == "torch" and running.settings.convert == "off":
        raise Refused("/format", "this service does not open PyTorch checkpoints: they are pickles, which can run code", hint=_CONVERT)
    if body.format == "onnx":
        for name in ("architecture", "weights"):
            if getattr(body, name) is not None:
                raise Refused(f"/{name}", f"an ONNX model says itself what it is: it takes no {name}", hint="leave it out")
        return {"family": FAMILY, "input": body.input}
    if body.input is not None:
        raise Refused("/input", "the architecture says the shape of the input", hint="leave it out")
    if body.weights is not None and body.weights.select is not None and body.format != "torch":
        raise Refused("/weights/select", "a safetensors file holds one state dict", hint="leave it out")
    if body.architecture is None:
        raise Refused("/architecture", "weights alone do not say what network they are of", hint="an architecture, or the id of one")
    if isinstance(body.architecture, str):
        found: dict[str, Any] = ready(running, caller, "architecture", body.architecture, "/architecture").request["architecture"]
        return found
    return parse(body.architecture).model_dump(mode="json")


@router.post(
    "/architectures", status_code=status.HTTP_202_ACCEPTED, dependencies=[Roomy], summary="Add an architecture", tags=["architectures"]
)
def create_architecture(running: Running, caller: Caller, body: ArchitectureRequest, response: Response) -> AssetCard:
    """A worker measures the network without weights: its parameters, its taps, its stages."""
    request = {**_told(body), "architecture": parse(body.architecture).model_dump(mode="json")}
    return _create(running, caller, body, response, kind="architecture", request=request, blobs={})


@router.post("/datasets", status_code=status.HTTP_202_ACCEPTED, dependencies=[Roomy], summary="Add a dataset", tags=["datasets"])
def create_dataset(running: Running, caller: Caller, body: DatasetRequest, response: Response) -> AssetCard:
    """A worker reads the file into one canonical form and reports what it found."""
    blobs = _bytes(running, caller, body.upload, "dataset")
    return _create(running, caller, body, response, kind="dataset", request=_told(body), blobs=blobs)


def _told(body: _AssetRequest) -> dict[str, Any]:
    """What the inspection is told: the body without what only the API needs, and without what was left out."""
    kept = {"normalization"} & body.model_fields_set
    told = body.model_dump(mode="json", exclude={"name", "upload", "metadata", "architecture"}, exclude_none=True)
    return {**dict.fromkeys(kept), **told}


def _bytes(running: Service, caller: Tenant, id: str, purpose: str) -> dict[str, str]:
    upload = uploads.get_upload(running.database, caller, id)
    if upload is None:
        raise invalid([Finding("/upload", "not_found", f"there is no upload {id}", "POST /v1/uploads makes one")])
    if upload.purpose != purpose:
        raise invalid([Finding("/upload", "wrong_purpose", f"this upload was declared for a {upload.purpose}, not for a {purpose}")])
    if upload.status != "completed":
        raise Problem(
            409,
            f"the upload {id} is {upload.status}",
            code="not_ready",
            hint=f"PUT its bytes to /v1/uploads/{id}/content first" if upload.status == "pending" else "declare a new upload",
            errors=[Finding("/upload", "not_ready", f"it is {upload.status}")],
            more={"current_status": upload.status},
        )
    return {"in/upload": upload.sha256}


def _create(
    running: Service,
    caller: Tenant,
    body: _AssetRequest,
    response: Response,
    *,
    kind: AssetKind,
    request: dict[str, Any],
    blobs: dict[str, str],
    work: Kind = "inspect",
) -> AssetCard:
    task = {"kind": work, "asset": kind, "request": request}
    with queueing():
        asset = assets.create_asset(
            running.database, caller, kind=kind, name=body.name, request=request, task=task, blobs=blobs, metadata=body.metadata,
            max_queued=running.settings.max_queued,
        )  # fmt: skip
    running.doorbell.ring(["cpu"])
    response.headers["Location"] = f"/v1/{kind}s/{asset.id}"
    return card(asset)


def _routes(kind: AssetKind) -> None:
    """The routes that the three kinds have in common."""
    path = f"/{kind}s"
    article = "an" if kind == "architecture" else "a"

    def found(running: Service, caller: Tenant, id: str) -> Asset:
        asset = assets.get_asset(running.database, caller, id, kind=kind)
        if asset is None:
            raise not_found(kind, id)
        return asset

    @router.get(path, summary=f"List the {kind}s", tags=[path[1:]], operation_id=f"list_{kind}s")
    def list_assets(running: Running, caller: Caller, limit: Limit = 20, after: After = None) -> Listing[AssetCard]:
        """The newest first."""
        rows = assets.list_assets(running.database, caller, kind=kind, limit=limit + 1, after=after)
        return page(rows, [card(row) for row in rows[:limit]], limit)

    @router.get(f"{path}/{{id}}", summary=f"Get {article} {kind}", tags=[path[1:]], operation_id=f"get_{kind}")
    def get_asset(running: Running, caller: Caller, id: Id, response: Response) -> AssetCard:
        """Its status, what the inspection found, or why it was rejected."""
        asset = found(running, caller, id)
        if asset.status == "processing":
            response.headers["Retry-After"] = "1"
        return card(asset)

    @router.delete(
        f"{path}/{{id}}",
        status_code=status.HTTP_204_NO_CONTENT,
        summary=f"Delete {article} {kind}",
        tags=[path[1:]],
        operation_id=f"delete_{kind}",
    )
    def delete_asset(running: Running, caller: Caller, id: Id) -> None:
        """Forget it. Jobs that were submitted with it go on."""
        found(running, caller, id)
        assets.delete_asset(running.database, caller, id)

    if kind == "dataset":
        return

    @router.get(f"{path}/{{id}}/taps", summary=f"List the taps of {article} {kind}", tags=[path[1:]], operation_id=f"list_{kind}_taps")
    def list_taps(running: Running, caller: Caller, id: Id) -> Taps:
        """The places inside the network that methods on features may name, in the order a forward pass meets them."""
        asset = found(running, caller, id)
        if asset.report is None:
            raise Problem(409, f"the {kind} {id} is {asset.status}", code="not_ready", more={"current_status": asset.status})
        anatomy = asset.report["anatomy"]
        return Taps(
            data=[TapCard(tap=tap, shape=shape) for tap, shape in anatomy["taps"]],
            stages=[StageCard(**stage) for stage in anatomy["stages"]],
        )


_KINDS: tuple[AssetKind, ...] = ("teacher", "architecture", "dataset")
for _kind in _KINDS:
    _routes(_kind)
