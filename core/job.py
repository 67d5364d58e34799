"""A job folder carried out: what lies in it is opened and held against the plan, the run is driven, the student is exported."""

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from pydantic import ValidationError

from core.blobs import digest_of
from core.checkpoints import Checkpoints
from core.data import Batches, Dataset, DatasetReport, Splits, open_dataset, subset
from core.errors import Corrupt, Refused
from core.events import Curve, Evaluated, Event, Phase, Result
from core.export import Facts, require, versions
from core.export.offer import Offer, Weights, offer
from core.initialisers import Initialiser, initialise
from core.networks import Family
from core.party import Party, teacher_in
from core.plan import Plan, plan
from core.random import key_of
from core.run import run
from core.runtime import Runtime
from core.source import Sources
from core.spec import JobSpec, identity
from core.taps import Tapped
from core.wire import Wire

Value = TypeVar("Value")

_INPUTS = ("teacher", "dataset", "teacher_dataset")


def distil(folder: Path, task: Mapping[str, Any], runtime: Runtime, wire: Wire) -> None:
    """Train, evaluate and export the student of a job folder, telling every event; resumes from in/checkpoint.safetensors where that lies.

    Raises Refused where the task or a file does not fit, Diverged, and Stopped once a checkpoint is kept.
    """
    wire.tell(Phase("staging"))
    runtime.pin()
    checkpoints = Checkpoints(folder, wire, seconds=runtime.checkpoint_seconds)
    job = Job.open(folder, task)
    require(job.spec.exports)
    checkpoints.look("staging")
    splits = subset(job.data, job.spec.dataset)
    sources = job.sources(splits, runtime.device)
    student = job.new_student().to(runtime.device)
    teacher = job.trained_teacher()
    teacher = teacher and teacher.to(runtime.device)
    checkpoints.look("staging")

    resume = folder / "in" / "checkpoint.safetensors"
    frozen = resume.read_bytes() if resume.exists() else None
    test: Mapping[str, float] = {}
    curves: Mapping[str, Curve] = {}
    training = False
    events = run(job.plan, teacher, student, sources, resume=frozen, keep=checkpoints.keep, report_seconds=runtime.report_seconds)
    with closing(cast("Generator[Event | None]", events)):
        for event in events:
            wire.holding = wire.holding or training  # a step was made: `keep` sees to it before the next one
            if event is not None:
                wire.tell(event)
            match event:
                case Phase(phase=phase):
                    training = phase in ("transfer", "train")
                    if phase == "evaluate":
                        checkpoints.finish()
                case Evaluated(split="test"):
                    test, curves = event.values, event.curves
            if not training:  # while training, `keep` looks
                checkpoints.look("evaluating")

    wire.tell(Phase("export"))
    facts = job.facts(test, curves, runtime.hardware())
    offers = offer(
        job.spec.exports,
        student,
        facts=facts,
        teacher=job.teachers_weights(),
        test=splits.test,
        train=splits.train,
        folder=folder,
        threads=runtime.threads,
        look=checkpoints.look,
        tell=wire.tell,
    )
    wire.tell(Result(job.result(facts, offers, runtime)))


@dataclass(frozen=True, slots=True)
class Job:
    """What lies in a job folder, opened, and the plan made of it."""

    folder: Path
    spec: JobSpec
    teacher: Party | None
    student: Party
    data: Dataset
    teachers_data: Dataset | None
    plan: Plan
    baseline: Mapping[str, Any] | None

    @classmethod
    def open(cls, folder: Path, task: Mapping[str, Any]) -> "Job":
        """Open a folder. Raises Refused as `plan` does, and Corrupt where a dataset is not the one that the task promises."""
        spec = spec_of(task["spec"])
        teacher = Party.of(task["teacher"], "/teacher", teacher_in(folder)) if task.get("teacher") else None
        student = Party.of(task["student"], "/student")
        data = dataset_of(folder / "in" / "dataset.safetensors", task.get("dataset"))
        wanted = spec.teacher_dataset is not None
        other = dataset_of(folder / "in" / "teacher_dataset.safetensors", task.get("teacher_dataset")) if wanted else None
        decided = plan(
            spec,
            teacher.anatomy if teacher else None,
            student.anatomy,
            dataset=data.report,
            teacher_dataset=other.report if other else None,
            teacher_labels=task["teacher"].get("classes") if teacher else None,
        )
        return cls(folder, spec, teacher, student, data, other, decided, task.get("baseline"))

    def new_student(self) -> Tapped:
        """The student with its initial weights: those that were given, or fresh ones drawn from the job's seed."""
        given = self.folder / "in" / "student.safetensors"
        torch.manual_seed(int(key_of(self.spec.seed, "student")) & (2**63 - 1))
        student = self.student.tapped(given if given.exists() else None, self.plan.student_taps, where="/student/weights")
        if isinstance(self.spec.student.weights, Initialiser):
            initialise(student.network, self.spec.student.weights)
        return student

    def trained_teacher(self) -> Tapped | None:
        """The teacher with its weights, where the job has one."""
        if self.teacher is None:
            return None
        weights, outputs = teacher_in(self.folder), self.plan.outputs
        return self.teacher.tapped(weights, self.plan.teacher_taps, where="/teacher", outputs=outputs)

    def teachers_weights(self) -> Weights | None:
        """The teacher's file, where the job has one."""
        return None if self.teacher is None else Weights(self.teacher.source, self.teacher.normalization, teacher_in(self.folder))

    def sources(self, splits: Splits, device: str) -> Sources:
        """The batches of every fit. Fits that read the same data in the same way share them, and the accelerator's memory with them."""
        made: dict[tuple[object, ...], Batches] = {}
        fits = []
        for fit in self.plan.fits:
            rows, ref = splits.train, self.spec.dataset
            if fit.data == "teacher" and self.teachers_data is not None and self.spec.teacher_dataset is not None:
                ref = self.spec.teacher_dataset
                rows = subset(self.teachers_data, ref, outputs=self.plan.class_names, where="/teacher_dataset").train
            recipe = fit.recipe
            key = (fit.data, recipe.batch_size, recipe.accumulate, recipe.augmentation, recipe.reshuffle)
            if key not in made:
                made[key] = Batches(
                    rows,
                    recipe.batch_size,
                    seed=self.spec.seed,
                    augmentation=recipe.augmentation,
                    device=device,
                    views=ref.views,
                    view_seed=ref.view_seed,
                    accumulate=recipe.accumulate,
                    reshuffle=recipe.reshuffle,
                )
            fits.append(made[key])
        if tuple(batches.steps for batches in fits) != self.plan.per_epoch:
            raise RuntimeError(f"the data has {[batches.steps for batches in fits]} steps an epoch, the plan {self.plan.per_epoch}")
        return Sources(fits, splits.validation, splits.test)

    def facts(self, test: Mapping[str, float], curves: Mapping[str, Curve], hardware: str) -> Facts:
        """What an export says about the student. `test` and `curves` hold its figures, and the teacher's under "teacher."."""
        assert self.student.family is not None, "a student is of a family"
        ours, theirs = _sides(test)
        if self.teacher is not None:
            theirs |= {"parameters": self.teacher.anatomy.parameters}
            if self.teacher.frozen is None:  # nobody counts the operations of a frozen one
                theirs |= {"flops": self.teacher.anatomy.flops}
            theirs["bytes"] = teacher_in(self.folder).stat().st_size
        return Facts(
            name=self.spec.name,
            family=self.student.family,
            normalization=self.student.normalization,
            class_names=self.plan.class_names,
            range=self.data.report.range,
            test=ours,
            teacher=theirs or None,
            baseline=self.baseline,
            curves={who: found for who, found in zip(("student", "teacher"), _sides(curves), strict=True) if found},
            spec=self.spec.model_dump(mode="json"),
            seed=self.spec.seed,
            epochs=self.plan.epochs,
            parameters=self.student.anatomy.parameters,
            flops=self.student.anatomy.flops,
            digests=digests(self.folder, self.student.family, self.spec),
            hardware=hardware,
        )

    def result(self, facts: Facts, offers: Sequence[Offer], runtime: Runtime) -> dict[str, Any]:
        """The last words of a job."""
        teacher = dict(facts.teacher or {})
        parameters, size, flops = (teacher.pop(name, None) for name in ("parameters", "bytes", "flops"))
        return {
            "test": dict(facts.test),
            "teacher": teacher or None,
            **({"curves": facts.curves} if facts.curves else {}),
            "parameters": self.student.anatomy.parameters,
            "bytes": next((each.facts["bytes"] for each in offers if each.refused is None), None),
            "exports": [each.to_json() for each in offers],
            "flops": facts.flops,
            "teacher_parameters": parameters,
            "teacher_flops": flops,
            "teacher_bytes": size,
            "epochs": facts.epochs,
            "versions": versions(),
            "device": runtime.device,
            "hardware": facts.hardware,
            "seed": facts.seed,
            "terms": {
                name: said for fit in self.plan.fits for name, weighted in fit.terms.items() if (said := dict(weighted.term.facts()))
            },
        }


def digests(folder: Path, student: Family, spec: JobSpec) -> dict[str, str]:
    """The sha256 of what a student was made from: the files that lie in the folder, its architecture, and all that training depends on."""
    files = {path.stem: digest_of(path) for path in sorted((folder / "in").iterdir()) if path.stem in _INPUTS}
    architecture = json.dumps(student.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return {**files, "architecture": hashlib.sha256(architecture.encode()).hexdigest(), "spec": identity(spec)}


def _sides(found: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, Value]]:
    """What was found of the student, and of the teacher."""
    theirs = {name.removeprefix("teacher."): value for name, value in found.items() if name.startswith("teacher.")}
    return {name: value for name, value in found.items() if not name.startswith("teacher.")}, theirs


def spec_of(fields: Mapping[str, Any]) -> JobSpec:
    """The spec that a task holds; Refused at the field that is wrong."""
    try:
        return JobSpec.model_validate(fields)
    except ValidationError as wrong:
        error = wrong.errors(include_url=False, include_context=False, include_input=False)[0]
        raise Refused(_pointer(error["loc"], fields, missing=error["type"] == "missing"), error["msg"]) from wrong


def _pointer(place: Sequence[str | int], value: Any, *, missing: bool) -> str:
    """Where in the spec an error lies: pydantic's place without the names of the union members that were tried, which nobody wrote."""
    written = list[str | int]()
    for part in place:
        there = part in value if isinstance(value, Mapping) else isinstance(value, (list, tuple)) and isinstance(part, int)
        if there:
            written.append(part)
            value = value[part]
    return "/" + "/".join(map(str, [*written, place[-1]] if missing else written))


def dataset_of(path: Path, promised: Mapping[str, Any] | None) -> Dataset:
    """The dataset of a file. Raises Corrupt where its report is not the one that the task promises."""
    dataset = open_dataset(path)
    if promised is not None and DatasetReport.model_validate(promised) != dataset.report:
        raise Corrupt(f"{path.name} is another dataset than the task promises")
    return dataset
