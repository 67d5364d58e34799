"""The splits of a job: which part of a dataset it takes, and what of that is set aside for validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.data.classes import used
from core.data.report import DatasetReport
from core.data.rows import Rows
from core.data.split import Take, counted, draw, set_aside, taken
from core.errors import Refused


class Reference(Protocol):
    """The dataset part of a job spec, as far as the choice of rows goes."""

    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def take(self) -> Take | None: ...
    @property
    def validation(self) -> float: ...
    @property
    def seed(self) -> int: ...


class Source(Protocol):
    """What has splits: a dataset."""

    @property
    def report(self) -> DatasetReport: ...
    def split(self, name: str) -> Rows: ...


@dataclass(frozen=True, slots=True)
class Splits:
    """The rows of one job. Only `train` is trained on, `test` is read once, at the end."""

    train: Rows
    validation: Rows | None
    test: Rows


def subset(dataset: Source, ref: Reference, *, outputs: Sequence[str] | None = None, where: str = "/dataset") -> Splits:
    """The rows that a job spec's dataset part names: stratified, seeded, and the same for ever.

    `outputs` are the names of the networks' outputs, by which the samples are labelled; None for the dataset's own classes. Of the rows of
    the chosen `classes` `take` comes first and `validation` is a part of what was taken: validation images count among the labelled ones.
    A dataset that brings its own validation split uses that one, where validation is wanted at all. Raises Refused at `where` where there
    are too few samples.
    """
    names = dataset.report.class_names if outputs is None else outputs
    belongs = used(dataset.report, ref.classes, names, where=where)

    def split(name: str) -> Rows:
        rows = dataset.split(name)
        return rows.named(belongs, len(names)) if rows.labelled else rows

    train = split("train")
    # Drawn by the dataset's own labels: a teacher's job and its student's draw the same, however many outputs their networks have.
    labels, rows = dataset.split("train").labels, train.position
    if ref.take is not None:
        rows = draw(labels, rows, taken(counted(labels[rows]), ref.take, where=where), "take", ref.seed)
    try:
        own = split("validation")
    except KeyError:
        own = None
    if not ref.validation:
        return Splits(train.only(rows), None, split("test"))
    if own is not None:
        return Splits(train.only(rows), own, split("test"))
    kept, aside = set_aside(labels, rows, ref.validation, "validation", ref.seed)
    if not len(aside):
        raise Refused(
            f"{where}/validation", f"{len(rows)} samples are too few to set some aside for validation", hint="take more, or say 0"
        )
    return Splits(train.only(kept), train.only(aside), split("test"))
