"""Anti-distillation: a small teacher prepares a larger student for harder data, before the student is trained on that.

In a transfer fit on the `teacher_dataset` the student learns what should serve it later: near to the teacher, at ease with noise on its
inputs, in a flat place. With CE the mean cross-entropy with the labels, u the teacher's weights and Pr[w] those of the student's weights w
that have a counterpart in it (of every layer of the same name the first rows and columns):

    L = l1 CE(w) + l2 |u - Pr[w]|^2 + l3 E CE(w at x + e) + l4 tr H,   e uniform in [-delta, delta] for each value of x

H is the Hessian of CE by all weights; classes without data take no probability. The trace is exact, and never negative, for linear layers,
convolutions and batch norms with ReLUs and pooling between; else it is v^T H v averaged over a few vectors v of random signs, with its
standard error as `trace.error`, and 0 where that is below 0. Noise and trace see the student in eval mode.

Use it to grow: where a small network knows an easier task, with fewer classes perhaps, and a larger one is to learn a harder task from the
start. Layers are shared by name, so both networks are of one family, and the student is at least as wide and as deep everywhere.

Cost: a pass more for the noise. The exact trace takes the derivatives of every layer for each class that the data has, which is several
times an ordinary step's work; four probes by reverse mode three times take several times that (`make trace`).

The Hessian of a logistic regression without bias at x = 2, from the logits (0, 0): p (1 - p) x^2 = 1 for each of two classes.

>>> import torch
>>> from core.taps import Tapped
>>> from core.trace import closed_form
>>> logistic = torch.nn.Linear(1, 2, bias=False)
>>> _ = torch.nn.init.zeros_(logistic.weight)
>>> closed_form(Tapped(logistic), torch.tensor([[2.0]])).item()
2.0

Reference: K. Petrushina, O. Bakhteev, A. Grabovoy, V. Strijov, Anti-Distillation: Knowledge Transfer from a Simple Model to the Complex
One, 2022; code intsystems/anti-distillation.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.anatomy import Anatomy
from core.errors import Refused
from core.growth import same_normalization
from core.method import Fit, Lesson, Method, Passes, Scene, Term, Weight, Weighted
from core.optim import Drops, Recipe
from core.terms import CrossEntropy
from core.trace import Curvature, Form


class AntiDistillation(Method):
    """Fit the teacher's data near the teacher's weights, against noise, where the loss is flat; then train."""

    reference: ClassVar[str] = "Petrushina, Bakhteev, Grabovoy & Strijov, Anti-Distillation, 2022"
    examples = ({"epochs": 5}, {"variant": "official", "epochs": 5}, {"epochs": 1, "trace": "hutchinson", "probes": 16})

    name: Literal["anti_distillation"] = "anti_distillation"
    epochs: int = Field(15, ge=1, le=100_000, description="Epochs of the transfer fit, before those of the recipe.")
    lr: float | None = Field(None, gt=0, le=100, description="The fit's rate; the recipe's when left out. Published: 0.005, with Adam.")
    decay: float | None = Field(None, gt=0, le=1, description="The rate's factor after each epoch; else the schedule's. Published: 0.85.")
    labels_weight: Weight = Field(1.0, description="l1: the weight of the cross-entropy on the teacher's data.")
    distance_weight: Weight = Field(1.0, description="l2: the weight of the squared distance to the teacher's weights, summed over them.")
    noise_weight: Weight = Field(1.0, description="l3: the weight of the cross-entropy under noise.")
    trace_weight: Weight = Field(0.001, description="l4: the weight of the trace. Ours: 0.1 kept the paper's student from learning.")
    delta: float = Field(0.05, gt=0, le=1e6, description="How far noise moves each value of an input, in data units.")
    trace: Form = Field("auto", description="How the trace is found; `auto`: the closed form where that is exact, else `hutchinson`.")
    probes: int = Field(4, ge=2, le=1024, description="How many vectors an estimate of the trace takes.")
    variant: Literal["official", "corrected"] = Field(
        "corrected",
        description="`corrected` is L. `official` is the published code: the distance is not squared, absent logits are 0 in the softmax, "
        "and the trace, whose gradient is cut off there and changes nothing, is not computed.",
    )

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        """One transfer fit on the teacher's data, of those of the four terms whose weight is not 0."""
        assert teacher is not None
        official, terms = self.variant == "official", dict[str, Weighted]()
        if self.labels_weight != 0:
            terms["anti_distillation.labels"] = Weighted(Labels(0.0, official=official), self.labels_weight)
        if self.distance_weight != 0:
            same_normalization(teacher, student)
            terms["anti_distillation.distance"] = Weighted(Distance(shared(teacher, student), squared=not official), self.distance_weight)
        if self.noise_weight != 0:
            terms["anti_distillation.noise"] = Weighted(Labels(self.delta, official=official), self.noise_weight)
        if self.trace_weight != 0 and not official:
            terms["anti_distillation.trace"] = Weighted(Curvature(self.trace, self.probes), self.trace_weight)
        schedule = {} if self.decay is None else {"schedule": Drops.each_epoch(self.epochs, self.decay, where="/decay")}
        fit = Fit(terms, Recipe(epochs=self.epochs, **schedule), lr=self.lr, data="teacher")
        vain = [n for n in ("trace_weight", "trace", "probes") if official and getattr(self, n) != type(self).model_fields[n].default]
        warnings = tuple(f"{name}: the official variant computes no trace, so it changes nothing" for name in vain)
        return Lesson(transfer=(fit,), warnings=warnings, keeps_outputs=self.distance_weight != 0)


def shared(teacher: Anatomy, student: Anatomy) -> tuple[str, ...]:
    """The names of the teacher's weights, each of which the student has too and at least as large; `Refused` where that fails."""
    hint = "a student of the teacher's family, at least as wide and deep everywhere; or a distance_weight of 0"
    for name, theirs in teacher.weights.items():
        ours = student.weights.get(name)
        if ours is None:
            raise Refused("/distance_weight", f"the student has no {name!r}, and the teacher does", hint=hint)
        if len(ours) != len(theirs) or any(mine < its for mine, its in zip(ours, theirs, strict=True)):
            raise Refused("/distance_weight", f"{name!r} is {theirs} in the teacher and {ours} in the student", hint=hint)
    if student.family != teacher.family:
        raise Refused("/distance_weight", f"the student is of the family {student.family} and the teacher of {teacher.family}", hint=hint)
    return tuple(teacher.weights)


class Labels(Term):
    """The cross-entropy with the labels, of inputs that noise has moved by at most delta."""

    teacher = "none"
    reads_labels = differentiates_input = True  # it shows the student inputs of its own, and in a rehearsal there is no student

    def __init__(self, delta: float, *, official: bool) -> None:
        super().__init__()
        self.delta, self.official = delta, official

    def passes(self, batch: int, classes: int) -> Passes:
        return Passes(student=3, student_kept=1) if self.delta else Passes()

    def forward(self, scene: Scene) -> Tensor:
        shown = scene.s
        if self.delta:
            noise = self.delta * (2 * scene.random(scene.x[0].numel()) - 1)
            with scene.autocast(), scene.student.quiet():
                shown = scene.student(scene.x + noise.view_as(scene.x))
        if self.official and scene.classes is not None:
            return nn.functional.cross_entropy(shown.logits * scene.classes, scene.y)
        return CrossEntropy()(replace(scene, s=shown))

    def facts(self) -> Mapping[str, Any]:
        """That the official variant has no trace."""
        return {"trace": "not computed: it has no gradient in the published code"} if self.official else {}


class Distance(Term):
    """The squared distance of the shared weights from the teacher's, summed; its root where not `squared`. Buffers are no weights."""

    teacher = "network"
    optimum = 0.0

    def __init__(self, names: tuple[str, ...], *, squared: bool) -> None:
        super().__init__()
        self.names, self.squared = names, squared

    def forward(self, scene: Scene) -> Tensor:
        assert scene.teacher is not None
        ours, theirs = (dict(tapped.network.named_parameters()) for tapped in (scene.student, scene.teacher))
        blocks = ((ours[name][tuple(map(slice, its.shape))], its) for name, its in theirs.items() if name in self.names)
        gaps = torch.cat([(block - its).flatten() for block, its in blocks])
        return gaps.square().sum() if self.squared else torch.linalg.vector_norm(gaps)
