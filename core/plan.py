"""Decide everything about a job before it runs, and refuse early with the field named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.anatomy import Anatomy
from core.data.augment import Crop, Cutout
from core.data.classes import used
from core.data.report import UNLABELLED, DatasetReport
from core.data.split import aside, taken
from core.errors import Refusals, Refused
from core.lessons import Taught
from core.method import Data, Fit, Lesson, Surgery, Weighted
from core.optim import Clock, Recipe
from core.outputs import answering, other_classes
from core.spec import NEEDS_TEACHER, DatasetRef, JobSpec, Wanted, name_of
from core.taps import Tap
from core.terms import CrossEntropy
from core.transfer_set import output_names, unfit


@dataclass(frozen=True, slots=True)
class Plan:
    """A job decided: what is done to the student, in order. Never sent anywhere: spec and anatomies are, and the plan
    is made anew from them.

    `fits` have whole recipes, the last is the training itself. `rows` are the training samples of each fit, `per_epoch`
    its optimiser steps in one epoch. `same_classes` says that the teacher's logits are of the student's classes, as far as
    counts and names tell; `outputs` are those of the teacher's outputs that answer for the dataset's classes, None for output k for class
    k. `is_frozen` says that the teacher can only be asked for its logits. `class_names` are those of the student's outputs. `warnings` are
    for the person who asked.
    """

    surgeries: tuple[Surgery, ...]
    fits: tuple[Fit, ...]
    rows: tuple[int, ...]
    seed: int
    same_classes: bool
    evaluate: tuple[Wanted, ...]
    class_names: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    outputs: tuple[int, ...] | None = None
    is_frozen: bool = False

    @property
    def epochs(self) -> int:
        """The epochs of all fits together: what the baseline gets."""
        return sum(fit.recipe.epochs for fit in self.fits)

    @property
    def per_epoch(self) -> tuple[int, ...]:
        """The optimiser steps in one epoch of each fit."""
        return tuple(steps_of(rows, fit.recipe) for rows, fit in zip(self.rows, self.fits, strict=True))

    @property
    def steps(self) -> int:
        """The optimiser steps of the whole job."""
        return sum(steps * fit.recipe.epochs for steps, fit in zip(self.per_epoch, self.fits, strict=True))

    @property
    def teacher_taps(self) -> tuple[Tap, ...]:
        """What a `Tapped` teacher must show."""
        return tuple(sorted({tap for fit in self.fits for weighted in fit.terms.values() for tap in weighted.term.teacher_taps}))

    @property
    def student_taps(self) -> tuple[Tap, ...]:
        """What a `Tapped` student must show."""
        return tuple(sorted({tap for fit in self.fits for weighted in fit.terms.values() for tap in weighted.term.student_taps}))

    def to_json(self) -> dict[str, Any]:
        """The plan for people."""
        return {
            "surgeries": len(self.surgeries),
            "fits": [
                {
                    "phase": "train" if fit is self.fits[-1] else "transfer",
                    "data": fit.data,
                    "terms": sorted(fit.terms),
                    "epochs": fit.recipe.epochs,
                    "rows": rows,
                    "steps": steps * fit.recipe.epochs,
                }
                for fit, rows, steps in zip(self.fits, self.rows, self.per_epoch, strict=True)
            ],
            "epochs": self.epochs,
            "steps": self.steps,
            "teacher_taps": list(self.teacher_taps),
            "student_taps": list(self.student_taps),
            "warnings": list(self.warnings),
        }


def plan(
    spec: JobSpec,
    teacher: Anatomy | None,
    student: Anatomy,
    *,
    dataset: DatasetReport,
    teacher_dataset: DatasetReport | None = None,
    teacher_labels: Sequence[str] | None = None,
) -> Plan:
    """Decide a job from measurements alone. Raises `Refused` with a JSON pointer into the spec, and with all else that is wrong as its
    `others`: what only follows from another refusal is left out. `teacher_labels` name the teacher's outputs in order, where its owner
    named them.

    Pure: the same arguments make the same plan, initial weights of connectors included, and torch's generators are left as they were. Under
    `torch.device("meta")` no connector takes memory.
    """
    wrong, whole = Refusals(), teacher
    outputs, is_named = None, False
    with wrong.gather():
        outputs, is_named = _outputs(spec, teacher, dataset, teacher_labels)
    other = None if is_named or wrong.found else other_classes(dataset.class_names, teacher_labels)
    if teacher is not None and dataset.labelled and (outputs is not None or wrong.found):
        # Its weights stay those of all its outputs. Where the map is wrong, nothing more is said of its classes.
        teacher = teacher.model_copy(update={"classes": dataset.classes})
    _fits_together(spec, teacher, student, dataset, wrong)
    # What follows is asked of the student as it should be, so that nothing is told of it twice.
    classes = dataset.classes if dataset.labelled else (teacher or student).classes
    meant = student.model_copy(update={"input": dataset.input, "classes": classes})
    class_names = output_names(dataset, teacher_labels, meant.classes)
    data: Mapping[Data, DatasetReport | None] = {"job": dataset, "teacher": teacher_dataset}
    unlabelled = [whose for whose, report in data.items() if report is not None and not report.labelled]
    is_alike = teacher is None or teacher.input == student.input
    taught = Taught(spec, teacher, meant, other, unlabelled, is_alike=is_alike, is_reordered=outputs is not None)
    lesson, surgeons = taught.lesson(wrong, is_sound=meant == student)
    same_classes = teacher is not None and teacher.classes == meant.classes and other is None
    if not same_classes and all(refused.where != "/teacher" for refused in wrong.found):
        for ordinal, name in enumerate(map(name_of, spec.evaluate)):
            if name in NEEDS_TEACHER:
                wrong.add(Refused(f"/evaluate/{ordinal}", f"{name} needs a teacher with the student's classes", hint=f"leave {name} out"))
    task = Weighted(CrossEntropy(spec.recipe.label_smoothing), spec.recipe.task_weight)
    train = Fit({"task": task, **lesson.train}, Recipe())
    fits = tuple(replace(fit, recipe=fit.recipe.over(spec.recipe, lr=fit.lr), lr=None) for fit in (*lesson.transfer, train))
    rows = []
    for fit, where in zip(fits, (*surgeons, "/recipe"), strict=True):
        last = fit is fits[-1]
        if _idle(fit) and not (last and taught.is_refused):
            hint = "give the task or a method a weight" if last else "give it a weight above 0, or leave the method out"
            place, reason = f"{where}/task_weight" if last else where, "every weight is 0 in every epoch, so there is nothing to learn"
            if last and not dataset.labelled:
                place, reason = "/methods", "the dataset has no labels, and no method teaches in the training itself"
                hint = "add one that does, such as kd"
            wrong.add(Refused(place, reason, hint=hint))
        with wrong.gather():
            rows.append(_rows(spec, fit, meant, dataset, teacher_dataset, class_names=class_names, where=where))
    wrong.check()
    vain = _in_vain(spec, lesson)
    if task.asleep and not taught.compares_outputs():
        vain.append("the task has no weight and no method compares the networks' outputs: the student's last layer learns nothing")
    return Plan(
        surgeries=lesson.initialise,
        fits=fits,
        rows=tuple(rows),
        seed=spec.seed,
        same_classes=same_classes,
        evaluate=spec.measures if dataset.labelled else ("agreement",),
        class_names=class_names,
        warnings=(*lesson.warnings, *vain, *_mended(outputs, whole, dataset)),
        outputs=outputs,
        is_frozen=teacher is not None and teacher.frozen,
    )


def training_rows(report: DatasetReport, ref: DatasetRef, outputs: Sequence[str] | None = None, *, where: str = "/dataset") -> int:
    """How many samples a job trains on: what `core.data.subset` will find, from the report alone. `Refused` where there are too few, or
    where a class is not there or none of the `outputs`.
    """
    belongs = used(report, ref.classes, report.class_names if outputs is None else outputs, where=where)
    for split in report.counts if ref.validation else ("train", "test"):
        if report.labelled and not sum(report.per_class[split][label] for label in belongs):
            raise Refused(f"{where}/classes", f"the {split} split has no sample of these classes", hint="choose others, or leave it out")
    there = {label: count for label, count in enumerate(report.per_class["train"]) if count and label in belongs}
    if not report.labelled:
        there = {UNLABELLED: report.counts["train"]}
    counts = taken(there, ref.take, where=where)
    n = sum(counts.values())
    if not ref.validation or "validation" in report.counts:
        return n
    kept = n - sum(aside(counts, ref.validation).values())
    if kept == n:
        raise Refused(f"{where}/validation", f"{n} samples are too few to set some aside for validation", hint="take more, or say 0")
    return kept


def steps_of(rows: int, recipe: Recipe) -> int:
    """The optimiser steps of one epoch over so many samples; a single left-over sample joins the batch before."""
    whole, left = divmod(rows, recipe.batch_size * recipe.accumulate)
    return max(1, whole + (left > 1))


def _fits_together(spec: JobSpec, teacher: Anatomy | None, student: Anatomy, dataset: DatasetReport, wrong: Refusals) -> None:
    if student.input != dataset.input:
        reason = f"the student takes inputs of {_shape(student.input)}, the dataset has {_shape(dataset.input)}"
        wrong.add(Refused("/student/architecture", reason, hint=f'an architecture with "input": {list(dataset.input)}'))
    for refused in () if dataset.labelled else unfit(spec, teacher, student):
        wrong.add(refused)
    if dataset.labelled and student.classes != dataset.classes:
        reason = f"the student has {student.classes} outputs, the dataset has {dataset.classes} classes"
        wrong.add(Refused("/student/architecture", reason, hint=f'an architecture with "classes": {dataset.classes}'))
    if spec.recipe.augmentation and len(dataset.input) != 3:
        reason = "the dataset holds vectors; crops and flips need images"
        wrong.add(Refused("/recipe/augmentation", reason, hint="leave augmentation empty"))
    shorter = min(dataset.input[1:], default=0)
    for ordinal, step in enumerate(spec.recipe.augmentation if shorter else ()):
        at, fits = f"/recipe/augmentation/{ordinal}", f"at most {shorter - 1}"
        if isinstance(step, Crop) and step.mode == "reflect" and step.padding >= shorter:
            reason = f"an image of {_shape(dataset.input)} cannot be reflected over {step.padding} pixels"
            wrong.add(Refused(f"{at}/padding", reason, hint=fits))
        if isinstance(step, Cutout) and step.size >= shorter:
            reason = f"a square of {step.size} pixels can hide an image of {_shape(dataset.input)} whole"
            wrong.add(Refused(f"{at}/size", reason, hint=fits))
    for ordinal, name in enumerate(map(name_of, spec.evaluate)):
        if name == "boundary" and teacher is not None and teacher.frozen:
            reason = f"{name} follows the teacher's gradient, and a frozen teacher ({teacher.family}) gives none"
            wrong.add(Refused(f"/evaluate/{ordinal}", reason, hint=f"leave {name} out"))
    alone = next((method.name for method in spec.methods if method.needs_teacher), None)
    if alone and teacher is None and dataset.labelled:
        wrong.add(Refused("/teacher", f"the method {alone!r} needs a teacher", hint="name a teacher, or leave the method out"))
    if teacher is not None and teacher.input != dataset.input:
        reason = f"the teacher takes inputs of {_shape(teacher.input)}, the dataset has {_shape(dataset.input)}"
        wrong.add(Refused("/teacher", reason, hint="teacher, student and dataset must have one input shape"))


def _outputs(
    spec: JobSpec, teacher: Anatomy | None, dataset: DatasetReport, labels: Sequence[str] | None
) -> tuple[tuple[int, ...] | None, bool]:
    """What `answering` finds, and whether names or the spec's own map tell that these are the dataset's classes."""
    if teacher is None:
        if spec.label_map is not None:
            raise Refused("/label_map", "there is no teacher whose outputs it could name", hint="name a teacher, or leave label_map out")
        return None, False
    if not dataset.labelled:
        if spec.label_map is not None:
            reason = "the dataset has no labels, so no classes that outputs could answer for"
            raise Refused("/label_map", reason, hint="leave label_map out: the student's outputs are the teacher's")
        return None, False
    outputs = answering(dataset.class_names, labels, teacher.classes, spec.label_map, where="/label_map")
    return outputs, outputs is not None or spec.label_map is not None


def _mended(outputs: tuple[int, ...] | None, teacher: Anatomy | None, dataset: DatasetReport) -> list[str]:
    """What a person should know of a teacher whose outputs are put into the dataset's order."""
    if outputs is None or teacher is None:
        return []
    k = next((k for k, output in enumerate(outputs) if k != output), 0)
    found = (
        f"the teacher's logits are put into the order of the dataset's classes: for {dataset.class_names[k]!r} answers output {outputs[k]}"
    )
    left = teacher.classes - len(outputs)
    return [f"{found}; {left} of its {teacher.classes} outputs answer for none and are left out of every softmax" if left else found]


def _in_vain(spec: JobSpec, lesson: Lesson) -> list[str]:
    """What was asked for and may well change nothing."""
    found = []
    if len(lesson.initialise) > 1:
        found.append(f"{len(lesson.initialise)} methods set the student's first weights: each may overwrite what those before it set")
    if lesson.initialise and isinstance(spec.student.weights, str):
        found.append("a method sets the student's first weights and may overwrite those of /student/weights")
    if spec.teacher_dataset is not None and all(fit.data != "teacher" for fit in lesson.transfer):
        found.append("no method trains on the teacher_dataset: it changes nothing")
    return found


def _idle(fit: Fit) -> bool:
    """Whether no term of a fit counts in any of its epochs."""
    epochs = fit.recipe.epochs
    clocks = (Clock(epoch, epochs, epoch, epochs) for epoch in range(epochs))
    return not any(weighted.at(clock) for clock in clocks for weighted in fit.terms.values())


def _rows(
    spec: JobSpec,
    fit: Fit,
    student: Anatomy,
    dataset: DatasetReport,
    teacher_dataset: DatasetReport | None,
    *,
    class_names: Sequence[str],
    where: str,
) -> int:
    """The training samples of a fit; `Refused` where its data, its modules or its batch do not fit."""
    for prefix in fit.only:
        if not any(name.startswith(f"{prefix}.") for name in student.weights):
            raise Refused(where, f"the student has no module {prefix!r} that could learn")
    ref, report, place = spec.dataset, dataset, "/dataset"
    if fit.data == "teacher":
        if spec.teacher_dataset is None or teacher_dataset is None:
            raise Refused("/teacher_dataset", "a method trains on the teacher's data, and none is named", hint="name the teacher's dataset")
        if teacher_dataset.input != student.input:
            raise Refused(
                "/teacher_dataset", f"its inputs are {_shape(teacher_dataset.input)}, those of the networks {_shape(student.input)}"
            )
        ref, report, place = spec.teacher_dataset, teacher_dataset, "/teacher_dataset"
    rows, recipe = training_rows(report, ref, class_names, where=place), fit.recipe
    if recipe.batch_size * recipe.accumulate > rows:
        asked = f"{recipe.batch_size}" + (f" × {recipe.accumulate}" if recipe.accumulate > 1 else "")
        whose = "teacher's" if fit.data == "teacher" else "training"
        hint = f"at most {rows // recipe.accumulate}; classes, validation and take of {place} leave {rows} of {report.counts['train']}"
        raise Refused("/recipe/batch_size", f"a step of {asked} samples is larger than the {whose} set of {rows}", hint=hint)
    return rows


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(str(extent) for extent in shape)
