"""The methods of a job asked for their lessons, and everything that is wrong with them."""

from collections.abc import Collection
from dataclasses import dataclass

import torch

from core.anatomy import Anatomy
from core.errors import NoTap, Refusals, Refused
from core.method import Data, Lesson
from core.networks import LARGEST
from core.random import key_of
from core.rehearse import rehearse
from core.spec import JobSpec
from core.transfer_set import reading


@dataclass(slots=True)
class Taught:
    """The methods of a job, asked one by one for their lessons. `is_alike` says that both networks take inputs of one shape."""

    spec: JobSpec
    teacher: Anatomy | None
    student: Anatomy
    other_classes: str | None
    unlabelled: Collection[Data]
    is_alike: bool
    is_reordered: bool = False
    """Whether the teacher's logits are put into another order than its weights have."""
    is_refused: bool = False
    """Whether a method was refused: then what the others leave says little of the job."""

    def lesson(self, wrong: Refusals, *, is_sound: bool) -> tuple[Lesson, list[str]]:
        """The sum of the methods' lessons, and for each transfer fit the pointer of the method that brought it. What is wrong with them
        goes to `wrong`, but for what follows from a student that is not sound."""
        whole, owners, is_told = Lesson(), list[str](), False
        for ordinal, method in enumerate(self.spec.methods):
            if method.needs_teacher and self.teacher is None:
                self.is_refused = True
                continue
            where, mine = f"/methods/{ordinal}", Refusals()
            with mine.gather():
                self._only_asked(ordinal)
                lesson = self._one(ordinal, self.teacher)
                for refused in reading(lesson, self.unlabelled, where=where):
                    mine.add(refused)
                self._same_outputs(ordinal, lesson)
                whole, owners = self._added(whole, lesson, where), [*owners, *[where] * len(lesson.transfer)]
            for refused in mine.found:
                self.is_refused = True
                follows = not is_sound and refused.where == f"{where}/name"
                again = is_told and refused.where == "/teacher"
                if not follows and not again and self._is_its_own(ordinal, refused):
                    is_told |= refused.where == "/teacher"  # the teacher's classes: once is enough
                    wrong.add(refused)
        if "task" in whole.train:
            wrong.add(Refused("/methods", "a method brings the term 'task', which is the recipe's"))
        return whole, owners

    def _one(self, ordinal: int, teacher: Anatomy | None) -> Lesson:
        """The lesson of one method, every term checked."""
        method, where, student = self.spec.methods[ordinal], f"/methods/{ordinal}", self.student
        wrong = Refusals()
        try:
            with torch.random.fork_rng(devices=[]):
                # Connectors draw their initial weights here; a method added behind does not change them.
                torch.default_generator.manual_seed(int(key_of(self.spec.seed, "lesson", ordinal)) & (2**63 - 1))
                lesson = method.lesson(teacher, student)
        except Refused as refused:
            for each in refused.all:
                wrong.add(each.at(f"{where}/name" if each.where == "/methods" else where + each.where.removeprefix(where)))
            wrong.check()
            raise
        for terms in (*(fit.terms for fit in lesson.transfer), lesson.train):
            for name, weighted in terms.items():
                learnt = sum(parameter.numel() for parameter in weighted.term.parameters())
                if learnt > LARGEST:
                    reason = f"the term {name!r} brings {learnt:,} parameters of its own, more than the {LARGEST:,} that are taken"
                    wrong.add(Refused(where, reason, hint="pairs of taps that differ less in size and width"))
                    continue
                with wrong.gather():
                    rehearse(name, weighted.term, method, teacher=teacher, student=student, where=where)
        wrong.check()
        return lesson

    def _only_asked(self, ordinal: int) -> None:
        """Refuse a method that wants more than the logits of a teacher that gives nothing else."""
        method, teacher = self.spec.methods[ordinal], self.teacher
        if teacher is not None and teacher.frozen and method.needs_teacher and not method.answers_suffice:
            only = f"of this teacher ({teacher.family}) there are the logits alone: no taps, no gradient, no weights"
            hint = "kd, which compares logits; or the teacher as safetensors with its architecture"
            raise Refused(f"/methods/{ordinal}", f"the method {method.name!r} looks into the teacher, and {only}", hint=hint)

    def _same_outputs(self, ordinal: int, lesson: Lesson) -> None:
        """Refuse a method that takes the teacher's outputs for the student's, where names tell that they are of other classes."""
        method = self.spec.methods[ordinal]
        if self.is_reordered and lesson.keeps_outputs:
            reason = f"the method {method.name!r} takes the weights of the teacher's output k for those of the student's"
            hint = 'order the classes of the dataset by "class_names" as the labels; or the method transfer, which takes a new head'
            raise Refused("/teacher", f"{reason}, and its outputs are in another order than the classes", hint=hint)
        if self.other_classes is None:
            return
        if lesson.keeps_outputs:
            other = f"they are of other classes: {self.other_classes}"
            reason = f"the method {method.name!r} takes the teacher's outputs for the student's, and {other}"
            hint = "the method transfer, which takes a new head; or the teacher's classes first, by equal names, among the dataset's"
            raise Refused("/teacher", reason, hint=hint)
        refused = self._without_outputs(ordinal)
        if refused is not None:
            reason = f"the method {method.name!r} compares logits, and the teacher's are of other classes: {self.other_classes}"
            hint = "a teacher of the dataset's classes, a method that compares features, or equal names for equal classes"
            raise Refused("/teacher", reason, hint=hint) from refused

    def compares_outputs(self) -> bool:
        """Whether any method compares the networks' logits, of methods that were not refused."""
        return any(self._without_outputs(ordinal) is not None for ordinal in range(len(self.spec.methods)))

    def _without_outputs(self, ordinal: int) -> Refused | None:
        """What keeps a method from working where outputs cannot be compared: None for one that works with one output more."""
        if self.teacher is None:
            return None
        try:
            self._one(ordinal, self.teacher.model_copy(update={"classes": self.teacher.classes + 1}))
        except Refused as refused:
            return refused
        return None

    def _is_its_own(self, ordinal: int, refused: Refused) -> bool:
        """Whether a method's refusal stands apart from networks that take inputs of two shapes: a tap that is not there, or the classes."""
        if self.is_alike or isinstance(refused, NoTap) or refused.where == "/teacher" or self.teacher is None:
            return True
        mended = Refusals()
        with mended.gather():
            self._one(ordinal, self.teacher.model_copy(update={"classes": self.student.classes}))
        return all((each.where, each.reason) != (refused.where, refused.reason) for each in mended.found)

    @staticmethod
    def _added(whole: Lesson, lesson: Lesson, where: str) -> Lesson:
        try:
            return whole + lesson
        except Refused as refused:
            raise refused.at(f"{where}/name") from refused
