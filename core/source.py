"""Where the batches of a fit and the teacher's views of them come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from core.data.report import Domain
from core.data.rows import Batch, Rows
from core.method import Term
from core.taps import Tapped, View


class Batches(Protocol):
    """The batches of one fit by number, no iterator: `steps` of them in an epoch, each the samples of one optimiser step."""

    steps: int
    classes: Tensor | None
    """(C,) bool: the classes that this data has; None for all."""
    domain: Domain

    def __call__(self, epoch: int, i: int) -> Batch:
        """Batch `i` of an epoch, both counted from 0: a pure function."""


class Source(Protocol):
    """Batches with what each term needs of the teacher's view of them."""

    steps: int
    classes: Tensor | None
    domain: Domain

    def __call__(self, epoch: int, i: int, terms: Mapping[str, Term]) -> tuple[Batch, Mapping[str, View]]:
        """One batch, and by term name what that term's `target` returned; terms that look at no teacher are not in it."""


class Live:
    """A source that runs the teacher on each batch, once for all terms, and not at all where no term looks at it."""

    def __init__(self, batches: Batches, teacher: Tapped | None) -> None:
        self.batches, self.teacher = batches, teacher
        self.steps, self.classes, self.domain = batches.steps, batches.classes, batches.domain

    def __call__(self, epoch: int, i: int, terms: Mapping[str, Term]) -> tuple[Batch, Mapping[str, View]]:
        """See `Source.__call__`."""
        batch = self.batches(epoch, i)
        return batch, targets(self.teacher, batch.x, terms)


def targets(teacher: Tapped | None, x: Tensor, terms: Mapping[str, Term]) -> dict[str, View]:
    """What each term that looks at the teacher needs of its view of `x`; the pass may run under autocast, `target` never does."""
    looking = {name: term for name, term in terms.items() if term.teacher != "none"}
    if not looking:
        return {}
    assert teacher is not None, "plan refuses terms that need a teacher where there is none"
    with torch.no_grad():
        view = teacher(x)
        with torch.autocast(x.device.type, enabled=False):
            return {name: term.target(view) for name, term in looking.items()}


@dataclass(frozen=True, slots=True)
class Sources:
    """The data of a whole job: the batches of each fit of its plan, the validation split if there is one, and the test split."""

    fits: Sequence[Batches]
    validation: Rows | None
    test: Rows
