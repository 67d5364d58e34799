"""How a fit learns: the recipe, its optimiser, and everything that moves with the clock."""

import math
from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from core.data.augment import Augmentation
from core.errors import Refused


class Clock(NamedTuple):
    """Where a fit stands before a step: `epoch` counts from 0 to `epochs` - 1, `step` from 0 to `steps` - 1."""

    epoch: int
    epochs: int
    step: int
    steps: int

    @property
    def progress(self) -> float:
        """The fraction of the fit's steps that are done, in [0, 1)."""
        return self.step / self.steps


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Linear(_Part):
    """A weight that moves in a straight line over the epochs and then stays: `{"linear": [4, 1], "until": 0.75}`, at 1 from 75 %."""

    linear: tuple[Annotated[float, Field(ge=0, le=1e6)], Annotated[float, Field(ge=0, le=1e6)]] = Field(
        description="The weight before the first epoch, and the weight from `until` on."
    )
    until: float = Field(1.0, gt=0, le=1, description="The fraction of the fit's epochs after which the second weight is reached.")

    def __call__(self, clock: Clock) -> float:
        """The weight of one epoch; epochs count from 1 here, as the published schedules do.

        >>> Linear(linear=(4, 1), until=0.75)(Clock(epoch=0, epochs=4, step=0, steps=400))
        3.0
        """
        start, end = self.linear
        return start + (end - start) * min(1.0, (clock.epoch + 1) / clock.epochs / self.until)


Weight = Annotated[float, Field(ge=0, le=1e6)] | Linear
"""How much a term counts: a number, or a line over the epochs. A term of weight 0 is not evaluated."""


class SGD(_Part):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(0.1, gt=0, le=100, description="The learning rate that the schedule multiplies.")
    momentum: float = Field(0.9, ge=0, lt=1, description="How much of the last direction is kept.")
    nesterov: bool = Field(True, description="Look ahead along the momentum; needs momentum.")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="The L2 penalty on every parameter that learns.")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class AdamW(_Part):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0, le=10, description="The learning rate that the schedule multiplies.")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="Decay rates of the first and second moment."
    )
    eps: float = Field(1e-8, gt=0, le=1, description="Added to the root of the second moment.")
    weight_decay: float = Field(1e-2, ge=0, le=1, description="The fraction of each parameter that a step removes, times the rate.")


class _Schedule(_Part):
    warmup: float = Field(0.0, ge=0, lt=1, description="The fraction of the fit's steps over which the rate rises from 0 in a line.")

    def factor(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied with at one step: a pure function of the step."""
        rising = round(self.warmup * steps)
        return (step + 1) / rising if step < rising else self._after(step, rising, steps)

    def _after(self, step: int, rising: int, steps: int) -> float:
        raise NotImplementedError


class Constant(_Schedule):
    """The rate stays."""

    name: Literal["constant"] = "constant"

    def _after(self, step: int, rising: int, steps: int) -> float:
        return 1.0


class Drops(_Schedule):
    """The rate is multiplied by `gamma` at each milestone."""

    name: Literal["step"] = "step"
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.5, 0.75), max_length=1024, description="Fractions of the fit's steps, rounded to whole steps: 0.625 is epoch 150 of 240."
    )
    gamma: float = Field(0.1, gt=0, le=1, description="The factor of one drop; 1 leaves the rate, for the sake of `restart` alone.")

    @classmethod
    def each_epoch(cls, epochs: int, gamma: float, *, where: str) -> "Drops":
        """A drop after each of so many epochs but the last; `Refused` at `where` for more drops than there may be."""
        if epochs > 1025:
            raise Refused(where, f"{epochs} epochs are more than a drop after each is made for", hint="at most 1025 epochs, or no drops")
        return cls(milestones=tuple(epoch / epochs for epoch in range(1, epochs)), gamma=gamma)

    def drops(self, steps: int) -> tuple[int, ...]:
        """The steps before which the rate drops."""
        return tuple(round(milestone * steps) for milestone in self.milestones)

    def _after(self, step: int, rising: int, steps: int) -> float:
        return float(self.gamma ** sum(step >= drop for drop in self.drops(steps)))


class Cosine(_Schedule):
    """The rate falls along half a cosine (Loshchilov & Hutter 2017), step by step."""

    name: Literal["cosine"] = "cosine"
    final: float = Field(0.0, ge=0, lt=1, description="The fraction of the rate that is left at the end.")

    def _after(self, step: int, rising: int, steps: int) -> float:
        return _half_cosine(1.0, self.final, (step - rising) / (steps - rising))


class OneCycle(_Part):
    """The rate rises to its peak and then falls to almost nothing (Smith 2018, arXiv 1803.09820), step by step.

    Along two half cosines, as torch's `OneCycleLR` draws them; the paper has lines, and moves the momentum the other way, which stays
    here. The rise is the warm-up: there is no other.
    """

    name: Literal["onecycle"] = "onecycle"
    rise: float = Field(0.3, gt=0, lt=1, description="The fraction of the fit's steps over which the rate rises to the optimizer's `lr`.")
    div: float = Field(25.0, ge=1, le=1e6, description="The first step's rate is `lr` divided by this.")
    final_div: float = Field(1e4, ge=1, le=1e9, description="The last step's rate is the first step's divided by this.")

    def factor(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied with at one step: a pure function of the step."""
        peak = self.rise * steps - 1
        if step < peak:
            return _half_cosine(1 / self.div, 1.0, step / peak)
        return _half_cosine(1.0, 1 / (self.div * self.final_div), (step - peak) / (steps - 1 - peak))


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


class Recipe(_Part):
    """How one fit learns. A step is one optimiser step.

    A method's transfer fit states only what it needs otherwise than the job: `Recipe(epochs=20).over(job)` takes the rest from the job.
    Milestones and warm-ups are fractions, so they fit a fit of any length.
    """

    epochs: int = Field(100, ge=1, le=100_000, description="Passes over the training data.")
    batch_size: int = Field(128, ge=2, le=65_536, description="Samples in one forward pass.")
    optimizer: Annotated[SGD | AdamW, Field(discriminator="name")] = Field(default=SGD(), description="What moves the parameters.")
    schedule: Annotated[Constant | Drops | Cosine | OneCycle, Field(discriminator="name")] = Field(
        default=Cosine(), description="How the learning rate moves over the fit."
    )
    task_weight: Weight = Field(1.0, description="The weight of the cross-entropy with the labels; 0 where there are none.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="`bf16` runs networks under bfloat16 autocast and every loss in fp32; `auto` is bf16 on a GPU that has it, else fp32.",
    )
    reshuffle: bool = Field(True, description="Draw the order of the samples anew for each epoch; `false` keeps that of the first.")
    accumulate: int = Field(1, ge=1, le=1024, description="Batches whose gradients are averaged into one optimiser step.")
    clip: float | None = Field(None, gt=0, le=1e6, description="The largest L2 norm of a step's whole gradient; none when left out.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="The part of each label that is spread over all classes.")
    augmentation: tuple[Augmentation, ...] = Field(
        (),
        max_length=8,
        description="Random views of the training images: crop, then flip, then cutout, however they are listed, each at most once.",
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description=(
            "The decay, such as 0.999, of an exponential moving average of the student: after each step, average = decay × average + "
            "(1 - decay) × student. Step n, counted from 1, uses (n - 1) / (n + 8) until that reaches this value, so that the average of "
            "a short job forgets its first steps. The averaged student, batch-norm statistics too, is what is validated, tested and "
            "exported. Kept in the training itself only: a method's transfer fits make no result. No average when left out."
        ),
    )
    restart: bool = Field(False, description="Empty the optimiser's state at each milestone of a step schedule.")

    @field_validator("augmentation")
    @classmethod
    def _each_once(cls, steps: tuple[Augmentation, ...]) -> tuple[Augmentation, ...]:
        # Two of a kind would make the same draws.
        if len({step.name for step in steps}) < len(steps):
            raise ValueError("each kind of step may be listed once")
        return steps

    @model_validator(mode="after")
    def _restart_needs_drops(self) -> "Recipe":
        if self.restart and not isinstance(self.schedule, Drops):
            raise ValueError("restart needs the schedule `step`: no other has milestones")
        return self

    def over(self, job: "Recipe", *, lr: float | None = None) -> "Recipe":
        """This recipe with all that it leaves unsaid taken from the job's, the rate too unless `lr` says another."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        if lr is not None:
            said["optimizer"] = said.get("optimizer", job.optimizer).model_copy(update={"lr": lr})
        if "schedule" in said:
            said["restart"] = self.restart  # the job's milestones are not this schedule's
        return job.model_copy(update=said)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate at one step of a fit of `steps` steps."""
        return self.optimizer.lr * self.schedule.factor(step, steps)

    def decay(self, step: int) -> float:
        """How much of the average one step keeps, under a recipe with `ema`. At step 0 nothing: the average begins as what that step made.

        >>> [Recipe(ema=0.15).decay(step) for step in (0, 1, 9)]
        [0.0, 0.1, 0.15]
        """
        assert self.ema is not None
        return min(self.ema, step / (step + 9))

    def restarts(self, step: int, steps: int) -> bool:
        """Whether the optimiser's state is emptied before this step."""
        return self.restart and isinstance(self.schedule, Drops) and step in self.schedule.drops(steps)


def optimiser(recipe: Recipe, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """A new optimiser over some parameters; its rate is set at each step."""
    match recipe.optimizer:
        case SGD(lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay):
            # Not `fused`: it fails where a parameter gets its first gradient later than others, as a connector whose weight rises may.
            return torch.optim.SGD(parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay)
        case AdamW(lr=lr, betas=betas, eps=eps, weight_decay=decay):
            return torch.optim.AdamW(parameters, lr=lr, betas=betas, eps=eps, weight_decay=decay)
