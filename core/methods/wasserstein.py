"""Few data: the student agrees with the teacher at the images it has, and in a Wasserstein ball around them.

A few images stand for a distribution that nobody has seen whole. Bound the expected disagreement over every distribution within a
distance epsilon of theirs, and to first order what is added is epsilon times how fast the disagreement changes around each image:

    L = (1/N) sum_i l(o_i^s, o_i^t) + epsilon * (1/N) sum_i |grad_{x_i} l(o_i^s, o_i^t)|

with logits o of shape (N, C). l is, for each image, `kl`: T^2 KL(p || q) of the softened answers q of the student and p of the teacher,
summed over the classes; or `mse`: |o^s - o^t|^2, summed too. Both outputs move with x, so the gradient is the total derivative through
both networks; its norm is not squared. x and epsilon are in data units, for images [0, 1]. Both networks run in eval mode in the
penalty, where batch statistics would make one image's gradient depend on the others; the first sum uses the step's own pass.

Use it where images are few, instead of `kd`: `epsilon` 0 is `kd` at weight 1. The paper's epsilon, loss, temperature and norm could not
be read: ours are the defaults. Choose epsilon on held-out images; `wasserstein.ratio` is epsilon times the penalty over the first sum.

Cost: a forward pass of both networks more, a backward pass of both to the image, and for the norm's own gradient double backward or, the
form `tangent`, one more pass of both on a direction. Both are exact; `auto` takes the tangent where every layer has one, and the job's
result says which form ran. `share` measures the penalty on a part of the batch, drawn by the seed: a quarter of the images costs a
quarter of all this, and the mean over the draws is the same. Nothing can be cached; the penalty is computed in fp32.

Of one input and one output each, s = 2x and t = -x, l = (s - t)^2 = 9 x^2; at x = 1/3 it is 1 and its derivative 18 x = 6:

>>> import torch
>>> to_student, to_teacher = slopes(torch.tensor([[2 / 3]]), torch.tensor([[-1 / 3]]), "mse", 1.0)
>>> round((2 * to_student - 1 * to_teacher).item(), 6)
6.0

Reference: S. Kong, T. Guo, S. You, C. Xu, Learning Student Networks with Few Data, AAAI 2020.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from core.anatomy import Anatomy
from core.errors import Refused
from core.method import Lesson, Method, Passes, Scene, Term, Weight, Weighted
from core.tangent import Form, look
from core.terms import divergence, log_softmax

Loss = Literal["kl", "mse"]
Norm = Literal["l1", "l2"]


def slopes(student: Tensor, teacher: Tensor, loss: Loss, temperature: float, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The derivatives of each sample's l by the student's logits and by the teacher's, both (B, C).

    By formula: where both agree they are exactly 0, and autograd's rounding would be a direction as good as any other.
    """
    if loss == "mse":
        gap = _gap(student, teacher, classes)
        return 2 * gap, -2 * gap
    logq, logp = log_softmax(student, temperature, classes), log_softmax(teacher, temperature, classes)
    p, gap = logp.exp(), logp - logq
    if classes is not None:
        gap = gap.masked_fill(~classes, 0.0)
    return temperature * (logq.exp() - p), temperature * p * (gap - (p * gap).sum(1, keepdim=True))


class Wasserstein(Method):
    """Match the teacher's answers at each image, and how they change around it."""

    reference: ClassVar[str] = "Kong, Guo, You & Xu, Learning Student Networks with Few Data, AAAI 2020"
    examples = ({}, {"share": 0.25}, {"form": "double_backward", "norm": "l1", "loss": "mse", "weight": 0.1})

    name: Literal["wasserstein"] = "wasserstein"
    weight: Weight = Field(1.0, description="The weight of L. The weight of the labels is the recipe's `task_weight`.")
    loss: Loss = Field("kl", description="l: `kl` of the softened answers, times T^2, or `mse`, the squared distance of the logits.")
    temperature: float = Field(4.0, ge=0.1, le=1000, description="T of `kl`; `mse` takes none.")
    epsilon: float = Field(0.1, ge=0, le=1000, description="The radius of the ball, in data units; at 0 no penalty is computed. Ours.")
    norm: Norm = Field("l2", description="The gradient's norm, the dual of the one that measures the ball: `l1` where that is the largest.")
    share: float = Field(1.0, gt=0, le=1, description="The part of each batch, rounded up, on which the penalty is measured.")
    form: Form = Field("auto", description="How the norm is differentiated; all are exact. `auto`: the tangent, where every layer has one.")

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        """One term, `wasserstein`, beside the task."""
        assert teacher is not None
        if teacher.classes != student.classes:
            reason = f"the teacher has {teacher.classes} outputs, the student {student.classes}, and their answers are compared"
            raise Refused("/loss", reason, hint="a teacher of the dataset's classes, or a method that compares features")
        return Lesson(train={"wasserstein": Weighted(Ball(self), self.weight)})


class Ball(Term):
    """The disagreement at the images, and epsilon times the mean norm of its gradient by the image."""

    teacher = "network"
    differentiates_input = True
    optimum = 0.0

    def __init__(self, method: Wasserstein) -> None:
        super().__init__()
        self.method = method
        self.ran: Form | None = None

    def passes(self, batch: int, classes: int) -> Passes:
        """Both networks there and back to the input, then both along a direction with the student's way back, or double backward."""
        share, double = self.method.share * (self.method.epsilon > 0), self.method.form == "double_backward"
        return Passes((8 + 4 * double) * share, (4 + 4 * double) * share, (2 + double) * share, (1 + double) * share)

    def forward(self, scene: Scene) -> Tensor:
        assert scene.t is not None
        method, student, teacher = self.method, scene.s.logits, scene.t.logits
        if method.loss == "kl":
            loss = method.temperature**2 * divergence(student, teacher, method.temperature, scene.classes)
        else:
            loss = _gap(student, teacher, scene.classes).square().sum(1).mean()
        if method.epsilon == 0:
            return loss
        penalty = self._norm(scene)
        scene.note("wasserstein.penalty", penalty)
        scene.note("wasserstein.ratio", method.epsilon * penalty / loss.clamp_min(torch.finfo(loss.dtype).tiny))
        return loss + method.epsilon * penalty

    def facts(self) -> Mapping[str, Any]:
        """Which form ran, where there is a penalty."""
        return {} if self.ran is None else {"form": self.ran}

    def _norm(self, scene: Scene) -> Tensor:
        """The mean norm of the gradients, over the part of the batch that is drawn."""
        assert scene.teacher is not None
        method, x = self.method, scene.x.detach()
        if method.share < 1:
            x = x[scene.random()[:, 0].argsort()[: math.ceil(method.share * len(x))]]
        x.requires_grad_()
        (ours, along), (theirs, theirs_along) = (look(network, x, method.form) for network in (scene.student, scene.teacher))
        # The teacher's logits are cut off here, or the norm's own gradient would run through its whole first pass to reach nothing.
        student, teacher = slopes(ours.logits, theirs.logits.detach(), method.loss, method.temperature, scene.classes)
        double = along is None or theirs_along is None
        self.ran = "double_backward" if double else "tangent"
        (gradient,) = torch.autograd.grad((ours.logits, theirs.logits), x, (student, teacher), create_graph=double, retain_graph=True)
        flat, order = gradient.flatten(1), 1 if method.norm == "l1" else 2
        if along is None or theirs_along is None:
            norms: Tensor = torch.linalg.vector_norm(flat, order, dim=1)
            return norms.mean()
        # The norm is the derivative along its own steepest direction, and so is its gradient with that direction held fixed.
        lengths = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        direction = (flat.sign() if method.norm == "l1" else flat / lengths.clamp_min(torch.finfo(flat.dtype).tiny)).view_as(x)
        with torch.no_grad():
            moved = theirs_along(direction).logits
        return (student * along(direction).logits + teacher * moved).sum(1).mean()


def _gap(student: Tensor, teacher: Tensor, classes: Tensor | None) -> Tensor:
    """(B, C), 0 at the classes that the data does not have."""
    return student - teacher if classes is None else (student - teacher).masked_fill(~classes, 0.0)
