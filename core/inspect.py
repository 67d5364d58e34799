"""Look into what a person uploaded, in a child process: the weights of a teacher, an architecture, a dataset."""

from pathlib import Path
from typing import Any

import torch

from core.anatomy import Anatomy, measure
from core.artifacts import load_into, read_header
from core.blobs import digest_of
from core.data import ingest
from core.data.preview import write_preview
from core.errors import Refused
from core.events import File, Inspected, Phase, Result
from core.networks import Family, parse
from core.taps import Tapped
from core.wire import Wire


def inspect(folder: Path, task: dict[str, Any], wire: Wire) -> None:
    """Do the inspection that a task names and tell what was found. Raises Refused with a pointer into the person's request."""
    wire.tell(Phase("inspect"))
    request = dict(task["request"])
    match task["asset"]:
        case "dataset":
            found = _dataset(folder, request, wire)
        case "teacher":
            found = _teacher(folder / "in" / "upload", request)
        case "architecture":
            _, anatomy = _architecture(request)
            found = Inspected({"anatomy": anatomy.to_json(), "parameters": anatomy.parameters})
        case other:
            raise ValueError(f"there is no asset {other!r}")
    wire.pulse("inspected")
    wire.tell(found)
    wire.tell(Result({}))


def _architecture(request: dict[str, Any]) -> tuple[Family, Anatomy]:
    family = parse(request.get("architecture"))
    return family, measure(family, normalization=request.get("normalization"))


def _teacher(upload: Path, request: dict[str, Any]) -> Inspected:
    read_header(upload)
    family, anatomy = _architecture(request)
    labels = request.get("labels")
    if labels is not None and len(labels) != anatomy.classes:
        raise Refused("/labels", f"there are {len(labels)} labels, the teacher has {anatomy.classes} outputs")
    if labels is not None and len(set(labels)) != len(labels):
        raise Refused("/labels", "two classes have the same label", hint="name every output once, in the order of the logits")
    network = family.build()
    load_into(network, upload)
    teacher = Tapped(network, mean=anatomy.mean, std=anatomy.std)
    with torch.no_grad(), teacher.quiet():
        if not bool(torch.isfinite(teacher(torch.zeros(1, *anatomy.input)).logits).all()):
            raise Refused(
                "/upload", "the teacher answers a black image with values that are not finite", hint="is the normalization right?"
            )
    return Inspected(
        {"anatomy": anatomy.to_json(), "parameters": anatomy.parameters, "bytes": upload.stat().st_size, "format": "safetensors"}
    )


def _dataset(folder: Path, request: dict[str, Any], wire: Wire) -> Inspected:
    out, preview = folder / "out" / "dataset.safetensors", folder / "out" / "preview.png"
    out.parent.mkdir(exist_ok=True)
    report = ingest(folder / "in" / "upload", request, out, heed=lambda: wire.pulse("reading the dataset"))
    made = {"dataset": out, **({"preview": preview} if write_preview(out, preview) else {})}
    files = tuple(File(name, path.relative_to(folder).as_posix(), digest_of(path), path.stat().st_size) for name, path in made.items())
    return Inspected(report.model_dump(mode="json"), files)
