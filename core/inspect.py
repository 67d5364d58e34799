"""Look into what a person uploaded, in a child process: the weights of a teacher, an architecture, a dataset."""

from pathlib import Path
from typing import Any

import torch

from core.anatomy import Anatomy, measure
from core.artifacts import load_into, save_weights
from core.blobs import digest_of
from core.data import ingest, open_dataset
from core.data.preview import write_preview
from core.errors import Refused
from core.events import File, Inspected, Phase, Result
from core.frozen import FAMILY
from core.networks import Family, parse
from core.party import Party
from core.score import answers, score, warnings_of
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
            found = _teacher(folder, task, wire)
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


def _teacher(folder: Path, task: dict[str, Any], wire: Wire) -> Inspected:
    upload, request = folder / "in" / "upload", task["request"]
    described = {**request, "architecture": request.get("architecture") or {"family": FAMILY, "input": request.get("input")}}
    party = Party.of(described, "", upload)
    anatomy, labels = party.anatomy, request.get("labels")
    if labels is not None and len(labels) != anatomy.classes:
        raise Refused("/labels", f"there are {len(labels)} labels, the teacher has {anatomy.classes} outputs")
    if labels is not None and len(set(labels)) != len(labels):
        raise Refused("/labels", "two classes have the same label", hint="name every output once, in the order of the logits")
    report: dict[str, Any] = {"format": "safetensors", "safety": task.get("safety") or {"source_format": "safetensors", "converted": False}}
    files: tuple[File, ...] = ()
    if party.frozen is not None:
        report |= {"format": "onnx", "safety": {"source_format": "onnx", "converted": False}, "notes": party.frozen.notes}
        teacher = party.tapped(None, (), where="")
    else:
        assert party.family is not None, "what is not frozen has a family"
        network = party.family.build()
        matching = load_into(network, upload, rename=(request.get("weights") or {}).get("rename"))
        report["weights"] = matching.to_json()
        if matching.is_changed:
            files = (_written(folder, network),)
        teacher = Tapped(network, mean=anatomy.mean, std=anatomy.std)
    with torch.no_grad(), teacher.quiet():
        if not bool(torch.isfinite(teacher(torch.zeros(1, *anatomy.input)).logits).all()):
            raise Refused(
                "/upload", "the teacher answers a black image with values that are not finite", hint="is the normalization right?"
            )
    if dataset := request.get("dataset"):
        data = open_dataset(folder / "in" / "dataset.safetensors")
        teacher = Tapped(teacher.network, mean=anatomy.mean, std=anatomy.std, outputs=answers(data, anatomy, labels))
        report["evaluation"] = score(teacher, data, dataset=dataset, heed=lambda: wire.pulse("evaluating the teacher"))
        report["warnings"] = warnings_of(report["evaluation"])
    size = files[0].bytes if files else upload.stat().st_size
    return Inspected({"anatomy": anatomy.to_json(), "parameters": anatomy.parameters, "bytes": size, **report}, files)


def _written(folder: Path, network: torch.nn.Module) -> File:
    """The weights by the architecture's own names: every job reads this file, and need not know how they were called."""
    out = folder / "out" / "teacher.safetensors"
    out.parent.mkdir(exist_ok=True)
    # A copy of each: tied weights share memory, which the format refuses.
    save_weights(out, {name: tensor.clone() for name, tensor in network.state_dict().items()})
    return File("teacher", out.relative_to(folder).as_posix(), digest_of(out), out.stat().st_size)


def _dataset(folder: Path, request: dict[str, Any], wire: Wire) -> Inspected:
    out, preview = folder / "out" / "dataset.safetensors", folder / "out" / "preview.png"
    out.parent.mkdir(exist_ok=True)
    report = ingest(folder / "in" / "upload", request, out, heed=lambda: wire.pulse("reading the dataset"))
    made = {"dataset": out, **({"preview": preview} if write_preview(out, preview) else {})}
    files = tuple(File(name, path.relative_to(folder).as_posix(), digest_of(path), path.stat().st_size) for name, path in made.items())
    return Inspected(report.model_dump(mode="json"), files)
