"""Padding: the teacher's weights are a block of the student's, and the rest is filled.

The student has the teacher's layers, wider. Its first channels are the teacher's, so that each weight W of shape (n_out, n_in, ...), with
m_out and m_in channels in the teacher, begins as

    W' = [ W       A ]        b' = [ b ]
         [ B       C ]             [ c ]

with the teacher's W in the top left corner, and b for biases, scales, shifts and running statistics. (Behind a concatenation, or a
shortcut that pads channels, the block lies where those channels do.) `fill` says what the rest is:

- `outgoing_zero`: A is 0 and B, C and c stay as the student has them. The old channels do not see the new ones, so the student computes
  the teacher's function; the new ones see everything, and learn from the second step on;
- `zero`: all of it is 0. It computes the teacher's function too, but a new unit gives 0 and asks for no gradient, so it never learns: a
  network of the teacher's size in a larger file. It is here because it is published;
- `uniform`: all of it is drawn from U(-1/sqrt(k), 1/sqrt(k)), k the inputs of one unit of the student's layer. The function changes.

Under `zero` and `uniform` new scales of a batch norm are 0 and as the student has them; new running statistics stay as they were.

Use it to grow a teacher for harder data, with `outgoing_zero` or `uniform`. The student may have more classes than the teacher, which keep
the first outputs; its inputs must be normalised as the teacher's are.

Cost: nothing but the copy, once before the training.

One unit, y = 3x, padded to two units that begin at 5 and -7:

>>> import torch
>>> ours, theirs, first = torch.tensor([[5.0, 5.0], [-7.0, -7.0]]), torch.tensor([[3.0]]), torch.tensor([0, -1])
>>> padded(ours, theirs, (first, first), "outgoing_zero").tolist()
[[3.0, 0.0], [-7.0, -7.0]]

Reference: K. Petrushina, O. Bakhteev, A. Grabovoy, V. Strijov, Anti-Distillation: Knowledge Transfer from a Simple Model to the Complex
One, 2022, where "Zero" and "Uniform" are initialisers; the name `outgoing_zero` is ours.
"""

from collections.abc import Sequence
from math import prod
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from core.anatomy import Anatomy
from core.errors import Refused
from core.growth import Growth, grow
from core.method import Lesson, Method, Surgery
from core.taps import Tapped

Fill = Literal["outgoing_zero", "zero", "uniform"]


def padded(ours: Tensor, theirs: Tensor, places: Sequence[Tensor], fill: Fill) -> Tensor:
    """A weight of the student's, filled as `fill` says (`uniform` takes what is there), with the teacher's block in it.

    `places` tell for each axis of channels which entry of the teacher's one of the student's is, -1 for none.
    """
    made = torch.zeros_like(ours) if fill == "zero" else ours.clone()
    old = [place.ge(0).nonzero()[:, 0] for place in places]
    if fill == "outgoing_zero" and len(places) == 2:
        made[old[0][:, None], places[1].lt(0).nonzero()[:, 0]] = 0
    for axis, place in enumerate(places):
        theirs = theirs.index_select(axis, place[old[axis]])
    if old:
        made[torch.meshgrid(*old, indexing="ij")] = theirs
        return made
    return theirs


class Padding(Method):
    """Begin with the teacher's weights as a block of the student's."""

    reference: ClassVar[str] = "Petrushina, Bakhteev, Grabovoy & Strijov, Anti-Distillation, 2022"
    examples = ({}, {"fill": "zero"}, {"fill": "uniform"})

    name: Literal["padding"] = "padding"
    fill: Fill = Field(
        "outgoing_zero",
        description=(
            "What the rest is: `outgoing_zero`, drawn but not seen by the old units; `zero`, whose new units never learn; `uniform`, which "
            "changes the function."
        ),
    )

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        """One surgery."""
        assert teacher is not None
        growth = grow(teacher, student)
        if growth.inserted:
            reason = f"the student's layer {growth.inserted[0]!r} is not in the teacher, and padding adds no layers"
            raise Refused("/methods", reason, hint="the method net2net deepens; or a student as deep as the teacher")
        layers = [node for node in student.graph if node.function in ("conv2d", "linear")]
        inputs = {name: prod(student.weights[node.weights[0]][1:]) for node in layers for name in node.weights}
        warning = (
            "padding with fill 'zero': the units that the student has more than the teacher never learn, because they give 0 and get no "
            "gradient; fill 'outgoing_zero' begins as the same function, and learns"
        )
        wider = self.fill == "zero" and any(len(ours) > len(theirs) for ours, theirs in growth.groups)
        return Lesson(initialise=(_surgery(self.fill, growth, inputs),), warnings=(warning,) if wider else (), keeps_outputs=True)


def _surgery(fill: Fill, growth: Growth, inputs: dict[str, int]) -> Surgery:
    def operate(teacher: Tapped | None, student: Tapped, x: Tensor, generator: torch.Generator) -> None:
        assert teacher is not None
        chosen = growth.repeat(None)
        theirs, ours = teacher.network.state_dict(), student.network.state_dict()
        learnt = {name for name, _ in student.network.named_parameters()}
        with torch.no_grad():
            for name in growth.copied:
                value, places = ours[name].cpu(), growth.places(name, chosen)
                if fill == "uniform" and name in inputs:
                    value = (2 * torch.rand(value.shape, generator=generator) - 1).to(value) / inputs[name] ** 0.5
                # Running statistics of zeros would divide by nothing.
                ours[name].copy_(padded(value, theirs[name].cpu(), places, "uniform" if name not in learnt else fill))

    return operate
