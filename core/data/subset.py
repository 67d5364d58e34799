"""The splits of a job: which part of a dataset it takes, and what of that is set aside for validation."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.data.rows import Rows
from core.data.split import draw, set_aside, shares
from core.errors import Refused


class Take(Protocol):
    """How much of the training split is used: at most one of the three is not None."""

    @property
    def total(self) -> int | None: ...
    @property
    def per_class(self) -> int | None: ...
    @property
    def fraction(self) -> float | None: ...


class Reference(Protocol):
    """The dataset part of a job spec, as far as the choice of rows goes."""

    @property
    def take(self) -> Take | None: ...
    @property
    def validation(self) -> float: ...
    @property
    def seed(self) -> int: ...


class Source(Protocol):
    """What has splits: a dataset."""

    def split(self, name: str) -> Rows: ...


@dataclass(frozen=True, slots=True)
class Splits:
    """The rows of one job. Only `train` is trained on, `test` is read once, at the end."""

    train: Rows
    validation: Rows | None
    test: Rows


def subset(dataset: Source, ref: Reference, *, where: str = "/dataset") -> Splits:
    """The rows that a job spec's dataset part names: stratified, seeded, and the same for ever.

    `take` comes first and `validation` is a part of what was taken: validation images count among the labelled ones. A dataset that
    brings its own validation split uses that one, where validation is wanted at all. Raises Refused at `where` where there are too
    few samples.
    """
    train = dataset.split("train")
    taken = _taken(train.labels, ref, where)
    try:
        own = dataset.split("validation")
    except KeyError:
        own = None
    if not ref.validation:
        return Splits(train.only(taken), None, dataset.split("test"))
    if own is not None:
        return Splits(train.only(taken), own, dataset.split("test"))
    kept, aside = set_aside(train.labels, taken, ref.validation, "validation", ref.seed)
    if not len(aside):
        raise Refused(
            f"{where}/validation", f"{len(taken)} samples are too few to set some aside for validation", hint="take more, or say 0"
        )
    return Splits(train.only(kept), train.only(aside), dataset.split("test"))


def _taken(labels: NDArray[np.int64], ref: Reference, where: str) -> NDArray[np.int64]:
    rows = np.arange(len(labels))
    if ref.take is None:
        return rows
    counts = {int(label): int(count) for label, count in zip(*np.unique(labels, return_counts=True), strict=True)}
    if ref.take.per_class is not None:
        few = [label for label, count in counts.items() if count < ref.take.per_class]
        if few:
            raise Refused(
                f"{where}/take/per_class", f"class {few[0]} has {counts[few[0]]} training samples, {ref.take.per_class} are asked for"
            )
        wanted = dict.fromkeys(counts, ref.take.per_class)
    else:
        total = ref.take.total if ref.take.total is not None else round((ref.take.fraction or 0) * len(labels))
        name = "total" if ref.take.total is not None else "fraction"
        if not len(counts) <= total <= len(labels):
            reason = f"{total} samples are asked for; there are {len(labels)} in {len(counts)} classes"
            raise Refused(f"{where}/take/{name}", reason, hint="at least one of each class, at most all")
        wanted = shares(counts, total)
    return draw(labels, rows, wanted, "take", ref.seed)
