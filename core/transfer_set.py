"""What a transfer set, a dataset without labels, asks of a job: a teacher whose answers stand for them, and nothing that reads them."""

from collections.abc import Collection, Iterator, Sequence

from core.anatomy import Anatomy
from core.data.report import DatasetReport
from core.errors import Refused
from core.method import Data, Fit, Lesson
from core.optim import Recipe
from core.spec import JobSpec, name_of


def unfit(spec: JobSpec, teacher: Anatomy | None, student: Anatomy) -> Iterator[Refused]:
    """What of a job whose dataset has no labels cannot be done without them, method by method apart (`reading`)."""
    if teacher is None:
        reason = "the dataset has no labels, and without a teacher there is nothing to learn from"
        yield Refused("/teacher", reason, hint="name a teacher, or a dataset with labels")
    elif teacher.classes != student.classes:
        reason = f"the student has {student.classes} outputs, the teacher {teacher.classes}, and there are no labels beside its answers"
        yield Refused("/student/architecture", reason, hint=f'an architecture with "classes": {teacher.classes}')
    if spec.recipe.task_weight != 0:
        reason = "the dataset has no labels, so there is no task to give a weight to"
        yield Refused("/recipe/task_weight", reason, hint='"task_weight": 0')
    for ordinal, name in enumerate(map(name_of, spec.evaluate)):
        if name not in ("accuracy", "agreement"):
            reason = f"{name} counts right answers, and the dataset has no labels to tell them by"
            yield Refused(f"/evaluate/{ordinal}", reason, hint=f"leave {name} out: the agreement with the teacher is measured anyway")


def reading(lesson: Lesson, unlabelled: Collection[Data], *, where: str) -> Iterator[Refused]:
    """The terms of a method's lesson that read labels in a fit whose data has none; `where` is the method's pointer."""
    for fit in (*lesson.transfer, Fit(lesson.train, Recipe())):
        for name, weighted in fit.terms.items():
            if fit.data in unlabelled and weighted.term.reads_labels and not weighted.asleep:
                whose = "teacher_dataset" if fit.data == "teacher" else "dataset"
                reason = f"the term {name!r} reads labels, and the {whose} has none"
                hint = 'a method that reads none, such as kd, or jacobian with "output": "teacher"'
                yield Refused(where, reason, hint=hint)


def output_names(dataset: DatasetReport, labels: Sequence[str] | None, outputs: int) -> tuple[str, ...]:
    """What a student's outputs are called: the dataset's classes, or, where it has none, the teacher's `labels`, or their numbers."""
    if dataset.labelled:
        return dataset.class_names
    return tuple(labels) if labels is not None else tuple(str(number) for number in range(outputs))
