"""The vocabulary of methods: what a term may look at, what a method adds to a job, and how lessons add up."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from core import random
from core.anatomy import Anatomy
from core.data.report import Domain
from core.errors import Refused
from core.optim import Clock, Recipe, Weight
from core.taps import Tap, Tapped, View


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a term may look at, for one batch of B samples.

    `x` (B, ...) is in the data's own range, `y` (B,) int64, none of the classes where there are no labels, `index` (B,) int64 the rows of
    the dataset. `s` is what the student showed, `t` what this term's own `target` kept of the teacher's view (None where the term says
    `teacher = "none"`). `teacher` is the network itself, None unless the term says `teacher = "network"`. `classes` (C,) bool
    marks the classes that the data has, None for all. `key` is a 0-d int64. `domain` says which values the
    data may have, and how they spread: an attack stays within. `bf16` says that the networks run under bfloat16 autocast in this fit.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    s: View
    t: View | None
    student: Tapped
    teacher: Tapped | None
    classes: Tensor | None
    key: Tensor
    domain: Domain
    bf16: bool = False
    notes: dict[str, Tensor] = field(default_factory=dict)

    def random(self, n: int = 1, stream: int = 0) -> Tensor:
        """(B, n) uniforms in [0, 1), a function of (key, index, stream): neither batch size nor a resume changes them."""
        return random.uniforms(self.key, self.index, n, stream)

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of this fit, for a term that calls a network again and does not need fp32."""
        return torch.autocast(self.x.device.type, torch.bfloat16, enabled=self.bf16)

    def note(self, name: str, value: Tensor) -> None:
        """Report the mean of a scalar beside the losses, as "bss.hit_rate"; kept on the device until the next report."""
        self.notes[name] = value.detach().float()


class Passes(NamedTuple):
    """What a term computes with whole networks beside the step's own passes of them: in forward passes of the batch, of which a backward
    pass to weights and input is two and one to the input alone is one. `*_kept` are the passes whose activations it holds at once.
    """

    student: float = 0.0
    teacher: float = 0.0
    student_kept: float = 0.0
    teacher_kept: float = 0.0


class Term(nn.Module):
    """One summand of a loss. Its parameters (connectors) are trained with the student, its buffers are kept in checkpoints.

    A term runs on the meta device too, where `plan` checks its shapes: no branch may depend on a value.
    """

    teacher_taps: tuple[Tap, ...] = ()
    student_taps: tuple[Tap, ...] = ()
    teacher: ClassVar[Literal["none", "view", "network"]] = "view"
    differentiates_input: ClassVar[bool] = False
    """Whether it calls `torch.autograd.grad` itself; `plan` then asks for its taps only."""
    reads_labels: bool = False
    """Whether its value depends on `scene.y`; `plan` refuses it where the data has no labels. `watch` never reads them."""
    optimum: float | None = None
    """Its value where student and teacher are one network, for the conformance tests; None where labels or connectors decide."""

    def target(self, t: View) -> View:
        """What of the teacher's view this term needs: pure, sample by sample, without parameters. By default the logits
        and its own taps.
        """
        return View(t.logits, {tap: t.at[tap] for tap in self.teacher_taps})

    def forward(self, scene: Scene) -> Tensor:
        """The loss, a scalar; its reduction is part of the term."""
        raise NotImplementedError

    def watch(self, scene: Scene) -> Mapping[str, Tensor]:
        """Scalars measured once an epoch on held-out data, in eval mode and without gradients; reported as means over the samples."""
        return {}

    def passes(self, batch: int, classes: int) -> Passes:
        """What this term costs in passes of the networks, for a batch of so many samples and a student of so many outputs: a step's time
        and memory are estimated with it. None where it only looks at what the step's own passes show.
        """
        return Passes()

    def facts(self) -> Mapping[str, Any]:
        """What the job's result says of this term once it has run, as plain JSON values: {"form": "tangent"}.

        A function of job and networks alone, so that a resumed job says the same. It asks a term of the training that ran at least once
        more; a term of a transfer fit may not run again, and keeps in a buffer what it learns by running.
        """
        return {}

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = super().__call__(*args, **kwargs)
        return loss


@dataclass(frozen=True, slots=True)
class Weighted:
    """A term and how much it counts: a number, or a function of the clock. At 0 the term is not evaluated."""

    term: Term
    weight: float | Callable[[Clock], float]

    def at(self, clock: Clock) -> float:
        """The weight at one step."""
        return self.weight(clock) if callable(self.weight) else self.weight

    @property
    def asleep(self) -> bool:
        """Whether the weight is 0 at every step."""
        return not callable(self.weight) and self.weight == 0


Surgery = Callable[[Tapped | None, Tapped, Tensor, torch.Generator], None]
"""Changes the student's weights once, before training: (teacher, student, first batch, generator seeded by (seed, ordinal))."""


Data = Literal["job", "teacher"]
"""Whose data a fit trains on."""


@dataclass(frozen=True, slots=True)
class Fit:
    """One stretch of training.

    `recipe` is what this fit needs otherwise than the job's recipe, the rest comes from there; `lr` is the learning rate
    where it is not the recipe's. `only` are prefixes of the student's modules that learn (all when empty); the rest has
    no gradient and runs in eval mode. `teacher_mode = "train"` moves the teacher's buffers.
    """

    terms: Mapping[str, Weighted]
    recipe: Recipe
    lr: float | None = None
    data: Data = "job"
    only: tuple[str, ...] = ()
    teacher_mode: Literal["eval", "train"] = "eval"


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a method adds to a job. Lessons add up; the empty lesson is the baseline without a teacher.

    `warnings` are what a person should know who asked for this: nothing is wrong, but something else may be meant. `keeps_outputs` says
    that weights of the student's output k become like those of the teacher's; refused where names tell that these are of other classes.
    """

    initialise: tuple[Surgery, ...] = ()
    transfer: tuple[Fit, ...] = ()
    train: Mapping[str, Weighted] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    keeps_outputs: bool = False

    def __add__(self, other: "Lesson") -> "Lesson":
        """Both, in order; `Refused` where both bring a term of the same name."""
        twice = sorted(self.train.keys() & other.train.keys())
        if twice:
            raise Refused("/methods", f"two methods bring the term {twice[0]!r}", hint="name each method once")
        train = {**self.train, **other.train}
        return Lesson(
            self.initialise + other.initialise,
            self.transfer + other.transfer,
            train,
            self.warnings + other.warnings,
            self.keeps_outputs or other.keeps_outputs,
        )


class Method(BaseModel):
    """A published way to teach: typed parameters beside a `name`, and the lesson they make.

    Subclasses live in `core/methods/`, one file each, with `name: Literal["<file>"]`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: ClassVar[str]
    """Where it was published."""
    needs_teacher: ClassVar[bool] = True
    """Whether the job must name a teacher."""
    answers_suffice: ClassVar[bool] = False
    """Whether the teacher's logits are all it needs of the teacher, so that one that shows nothing else will do."""
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Parameters worth showing. They stand on the method's page, and the conformance suite plays each of them."""
    pairs_by: ClassVar[Literal["out", "pre"] | None] = None
    """Which pairs of `core.anatomy.match` it makes its own of where a job names none; None for a method that pairs no taps."""

    name: str

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        """What this method adds, from the measurements of both networks alone; pure but for the initial weights of connectors, which come
        from torch's seeded generator. `Refused` where the networks do not fit, `where` relative to the method ("/pairs/0").
        """
        raise NotImplementedError


__all__ = ["Clock", "Data", "Fit", "Lesson", "Method", "Passes", "Scene", "Surgery", "Term", "Weight", "Weighted"]
