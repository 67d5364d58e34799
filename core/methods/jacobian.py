"""Jacobian matching: the student's answer depends on its input as the teacher's does.

One output f of each network, the same for both, is differentiated with respect to the input x; J has as many entries as x.
The direction is compared and not the length:

    J = df / dx, (B, D)
    L = mean over b of |J_s / |J_s| - J_t / |J_t||^2

which is 2 - 2 cos of the angle between the two, at most 4. The thought behind it: a little Gaussian noise on the input adds
to squared-error distillation the squared distance of all outputs' J_s and J_t, lengths included. `output` says which f: the
logit of the label, the logit that the teacher finds largest, or, in the form for features and for teachers of other classes,
the place of the teacher's attention map (the mean of F^2 over the channels) where the teacher attends most. Both networks
run in eval mode here: batch statistics would make one sample's gradient depend on the others. x is in data units, before
each network's own normalisation.

Use it, beside `kd`, where data are few: a gradient says more of a sample than its logits do. The published weights and
layers could not be read; the weight 1 and the last stage are ours.

Cost: a second forward pass of the student, and for the gradient of its gradient double backward or, the form `tangent`, one
more pass on a direction; a forward and a backward pass of the teacher. Both forms are exact; `auto` takes the tangent where
every layer has one, and the job's result says which ran. Nothing of it can be cached, and it is computed in fp32.

Two unit vectors along (3, 4) and (4, 3), whose cosine is 24/25:

>>> import torch
>>> round(distance(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])).item(), 6)
0.08

Reference: S. Srinivas, F. Fleuret, Knowledge Transfer with Jacobian Matching, ICML 2018.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from core.anatomy import Anatomy, join
from core.errors import Refused
from core.method import Lesson, Method, Passes, Scene, Term, Weight, Weighted
from core.tangent import Form, look
from core.taps import Pair, Tap, View

Output = Literal["label", "teacher", "maps"]


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared distance of two gradients (B, ...) brought to length 1, sample by sample; mean over the batch."""
    ours, theirs = (j.flatten(1) / (j.flatten(1).square().sum(1, keepdim=True) + 1e-12).sqrt() for j in (student, teacher))
    return (ours - theirs).square().sum(1).mean()


class Jacobian(Method):
    """Match the direction in which the input moves an output."""

    reference: ClassVar[str] = "Srinivas & Fleuret, Knowledge Transfer with Jacobian Matching, ICML 2018"
    examples = ({}, {"output": "teacher"}, {"output": "maps"})
    pairs_by = "out"

    name: Literal["jacobian"] = "jacobian"
    weight: Weight = Field(1.0, description="The weight of L; our choice.")
    output: Output = Field(
        "label", description="What is differentiated: the logit of the `label`, the `teacher`'s largest logit, or attention `maps`."
    )
    pairs: tuple[Pair, ...] = Field(
        (), max_length=8, description="[teacher tap, student tap], maps of equal size, for `maps`; the last stage when left out."
    )
    form: Form = Field(
        "auto", description="How the student's gradient is differentiated; both are exact. `auto`: the tangent, where every layer has one."
    )

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        """One term, `jacobian`, beside the task."""
        assert teacher is not None
        if self.output == "maps":
            joints = join(self.pairs, teacher, student, "out", maps=True, same_size=True)
            pairs = [joint.pair for joint in (joints if self.pairs else joints[-1:])]
            return Lesson(train={"jacobian": Weighted(Slope(pairs, self.output, self.form), self.weight)})
        if self.pairs:
            raise Refused("/pairs", f"the output {self.output!r} is a logit, no map", hint='"output": "maps", or no pairs')
        if teacher.classes != student.classes:
            reason = f"the teacher has {teacher.classes} outputs, the student {student.classes}, and one logit of both is compared"
            raise Refused("/output", reason, hint='"output": "maps" compares features')
        return Lesson(train={"jacobian": Weighted(Slope((), self.output, self.form), self.weight)})


class Slope(Term):
    """The distance of the input gradients, summed over the pairs where maps are differentiated."""

    teacher = "network"
    differentiates_input = True
    optimum = 0.0

    def __init__(self, pairs: Sequence[Pair], output: Output, form: Form = "auto") -> None:
        super().__init__()
        self.teacher_taps = tuple(pair.teacher for pair in pairs)
        self.student_taps = tuple(pair.student for pair in pairs)
        self.output, self.form = output, form
        self.reads_labels = output == "label"
        self.ran: Form | None = None

    def passes(self, batch: int, classes: int) -> Passes:
        """For each output that is differentiated: the student's pass there and back to the input, and the tangent's with its backward pass,
        or double backward, half as much again; the teacher's there and back."""
        outputs = max(1, len(self.teacher_taps))
        student = (12 if self.form == "double_backward" else 8) * outputs
        return Passes(student=student, teacher=1 + outputs, student_kept=2 + (self.form == "double_backward"), teacher_kept=1)

    def forward(self, scene: Scene) -> Tensor:
        assert scene.teacher is not None
        x, theirs_x = (scene.x.detach().requires_grad_() for _ in range(2))  # the step's own forward pass stays an ordinary one
        (shown, along), (theirs, _) = look(scene.student, x, self.form), look(scene.teacher, theirs_x, "double_backward")
        self.ran = "double_backward" if along is None else "tangent"
        found = []
        for k in range(max(1, len(self.teacher_taps))):
            taps = self.student_taps[k : k + 1]
            ours, target = self._values(shown, taps), self._values(theirs, self.teacher_taps[k : k + 1])
            sought = target if taps or scene.classes is None else target.masked_fill(~scene.classes, -torch.inf)
            place = scene.y if self.output == "label" else sought.argmax(1)
            (theirs_slope,) = torch.autograd.grad(_chosen(target, place), theirs_x, retain_graph=k + 1 < len(self.teacher_taps))
            (slope,) = torch.autograd.grad(_chosen(ours, place), x, create_graph=along is None, retain_graph=True)
            if along is None:
                found.append(distance(slope, theirs_slope))
                continue
            # The gradient of L(J), J the student's slope, is that of v . J with v = dL/dJ held fixed: of the derivative along v.
            loss = distance(slope.requires_grad_(), theirs_slope)
            (v,) = torch.autograd.grad(loss, slope)
            moved = self._moved(shown, along(v), taps)
            slid = _chosen(moved, place)
            found.append(loss.detach() + slid - slid.detach())
        return torch.stack(found).sum()

    def facts(self) -> Mapping[str, Any]:
        """Which form ran for the student."""
        return {} if self.ran is None else {"form": self.ran}

    def _moved(self, view: View, along: View, taps: tuple[Tap, ...]) -> Tensor:
        """(B, K): by how much each of `_values` changes along a direction."""
        return (2 * view.at[taps[0]] * along.at[taps[0]]).mean(1).flatten(1) if taps else along.logits

    def _values(self, view: View, taps: tuple[Tap, ...]) -> Tensor:
        """(B, K): the logits, or the attention map at a tap, of which one entry a sample is differentiated."""
        return view.at[taps[0]].square().mean(1).flatten(1) if taps else view.logits


def _chosen(values: Tensor, place: Tensor) -> Tensor:
    # The samples do not meet in eval mode, so the gradient of the sum holds each one's own.
    return values.gather(1, place[:, None]).sum()
