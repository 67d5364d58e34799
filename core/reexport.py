"""A finished student written down again, in more formats, from its weights alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.data import subset
from core.errors import Refused
from core.events import Phase, Result
from core.export import Facts, require
from core.export.offer import Weights, offer
from core.job import dataset_of, digests, spec_of
from core.party import Party, teacher_in
from core.runtime import Runtime
from core.transfer_set import output_names
from core.wire import Wire


def reexport(folder: Path, task: Mapping[str, Any], runtime: Runtime, wire: Wire) -> None:
    """Write in/student.safetensors in the `formats` of a task, verified as at the end of a training, and tell every event.

    The task holds what the distil job had ("spec", "student", "teacher", "dataset", "baseline"), its "result" and the digests of its
    "files", as far as they are known: the card and the provenance tell of them. Test and training
    rows are those of that job. Raises Refused as `distil` does, at /formats for a format that cannot be made here.
    """
    wire.tell(Phase("staging"))
    runtime.pin()
    try:
        require(task["formats"])
    except Refused as refused:
        where = refused.where.replace("/exports", "/formats", 1)
        raise Refused(where, refused.reason, hint=refused.hint, code=refused.code) from refused
    spec = spec_of(task["spec"])
    result = task.get("result") or {}
    party = Party.of(task["student"], "/student")
    assert party.family is not None, "a student is of a family"
    data = dataset_of(folder / "in" / "dataset.safetensors", task.get("dataset"))
    splits = subset(data, spec.dataset)
    student = party.tapped(folder / "in" / "student.safetensors", (), where="/student").to(runtime.device)
    teacher = _teacher(folder, task.get("teacher"))
    wire.pulse("staging")
    wire.tell(Phase("export"))
    facts = Facts(
        name=spec.name,
        family=party.family,
        normalization=party.normalization,
        class_names=output_names(data.report, (task.get("teacher") or {}).get("classes"), party.family.classes),
        range=data.report.range,
        test=task.get("test") or result.get("test") or {},
        teacher=_figures(result),
        baseline=task.get("baseline"),
        curves=result.get("curves") or {},
        spec=spec.model_dump(mode="json"),
        seed=spec.seed,
        epochs=result.get("epochs") or spec.recipe.epochs,
        parameters=party.anatomy.parameters,
        flops=party.anatomy.flops,
        digests=digests(folder, party.family, spec),
        files=task.get("files") or {},
        hardware=result.get("hardware") or runtime.hardware(),
    )
    offers = offer(
        task["formats"],
        student,
        facts=facts,
        teacher=teacher,
        test=splits.test,
        train=splits.train,
        folder=folder,
        threads=runtime.threads,
        look=wire.pulse,
        tell=wire.tell,
        known=_before(result, task["formats"]),
    )
    wire.tell(Result({"exports": [each.to_json() for each in offers]}))


def _teacher(folder: Path, asset: Mapping[str, Any] | None) -> Weights | None:
    weights = teacher_in(folder)
    if asset is None or not weights.exists():
        return None
    party = Party.of(asset, "/teacher", weights)
    return Weights(party.source, party.normalization, weights)


def _figures(result: Mapping[str, Any]) -> dict[str, float] | None:
    """The teacher's figures as the job's result has them."""
    sizes = {name: result[f"teacher_{name}"] for name in ("parameters", "flops", "bytes") if result.get(f"teacher_{name}") is not None}
    return {**(result.get("teacher") or {}), **sizes} or None


def _before(result: Mapping[str, Any], formats: Sequence[str]) -> list[Mapping[str, Any]]:
    """What became of the formats that the job itself exported and that are not made anew."""
    return [each for each in result.get("exports") or () if each["format"] not in formats]
