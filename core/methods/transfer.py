"""Transfer: the teacher's body under a new head, which learns alone first.

The student is the teacher's own network but for its last layer, the head. Everything else is copied, the statistics of batch norms too. The
head stays as the student has it. With theta = (body, head) and l the cross-entropy with the labels of the job's data,

    for the first `epochs`:  min over the head of (1/N) sum_i l(f(x_i; body of the teacher, head), y_i)

and then the training, in which all of theta learns. In those epochs the body neither moves nor updates its statistics: it runs in eval
mode. They are a transfer fit, with the recipe's optimiser and schedule, and count beside the recipe's epochs.

Use it where the teacher knows other classes than the data have, or other data of the same classes: a head of random weights would send
random gradients into a body that is good already. The classes need not be as many. Where the student is larger, use `net2net` or `padding`.

Cost: one forward pass and the head's gradient in each step of the frozen epochs.

The head is the last layer that has weights:

>>> from core.anatomy import measure
>>> from core.networks import parse
>>> head_of(measure(parse({"family": "mlp", "input": [4], "hidden": [3], "classes": 2})))
'fc'

Reference: J. Yosinski, J. Clune, Y. Bengio, H. Lipson, How Transferable Are Features in Deep Neural Networks?, NIPS 2014; the three frozen
epochs are those of K. Petrushina et al., Anti-Distillation, 2022.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from core.anatomy import Anatomy
from core.errors import Refused
from core.growth import same_normalization
from core.method import Fit, Lesson, Method, Surgery, Weighted
from core.optim import Recipe
from core.taps import Tapped, site_of
from core.terms import CrossEntropy


def head_of(network: Anatomy) -> str:
    """The name of the last module with weights of its own that a pass calls."""
    owners = {name.rpartition(".")[0] for name in network.weights}
    return next(site_of(tap).module for tap in reversed(tuple(network.taps)) if site_of(tap).module in owners)


class Transfer(Method):
    """Copy all but the head, train the head alone, then everything."""

    reference: ClassVar[str] = "Yosinski, Clune, Bengio & Lipson, How Transferable Are Features in Deep Neural Networks?, NIPS 2014"
    examples = ({}, {"epochs": 1})

    name: Literal["transfer"] = "transfer"
    epochs: int = Field(3, ge=1, le=100_000, description="Epochs in which the head alone learns, before those of the recipe.")

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        """One surgery, and one transfer fit with one term, `transfer`."""
        assert teacher is not None
        head = head_of(student)
        same_normalization(teacher, student)
        _same_body(teacher, student, head)
        body = tuple(name for name in student.weights if not name.startswith(f"{head}."))
        fit = Fit({"transfer": Weighted(CrossEntropy(), 1.0)}, Recipe(epochs=self.epochs), only=(head,))
        return Lesson(initialise=(_surgery(body),), transfer=(fit,))


def _same_body(teacher: Anatomy, student: Anatomy, head: str) -> None:
    """`Refused` with the first layer that differs."""
    hint = "a student of the teacher's own architecture, whose number of classes may differ; net2net and padding grow it"
    for name in dict.fromkeys((*student.weights, *teacher.weights)):
        ours, theirs = student.weights.get(name), teacher.weights.get(name)
        if name.startswith(f"{head}.") or ours == theirs:
            continue
        layer, weight = name.rpartition(".")[::2]
        if ours is None or theirs is None:
            raise Refused("/methods", f"the layer {layer!r} is in the {'student' if ours else 'teacher'} alone", hint=hint)
        raise Refused(
            "/methods", f"the {weight} of the layer {layer!r} has the shape {ours} in the student and {theirs} in the teacher", hint=hint
        )
    for mine, other in zip(student.graph, teacher.graph, strict=False):
        same = (mine.function, mine.weights) == (other.function, other.weights)
        if not same or (mine.settings != other.settings and mine.function != "dropout"):
            raise Refused("/methods", f"the layer {mine.layer!r} computes something else in the teacher", hint=hint)


def _surgery(body: tuple[str, ...]) -> Surgery:
    def operate(teacher: Tapped | None, student: Tapped, x: Tensor, generator: torch.Generator) -> None:
        assert teacher is not None
        theirs, ours = teacher.network.state_dict(), student.network.state_dict()
        with torch.no_grad():
            for name in body:
                ours[name].copy_(theirs[name])

    return operate
