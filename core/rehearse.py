"""Try a term on tensors without content: what does not fit is refused before anything is trained."""

import copy
from collections.abc import Mapping

import torch

from core.anatomy import Anatomy
from core.data.report import Domain
from core.errors import Refused
from core.method import Method, Scene, Term
from core.taps import Tap, Tapped, View


def rehearse(name: str, term: Term, method: Method, *, teacher: Anatomy | None, student: Anatomy, where: str) -> None:
    """Raise `Refused` for a term that these networks cannot play: a tap that does not exist, a shape that does not fit.

    Terms that call a network (an attack, a penalty on a gradient) are asked for their taps only: there is no network here.
    """
    for tap in term.student_taps:
        student.require(tap, _pointer(method, tap, where))
    if term.teacher != "none":
        if teacher is None:
            raise Refused("/teacher", f"the method {method.name!r} needs a teacher", hint="name a teacher, or leave the method out")
        for tap in term.teacher_taps:
            teacher.require(tap, _pointer(method, tap, where))
    if term.teacher == "network" or term.differentiates_input:
        return
    wrong = _meta(term, teacher, student)
    if wrong is None:
        return
    if teacher is not None and _meta(term, teacher.model_copy(update={"classes": student.classes}), student) is None:
        reason = f"the teacher has {teacher.classes} outputs, the student {student.classes}, and the term {name!r} compares them"
        raise Refused("/teacher", reason, hint="a teacher of the dataset's classes, a label_map, or a method that compares features")
    raise Refused(where, f"the term {name!r} does not fit these networks: {wrong}")


def _meta(term: Term, teacher: Anatomy | None, student: Anatomy) -> str | None:
    """What goes wrong when the term meets tensors of these shapes, None if nothing does."""
    term = copy.deepcopy(term).to("meta")
    batch = 2

    def view(anatomy: Anatomy, taps: tuple[Tap, ...]) -> View:
        return View(torch.empty(batch, anatomy.classes), {tap: torch.empty(batch, *anatomy.taps[tap]) for tap in taps})

    with torch.device("meta"):
        theirs = view(teacher, term.teacher_taps) if teacher is not None and term.teacher != "none" else None
        stand_in = Tapped(torch.nn.Identity(), mean=student.mean, std=student.std)
        try:
            scene = Scene(
                x=torch.empty(batch, *student.input),
                y=torch.empty(batch, dtype=torch.int64),
                index=torch.empty(batch, dtype=torch.int64),
                s=view(student, term.student_taps),
                t=None if theirs is None else term.target(theirs),
                student=stand_in,
                teacher=None,
                classes=None,
                key=torch.empty((), dtype=torch.int64),
                domain=Domain(0.0, 1.0, (0.0,), (1.0,)),
            )
            term(scene)
        except NotImplementedError:
            raise
        except (RuntimeError, ValueError, IndexError) as wrong:
            return str(wrong)
    return None


def _pointer(method: Method, tap: Tap, where: str) -> str:
    """Where in the spec a method names a tap; the method itself where it chose the tap on its own."""

    def find(value: object, at: str) -> str | None:
        if value == tap:
            return at
        items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
        return next((found for key, item in items if (found := find(item, f"{at}/{key}"))), None)

    return find(method.model_dump(mode="json"), where) or where
