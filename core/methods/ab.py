"""Activation boundaries: the student's neurons learn to be active exactly where the teacher's are.

Whether a ReLU is active decides which region of the input space a sample falls into, so the transfer copies the signs of
the pre-activations (what enters the ReLUs) and not their size. A step function has no gradient; a margin mu makes it a
squared hinge. For one layer, with T the teacher's pre-activation (B, M, H, W), S the student's (B, N, H, W), r a
connector from N to M channels, and rho(x) = 1 where x > 0, else 0:

    L = (1/B) * sum over all elements of (rho(T) relu(mu - r(S)) + (1 - rho(T)) relu(mu + r(S)))^2

The layers add up, the deepest with weight 1 and each one before with half of the next one's. L is 0 where every sign
agrees and |r(S)| >= mu; it depends on T through its signs alone. This is a transfer fit: it comes before the training,
which takes no term from it. The connector is a 1x1 convolution with batch norm, and the identity where N = M.

Use it where data or epochs are few, followed by `kd`: it gives the student an initialisation that already separates what
the teacher separates. It compares no logits, so the teacher may know other classes. Held-out data, where the job has
some, shows after each epoch of the transfer how many activations agree: `ab.similarity1`, ...

Cost: elementwise, with one 1x1 convolution a layer. It keeps of a teacher's map one truth value for each.

Four neurons, mu = 1: the first is right but within the margin, the second right, and so on with the signs turned round.

>>> import torch
>>> student, teacher = torch.tensor([[0.5, 2.0, -0.5, -3.0]]), torch.tensor([[1.0, 1.0, -1.0, -1.0]])
>>> boundary(student, teacher > 0, margin=1.0).item()
0.5

Reference: B. Heo, M. Lee, S. Yun, J. Y. Choi, Knowledge Transfer via Distillation of Activation Boundaries Formed by
Hidden Neurons, AAAI 2019; code bhheo/AB_distillation.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.anatomy import Anatomy, Joint, join
from core.errors import Refused
from core.evaluate.similarity import similarity
from core.method import Fit, Lesson, Method, Scene, Term, Weighted
from core.optim import Constant, Drops, Recipe
from core.taps import Pair, View


def boundary(student: Tensor, active: Tensor, margin: float) -> Tensor:
    """The squared hinge of pre-activations (B, ...) against the teacher's boolean activations: sum over elements, mean over the batch."""
    hinge = torch.where(active, margin - student, margin + student).relu()
    return hinge.square().sum() / len(student)


class AB(Method):
    """Match which neurons are active, in a transfer fit before the training."""

    reference: ClassVar[str] = "Heo, Lee, Yun & Choi, Knowledge Transfer via Distillation of Activation Boundaries, AAAI 2019"
    examples = ({"epochs": 10}, {"variant": "official", "layer_weights": [0.5, 1.0]})
    pairs_by = "pre"

    name: Literal["ab"] = "ab"
    epochs: int = Field(20, ge=1, le=100_000, description="Epochs of the transfer fit, before those of the recipe.")
    lr: float | None = Field(
        None, gt=0, le=100, description="The transfer's learning rate, constant; the recipe's optimiser and its rate when left out."
    )
    pairs: tuple[Pair, ...] = Field(
        (),
        max_length=64,
        description="[teacher tap, student tap], pre-activations of equal height and width; those behind the stages when left out.",
    )
    margin: float = Field(1.0, gt=0, le=1000, description="mu: how far beyond its boundary a student's neuron is pushed.")
    weight: float = Field(0.003, gt=0, le=1e6, description="The weight of the sum over the layers: 3/1000 in the published code.")
    layer_weights: tuple[Annotated[float, Field(ge=0, le=1e6)], ...] | None = Field(
        None, max_length=64, description="One for each pair; 1 for the last and half of the next one's for each before, when left out."
    )
    variant: Literal["official", "corrected"] = Field(
        "corrected",
        description=(
            "`corrected` keeps the teacher in eval mode. `official` does as the code published for CIFAR-10: the teacher runs in train "
            "mode during the transfer, so its batch statistics drift, and the momentum is emptied at three quarters of it. What follows, "
            "the teacher's own figures in the result too, is with the drifted teacher."
        ),
    )

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        """One transfer fit with one term, `ab`."""
        joints = join(self.pairs, teacher, student, "pre", maps=False, same_size=True)
        halved = tuple(0.5 ** (len(joints) - 1 - k) for k in range(len(joints)))
        weights = halved if self.layer_weights is None else self.layer_weights
        if len(weights) != len(joints):
            raise Refused("/layer_weights", f"{len(weights)} weights for {len(joints)} pairs", hint="one weight for each pair, in order")
        if not any(weights):
            raise Refused("/layer_weights", "every weight is 0, so there is nothing to learn", hint="give a layer a weight")
        terms = {"ab": Weighted(Boundaries(joints, weights, self.margin), self.weight)}
        if self.variant == "corrected":
            return Lesson(transfer=(Fit(terms, Recipe(epochs=self.epochs, schedule=Constant()), lr=self.lr),))
        recipe = Recipe(epochs=self.epochs, schedule=Drops(milestones=(0.75,), gamma=1.0), restart=True)
        return Lesson(transfer=(Fit(terms, recipe, lr=self.lr, teacher_mode="train"),))


class Boundaries(Term):
    """The weighted sum of the layers' hinges; `watch` gives the share of activations that agree, layer by layer."""

    def __init__(self, joints: Sequence[Joint], weights: Sequence[float], margin: float) -> None:
        super().__init__()
        self.teacher_taps = tuple(joint.pair.teacher for joint in joints)
        self.student_taps = tuple(joint.pair.student for joint in joints)
        self.weights, self.margin = tuple(weights), margin
        self.connectors = nn.ModuleList(_connector(joint) for joint in joints)

    def target(self, t: View) -> View:
        return View(t.logits, {tap: t.at[tap] > 0 for tap in self.teacher_taps})

    def forward(self, scene: Scene) -> Tensor:
        layers = zip(self.weights, self._layers(scene), strict=True)
        return torch.stack([weight * boundary(student, active, self.margin) for weight, (student, active) in layers]).sum()

    def watch(self, scene: Scene) -> Mapping[str, Tensor]:
        return {f"ab.similarity{k}": similarity(student > 0, active) for k, (student, active) in enumerate(self._layers(scene), 1)}

    def _layers(self, scene: Scene) -> list[tuple[Tensor, Tensor]]:
        """For each pair the student's pre-activation behind its connector, and the teacher's activation."""
        assert scene.t is not None
        ends = zip(self.connectors, self.student_taps, self.teacher_taps, strict=True)
        return [(connector(scene.s.at[s]), scene.t.at[t]) for connector, s, t in ends]


def _connector(joint: Joint) -> nn.Module:
    """From the student's channels to the teacher's: identity where they are equal, as published, else linear with batch norm."""
    into, out, maps = joint.student[0], joint.teacher[0], len(joint.student) == 3
    if into == out:
        return nn.Identity()
    linear = nn.Conv2d(into, out, 1, bias=False) if maps else nn.Linear(into, out, bias=False)
    nn.init.normal_(linear.weight, std=(2 / out) ** 0.5)
    return nn.Sequential(linear, nn.BatchNorm2d(out) if maps else nn.BatchNorm1d(out))
