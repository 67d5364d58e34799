"""Boundary supporting samples: the student answers as the teacher does where the teacher's decision changes.

A sample is moved until the teacher leaves the sample's class b for another class k; it then lies near the boundary between the two, and
what the teacher answers there says where that boundary is. Base samples are those that both networks classify right, where there are too
many those with the largest sum over the wrong classes of (q_t - q_s)^2 (softmax at T = 1); k is drawn with the teacher's p_k = q_k /
(1 - max q). With f the teacher's logits and g = df_k/dx - df_b/dx, a step adds to x

    corrected: (f_b - f_k + 1e-4) * g / |g|^2                 official: eta * (f_b - f_k + 1e-4) * g / |g|

until argmax f is not b, at most `iterations` times, and is clipped to what data may be. At the N samples x' so found, at T, without T^2,

    L = (1/N) * sum_n KL(softmax(f(x'_n) / T) || softmax(s(x'_n) / T))

with s the student's logits; 0 where none was found. N counts boundary samples, not the batch; under `accumulate` each part of a step is a
batch of its own. The published loss is a cross-entropy, of the same gradient. Classes without data are masked. `official` does as the
published code, which may stop short of the boundary or jump over it: its eta of 0.3 in normalised space is 0.3 times the mean of the
channels' deviations in data units, it clips at mean ± 2.5 deviations, and a sample counts wherever it ended. `corrected` takes Newton's
step, DeepFool's, which lands on the boundary of a linear teacher, and keeps what ended in k. The paper's own denominator is not known to
us.

Use it beside `kd` (as published: T = 3 without T^2, weight 4 falling to 1) where both networks know the same classes and the teacher is
good. Each step tells `bss.usable`, the share of the batch that both classify right, `bss.hit_rate`, that of the attacked which ended in k,
and `bss.iterations`, their mean number of steps.

Cost: up to 11 forward and 10 backward passes of the teacher on at most `samples` samples, and a pass of the student on those found, in its
own mode, as published: they enter its batch statistics. A single sample has no such statistics and is shown in eval mode.

Of probabilities .6, .3, .08 and .02, the first being the top, the others are drawn with .75, .2 and .05:

>>> import torch
>>> rival(torch.tensor([[0.6, 0.3, 0.08, 0.02]]).log().expand(4, 4), torch.tensor([0.0, 0.74, 0.76, 0.96])).tolist()
[1, 1, 2, 3]

Reference: B. Heo, M. Lee, S. Yun, J. Y. Choi, Knowledge Distillation with Adversarial Samples Supporting Decision Boundary, AAAI 2019,
arXiv 1805.05532.
"""

from contextlib import nullcontext
from statistics import fmean
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from core.anatomy import Anatomy
from core.errors import Refused
from core.fold import folded
from core.method import Lesson, Method, Passes, Scene, Term, Weight, Weighted
from core.optim import Linear
from core.random import rival
from core.terms import divergence, log_softmax


def disagreement(student: Tensor, teacher: Tensor, y: Tensor) -> Tensor:
    """(B,): the squared difference of the probabilities, both given as logarithms (B, C), summed over the classes other than y (B,)."""
    return (student.exp() - teacher.exp()).square().scatter(1, y[:, None], 0.0).sum(1)


class BSS(Method):
    """Match the teacher's answers at samples near its decision boundary."""

    reference: ClassVar[str] = "Heo et al., Knowledge Distillation with Adversarial Samples Supporting Decision Boundary, AAAI 2019"
    examples = ({}, {"variant": "official"})

    name: Literal["bss"] = "bss"
    temperature: float = Field(3.0, ge=0.1, le=1000, description="T: what both networks' logits are divided by before the softmax.")
    weight: Weight = Field(Linear(linear=(2.0, 0.0), until=0.75), description="The weight of L; by default it falls as published.")
    samples: int = Field(64, ge=1, le=65_536, description="The most base samples of a batch.")
    iterations: int = Field(10, ge=1, le=1000, description="The most steps of an attack.")
    variant: Literal["official", "corrected"] = Field(
        "corrected", description="`corrected`: Newton's step, within the data's range. `official`: the published code's step and clip."
    )
    require_hit: bool | None = Field(
        None, description="Whether only samples that ended in their target class count; when left out `corrected` says yes, `official` no."
    )

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        """One term, `bss`, beside the task."""
        assert teacher is not None
        if teacher.classes != student.classes:
            reason = f"the teacher has {teacher.classes} outputs, the student {student.classes}, and their answers are compared"
            raise Refused("/name", reason, hint="a teacher of the dataset's classes, or a method that compares features")
        return Lesson(train={"bss": Weighted(Boundary(self), self.weight)})


class Boundary(Term):
    """The divergence of the answers at the boundary samples of a batch."""

    teacher = "network"
    differentiates_input = reads_labels = True
    optimum = 0.0

    def __init__(self, method: BSS) -> None:
        super().__init__()
        self.method, self.official = method, method.variant == "official"
        self.require_hit = not self.official if method.require_hit is None else method.require_hit

    def passes(self, batch: int, classes: int) -> Passes:
        """Three steps of an attack, as Newton's mostly take, each a pass there and back; the student's pass on what was found."""
        share = min(1.0, self.method.samples / batch)
        steps = self.method.iterations if self.official else min(3, self.method.iterations)
        return Passes(student=3 * share, teacher=(2 * steps + 1) * share, student_kept=share, teacher_kept=share)

    def forward(self, scene: Scene) -> Tensor:
        assert scene.t is not None
        nothing = scene.s.logits[:0].sum()  # no number times 0: it has the student's graph whatever its logits are
        ours, theirs = (log_softmax(view.logits.detach(), classes=scene.classes) for view in (scene.s, scene.t))
        right = (ours.argmax(1) == scene.y) & (theirs.argmax(1) == scene.y)
        scene.note("bss.usable", right.float().mean())
        rows = right.nonzero()[:, 0]
        if len(rows) > self.method.samples:
            rows = rows[disagreement(ours[rows], theirs[rows], scene.y[rows]).topk(self.method.samples).indices]
        if not len(rows):
            return nothing
        target = rival(theirs[rows], scene.random()[rows, 0])
        x, answers = self._attacked(scene, scene.x.detach()[rows], theirs[rows], target)
        hit = answers.argmax(1) == target
        scene.note("bss.hit_rate", hit.float().mean())
        x, answers = (x[hit], answers[hit]) if self.require_hit else (x, answers)
        if not len(x):
            return nothing
        with scene.autocast(), scene.student.quiet() if len(x) == 1 else nullcontext():
            found = scene.student(x).logits
        return nothing + divergence(found, answers, self.method.temperature, scene.classes)

    def _attacked(self, scene: Scene, x: Tensor, answers: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Where samples x (N, ...) with these teacher's answers (N, C), as log-probabilities, end, and the answers there."""
        assert scene.teacher is not None
        base, steps, moving = answers.argmax(1), torch.zeros_like(target), torch.arange(len(x), device=x.device)
        mean, std = (x.new_tensor(values).view(-1, *[1] * (x.ndim - 2)) for values in (scene.domain.mean, scene.domain.std))
        bounds = (mean - 2.5 * std, mean + 2.5 * std) if self.official else map(x.new_tensor, (scene.domain.least, scene.domain.greatest))
        (least, greatest), eta = bounds, 0.3 * fmean(scene.domain.std)
        for step in range(self.method.iterations + 1):
            leaf = x[moving].requires_grad_(step < self.method.iterations)  # after the last step the teacher is only heard
            with folded(scene.teacher).quiet() as teacher, scene.autocast():
                logits = teacher(leaf).logits
            answers[moving] = log_softmax(logits.detach(), classes=scene.classes)
            stays = answers[moving].argmax(1) == base[moving]
            if not leaf.requires_grad or not stays.any():
                break
            gap = (logits.gather(1, base[moving, None]) - logits.gather(1, target[moving, None])).view(-1, *[1] * (x.ndim - 1))
            (g,) = torch.autograd.grad(-gap.sum(), leaf)
            length = g.flatten(1).norm(dim=1).clamp_min(1e-12).view_as(gap)  # where g is 0 the sample stays in its place
            moved = leaf + (gap + 1e-4) / length * (eta if self.official else 1 / length) * g
            moving = moving[stays]
            x[moving] = moved.detach()[stays].clamp(least, greatest)
            steps[moving] += 1
        scene.note("bss.iterations", steps.float().mean())
        return x, answers
