"""Attention transfer: the student looks where the teacher looks.

The energy of a map F of shape (B, C, H, W) at one place, summed over the channels, says how much the network attends to
that place. Flattened and normalised it is the attention map, whatever the channels:

    Q(F) = flatten(sum_c F_c^2), (B, H * W), divided by its L2 norm, sample by sample
    L = sum over the pairs of mean over b and h * w of (Q(F_s) - Q(F_t))^2

The mean over the places is part of the published weight: with a sum instead, 1000 would be B * H * W times too strong.
Neither the scale of a map nor the order or number of its channels matters, so the widths may differ; height and width
must be equal. By default the outputs of the stages are paired. Where student and teacher agree, L is 0.

Use it for a student that is built like its teacher, thinner or shallower; between unlike families it can do harm
(ResNet-50 to MobileNetV2 on CIFAR-100: below the student without a teacher). It compares no logits, so the teacher may
know other classes. The published weight is 1000, for maps of 32 x 32 to 8 x 8 and 200 epochs. The fewer places a map has,
the larger is the mean over them: with smaller maps or few steps take less, or it drowns the task. On 14 x 14 to 4 x 4
and 30 epochs 30 did best of five, and 1000 did harm.

Cost: one sum of squares over each paired map. It keeps of a teacher's map only H * W values a sample.

A map of two places and one channel, the student's energy all at the first place, the teacher's all at the second:

>>> import torch
>>> student, teacher = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, 5.0]]]])
>>> (attention(student) - attention(teacher)).square().mean().item()
1.0

Reference: S. Zagoruyko, N. Komodakis, Paying More Attention to Attention, ICLR 2017, section 3.1; code
szagoruyko/attention-transfer.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.anatomy import Anatomy, join
from core.errors import Refused
from core.method import Lesson, Method, Scene, Term, Weight, Weighted
from core.taps import Pair, View


def attention(features: Tensor) -> Tensor:
    """(B, H * W): the energy over the channels of (B, C, H, W), of L2 norm 1 for each sample; a dead map gives zeros."""
    return F.normalize((features * features).sum(1).flatten(1))


class AT(Method):
    """Match where the networks attend, stage by stage."""

    reference: ClassVar[str] = "Zagoruyko & Komodakis, Paying More Attention to Attention, ICLR 2017"
    pairs_by = "out"

    name: Literal["at"] = "at"
    pairs: tuple[Pair, ...] = Field(
        (),
        max_length=64,
        description="[teacher tap, student tap], maps of equal height and width; the outputs of the stages when left out.",
    )
    weight: Weight = Field(1000.0, description="The weight of L: the published code's beta, for maps of 32 x 32; too much for small ones.")

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        """One term, `at`, beside the task."""
        joints = join(self.pairs, teacher, student, "out", maps=True, same_size=True)
        if all(joint.student[1:] == (1, 1) for joint in joints):
            reason = "every paired map has one place, and its attention is 1 whatever it shows"
            raise Refused("/pairs", reason, hint="taps whose maps are larger than 1x1")
        return Lesson(train={"at": Weighted(Attention([joint.pair for joint in joints]), self.weight)})


class Attention(Term):
    """The distance of the attention maps: mean over samples and places, sum over the pairs."""

    optimum = 0.0

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__()
        self.teacher_taps = tuple(pair.teacher for pair in pairs)
        self.student_taps = tuple(pair.student for pair in pairs)

    def target(self, t: View) -> View:
        return View(t.logits, {tap: attention(t.at[tap]) for tap in self.teacher_taps})

    def forward(self, scene: Scene) -> Tensor:
        assert scene.t is not None
        pairs = zip(self.student_taps, self.teacher_taps, strict=True)
        return torch.stack([(attention(scene.s.at[s]) - scene.t.at[t]).square().mean() for s, t in pairs]).sum()
