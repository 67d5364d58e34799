"""Flow of the solution procedure: the student learns how features turn into later features.

Two maps of one network, F1 of shape (B, m, h, w) and F2 of shape (B, n, h, w), make a matrix of the inner products of
their channels, the flow between the two layers:

    G = (1 / hw) * sum over the places of F1 F2^T, of shape (B, m, n)
    L = (1/B) * sum over b, over the flows and over all m * n entries of (G_t - G_s)^2

Where F1 and F2 differ in size the larger is pooled first. Each pair of taps is joined with the next one, so k pairs make
k - 1 flows; by default the outputs of the stages are taken. The two networks' sizes may differ, their channels may not:
the published method needs equal widths at both ends of a flow. `connectors`, an extension of ours, puts a 1x1
convolution behind each student's map whose width differs. It is a transfer fit, L alone, and then comes the training;
`joint` adds L to the training instead. Where student and teacher agree, L is 0.

Use it for a student of the teacher's widths and fewer layers. It compares no logits, so the teacher may know other
classes. The weight is ours: at a rate of 0.1 a tenfold one, as a third-party code has it, diverged on a WRN-16-2 teacher.
What the paper used for its weights, its pooling and its first stage could not be read.

Cost: one small matrix product a flow. It keeps of the teacher's maps only the flows, m * n values each.

One channel with the values 0, 1, 2, 3, and one with 2 everywhere: (0 + 2 + 4 + 6) / 4.

>>> import torch
>>> flow(torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]), torch.full((1, 1, 2, 2), 2.0)).item()
3.0

Reference: J. Yim, D. Joo, J. Bae, J. Kim, A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and
Transfer Learning, CVPR 2017, equations 1 and 2.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.anatomy import Anatomy, Joint, join
from core.errors import Refused
from core.method import Fit, Lesson, Method, Scene, Term, Weighted
from core.optim import Constant, Recipe, Weight
from core.taps import Pair, Tap, View

Pool = Literal["max", "avg"]


def flow(first: Tensor, second: Tensor, pool: Pool = "max") -> Tensor:
    """(B, m, n): the mean over the places of the products of the channels of (B, m, h, w) and (B, n, h, w); the larger map is pooled."""
    size = min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3])
    shrink = F.adaptive_max_pool2d if pool == "max" else F.adaptive_avg_pool2d
    first, second = (features if features.shape[2:] == size else shrink(features, size) for features in (first, second))
    return torch.bmm(first.flatten(2), second.flatten(2).transpose(1, 2)) / (size[0] * size[1])


class FSP(Method):
    """Match how each stage's channels go together with the next one's."""

    reference: ClassVar[str] = "Yim, Joo, Bae & Kim, A Gift from Knowledge Distillation, CVPR 2017"
    examples = ({"connectors": True}, {"connectors": True, "joint": True, "pool": "avg"})
    pairs_by = "out"

    name: Literal["fsp"] = "fsp"
    epochs: int = Field(30, ge=1, le=100_000, description="Epochs of the transfer fit, before those of the recipe; not used when `joint`.")
    lr: float | None = Field(
        None, gt=0, le=100, description="The transfer's learning rate, constant; the recipe's optimiser and its rate when left out."
    )
    pairs: tuple[Pair, ...] = Field(
        (), max_length=64, description="[teacher tap, student tap], at least two, in order; the outputs of the stages when left out."
    )
    weight: Weight = Field(0.0001, description="The weight of L; our choice. L grows with the fourth power of the maps' scale.")
    joint: bool = Field(False, description="Add L to the training instead of a fit of its own.")
    connectors: bool = Field(
        False, description="Our extension: 1x1 convolutions behind the student's maps whose width is not the teacher's."
    )
    pool: Pool = Field("max", description="How the larger map of a flow is brought to the size of the smaller.")

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        """One transfer fit with one term, `fsp`, or that term in the training."""
        joints = join(self.pairs, teacher, student, "out", maps=True, same_size=False)
        if len(joints) < 2:
            raise Refused("/pairs", f"a flow joins two places, and there is {len(joints)} pair", hint="name at least two pairs, in order")
        for k, joint in enumerate(joints):
            if joint.teacher[0] != joint.student[0] and not self.connectors:
                widths = f"{joint.pair.teacher!r} has {joint.teacher[0]} channels, {joint.pair.student!r} {joint.student[0]}"
                hint = 'taps of equal widths, or "connectors": true, an extension of the published method'
                raise Refused(f"/pairs/{k}" if self.pairs else "/pairs", f"a flow needs equal widths: {widths}", hint=hint)
        terms = {"fsp": Weighted(Flows(joints, self.pool), self.weight)}
        if self.joint:
            return Lesson(train=terms)
        return Lesson(transfer=(Fit(terms, Recipe(epochs=self.epochs, schedule=Constant()), lr=self.lr),))


class Flows(Term):
    """The squared distance of the flows: mean over the batch, sum over entries and flows."""

    def __init__(self, joints: Sequence[Joint], pool: Pool) -> None:
        super().__init__()
        self.teacher_taps = tuple(joint.pair.teacher for joint in joints)
        self.student_taps = tuple(joint.pair.student for joint in joints)
        widths = [(joint.student[0], joint.teacher[0]) for joint in joints]
        self.connectors = nn.ModuleList(nn.Identity() if s == t else nn.Conv2d(s, t, 1, bias=False) for s, t in widths)
        self.pool: Pool = pool
        # Connectors have weights of their own, so that two equal networks differ at first.
        self.optimum = 0.0 if all(s == t for s, t in widths) else None

    def target(self, t: View) -> View:
        return View(t.logits, self._flows([t.at[tap] for tap in self.teacher_taps]))

    def forward(self, scene: Scene) -> Tensor:
        assert scene.t is not None
        ours = self._flows([connector(scene.s.at[tap]) for connector, tap in zip(self.connectors, self.student_taps, strict=True)])
        return torch.stack([(g - scene.t.at[k]).square().sum((1, 2)).mean() for k, g in ours.items()]).sum()

    def _flows(self, maps: Sequence[Tensor]) -> Mapping[Tap, Tensor]:
        return {f"flow{k}": flow(first, second, self.pool) for k, (first, second) in enumerate(pairwise(maps), 1)}
