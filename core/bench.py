"""All that changes while a job trains, in one place, so that it can be frozen at any step and thawed elsewhere."""

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from core.errors import Diverged, Unresumable
from core.method import Clock, Fit, Term
from core.optim import optimiser
from core.taps import Tapped


class Meters:
    """Sums of reported values since the last report, on the device: reading them is the one synchronisation of a report."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count one value of each name. A sum is (total, count), float64."""
        for name, value in values.items():
            one = torch.stack([value.detach().double(), torch.ones((), dtype=torch.float64, device=value.device)])
            self.sums[name] = self.sums[name] + one if name in self.sums else one

    def read(self) -> dict[str, float]:
        """The mean of each name, sorted, and empty the meters."""
        names = sorted(self.sums)
        rows = torch.stack([self.sums[name] for name in names]).tolist() if names else []
        self.sums.clear()
        return {name: total / count for name, (total, count) in zip(names, rows, strict=True)}


class Bench:
    """The student and its average, the terms, the optimiser, the meters and the position (fit, step) of a job.

    `steps` are the optimiser steps of one epoch of each fit. `step` counts the steps done in this fit; `told` the
    epochs whose evaluation was told. A step is whole or not begun: nothing between two yields of `fit` is left out of
    `freeze`.
    """

    def __init__(
        self, fits: Sequence[Fit], steps: Sequence[int], student: Tapped, teacher: Tapped | None, *, seed: int, report_seconds: float = 0.5
    ) -> None:
        self.fits, self.per_epoch = tuple(fits), tuple(steps)
        self.student, self.teacher = student, teacher
        self.seed, self.report_seconds = seed, report_seconds
        self.device = student.mean.device
        self.fit, self.step, self.told = 0, 0, 0
        self.meters = Meters()
        for each in self.fits:
            for weighted in each.terms.values():
                weighted.term.to(self.device)
        self.enter(0)

    @property
    def now(self) -> Fit:
        """The fit that is under way."""
        return self.fits[self.fit]

    @property
    def examined(self) -> Tapped:
        """The student that is validated, and given away in the end: the average of its steps where this fit keeps one."""
        return self.student if self.ema is None else self.ema

    @property
    def terms(self) -> dict[str, Term]:
        """The terms of this fit that ever count, by name, sorted: sums are taken in this order."""
        return {name: self.now.terms[name].term for name in sorted(self.now.terms) if not self.now.terms[name].asleep}

    @property
    def phase(self) -> str:
        """ "train" for the last fit, "transfer" for those before."""
        return "train" if self.fit == len(self.fits) - 1 else "transfer"

    @property
    def steps(self) -> int:
        """The optimiser steps of this fit."""
        return self.per_epoch[self.fit] * self.now.recipe.epochs

    @property
    def of(self) -> int:
        """The optimiser steps of the whole job."""
        return sum(steps * fit.recipe.epochs for steps, fit in zip(self.per_epoch, self.fits, strict=True))

    @property
    def done(self) -> int:
        """The optimiser steps done in the whole job."""
        before = zip(self.per_epoch[: self.fit], self.fits[: self.fit], strict=True)
        return self.step + sum(steps * fit.recipe.epochs for steps, fit in before)

    @property
    def clock(self) -> Clock:
        """Where this fit stands before its next step."""
        return Clock(self.step // self.per_epoch[self.fit], self.now.recipe.epochs, self.step, self.steps)

    def enter(self, fit: int) -> None:
        """Begin a fit: its parameters learn, the others do not, its optimiser is new, and so is its average. The teacher is frozen."""
        self.fit, self.step, self.told = fit, 0, 0
        self.meters = Meters()
        if self.teacher is not None:
            self.teacher.requires_grad_(False).eval()
        for name, parameter in self.student.network.named_parameters():
            parameter.requires_grad_(self.learns(name))
        self._learning = dict(self._named_learning())
        self.optimiser = optimiser(self.now.recipe, self._learning.values())
        averages = self.phase == "train" and self.now.recipe.ema is not None
        self.ema = copy.deepcopy(self.student).requires_grad_(False).eval() if averages else None
        self._averages = None if self.ema is None else (_floats(self.ema.network), _floats(self.student.network))

    def learns(self, name: str) -> bool:
        """Whether the student's module or parameter of this name learns in this fit."""
        return not self.now.only or any(name == prefix or name.startswith(f"{prefix}.") for prefix in self.now.only)

    def follow(self) -> None:
        """Move the average towards the student that step `step` has just made, all tensors in one call."""
        if self._averages is not None:
            averages, latest = self._averages
            get_ema_multi_avg_fn(self.now.recipe.decay(self.step))(averages, latest, self.step)  # type: ignore[no-untyped-call]

    def adopt(self) -> None:
        """Leave the average in the student, for whoever holds it. Twice is as once: a bench frozen afterwards resumes to the same."""
        if self._averages is not None:
            averages, latest = self._averages
            with torch.no_grad():
                for average, value in zip(averages, latest, strict=True):
                    value.copy_(average)

    def parameters(self) -> list[Tensor]:
        """What the optimiser of this fit moves: the student's parameters that learn, and the terms' own."""
        return list(self._learning.values())

    def check(self) -> None:
        """`Diverged` where what learns, or a statistic of the student, is not finite: a loss looks well until the step that breaks them."""
        tensors = (*self._learning.values(), *self.student.network.parameters(), *self.student.network.buffers())
        if not bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all()):
            raise self.diverged("a weight is no longer finite")

    def diverged(self, what: str) -> Diverged:
        """What went wrong, with the place where it was seen; epochs count from 1 here, as people do."""
        epoch = -(-self.step // self.per_epoch[self.fit])
        return Diverged(f"{what} in epoch {epoch} of {self.now.recipe.epochs} (step {self.step} of fit {self.fit})")

    def freeze(self) -> bytes:
        """Everything, as the bytes of a safetensors file; nothing in it needs unpickling. `Diverged` where it is not worth keeping."""
        self.check()
        state = {name: tensor.detach() for name, tensor in self._changing()}
        for name, parameter in self._learning.items():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    state[f"optimiser/{name}/{key}"] = value
        for name, total in self.meters.sums.items():
            state[f"meters/{name}"] = total
        state["position"] = torch.tensor([self.fit, self.step, self.told])
        # Copies: tied weights share memory, which the format refuses, and the next step would change what is being written.
        return save({name: state[name].to("cpu", copy=True).contiguous() for name in sorted(state)})

    def thaw(self, blob: bytes) -> None:
        """Put everything back, into the existing parameters, so that their device and memory layout stay. `Unresumable` for other bytes."""
        try:
            state = load(blob)
        except SafetensorError as wrong:
            raise Unresumable(f"the checkpoint cannot be read: {wrong}") from wrong
        position = state.pop("position", torch.empty(0))
        fit, step, told = (int(number) for number in position) if position.shape == (3,) else (-1, 0, 0)
        if not 0 <= fit < len(self.fits):
            raise Unresumable("the checkpoint is of another plan: its position is in none of the fits")
        self.enter(fit)
        self.step, self.told = step, told
        with torch.no_grad():
            for name, tensor in self._changing():
                if name not in state or state[name].shape != tensor.shape:
                    raise Unresumable(f"the checkpoint is of another plan: {name!r} is missing or has another shape")
                tensor.copy_(state.pop(name))
        for name, value in state.items():
            kind, _, rest = name.partition("/")
            owner, _, key = rest.rpartition("/")
            if kind == "meters":
                self.meters.sums[rest] = value.to(self.device)
            elif kind == "optimiser" and owner in self._learning:
                parameter = self._learning[owner]
                # Adam's counter stays on the CPU; everything else lies as its parameter does.
                self.optimiser.state[parameter][key] = value if key == "step" else torch.empty_like(parameter).copy_(value)
            else:
                raise Unresumable(f"the checkpoint is of another plan: nothing here is called {name!r}")

    def _named_learning(self) -> Iterator[tuple[str, nn.Parameter]]:
        seen: set[int] = set()
        own = ((f"student/{name}", parameter) for name, parameter in self.student.network.named_parameters() if self.learns(name))
        brought = (
            (f"terms/{term}/{name}", parameter) for term, module in self.terms.items() for name, parameter in module.named_parameters()
        )
        for name, parameter in (*own, *brought):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def _changing(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers, of modules that share some too: each name once, tensors perhaps twice."""
        yield from _tensors("student", self.student.network)
        if self.ema is not None:
            yield from _tensors("ema", self.ema.network)
        for number, fit in enumerate(self.fits):
            # All fits, not this one: a connector trained in one may be used again in a later one.
            for name, weighted in fit.terms.items():
                yield from _tensors(f"terms/{number}/{name}", weighted.term)
        if self.teacher is not None and any(fit.teacher_mode == "train" for fit in self.fits):
            yield from ((f"teacher/{name}", buffer) for name, buffer in self.teacher.network.named_buffers())


def _tensors(prefix: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        yield f"{prefix}/{name}", tensor


def _floats(network: nn.Module) -> list[Tensor]:
    """What of a network can be averaged: its parameters and the statistics among its buffers. Counters cannot, and eval mode reads none."""
    return [tensor for tensor in (*network.parameters(), *network.buffers()) if tensor.is_floating_point()]
