"""Which rows a job uses."""

from dataclasses import dataclass

import numpy as np
import pytest

from core.data.rows import Rows
from core.data.subset import subset
from core.errors import Refused
from tests.core.toys import DOMAIN


@dataclass(frozen=True)
class Take:
    total: int | None = None
    per_class: int | None = None
    fraction: float | None = None


@dataclass(frozen=True)
class Reference:
    take: Take | None = None
    validation: float = 0.0
    seed: int = 0


class Toy:
    """A dataset of two classes, 60 and 40 training samples; perhaps with a validation split."""

    def __init__(self, *, validation: bool = False) -> None:
        labels = np.repeat([0, 1], [60, 40])
        self.splits = {"train": Rows.whole(np.zeros((100, 2), np.float32), labels, classes=2, domain=DOMAIN)}
        if validation:
            self.splits["validation"] = Rows.whole(np.zeros((10, 2), np.float32), labels[55:65], first=100, classes=2, domain=DOMAIN)
        self.splits["test"] = Rows.whole(np.zeros((20, 2), np.float32), labels[50:70], first=200, classes=2, domain=DOMAIN)

    def split(self, name: str) -> Rows:
        return self.splits[name]


def test_all_of_it_by_default() -> None:
    splits = subset(Toy(), Reference())
    assert (len(splits.train), splits.validation, len(splits.test)) == (100, None, 20)


@pytest.mark.parametrize(
    ("take", "counts"),
    [
        (Take(total=10), [6, 4]),
        (Take(total=11), [7, 4]),
        (Take(per_class=5), [5, 5]),
        (Take(fraction=0.5), [30, 20]),
        (Take(total=100), [60, 40]),
    ],
)
def test_a_take_is_stratified(take: Take, counts: list[int]) -> None:
    assert np.bincount(subset(Toy(), Reference(take)).train.y).tolist() == counts


def test_validation_is_a_part_of_what_was_taken_and_keeps_the_rows_numbers() -> None:
    whole = subset(Toy(), Reference(Take(total=50))).train
    splits = subset(Toy(), Reference(Take(total=50), validation=0.2))
    assert splits.validation is not None
    assert np.bincount(splits.validation.y).tolist() == [6, 4]
    assert sorted([*splits.train.index, *splits.validation.index]) == whole.index.tolist()
    again = subset(Toy(), Reference(Take(total=50), validation=0.2, seed=1))
    assert again.train.index.tolist() != splits.train.index.tolist()


def test_a_datasets_own_validation_split_is_used_unless_none_is_wanted() -> None:
    splits = subset(Toy(validation=True), Reference(validation=0.5))
    assert splits.validation is not None
    assert (len(splits.train), splits.validation.index.tolist()) == (100, list(range(100, 110)))
    assert subset(Toy(validation=True), Reference(validation=0)).validation is None


@pytest.mark.parametrize(
    ("reference", "where"),
    [
        (Reference(Take(per_class=41)), "/dataset/take/per_class"),
        (Reference(Take(total=101)), "/dataset/take/total"),
        (Reference(Take(total=1)), "/dataset/take/total"),
        (Reference(Take(fraction=0.001)), "/dataset/take/fraction"),
        (Reference(Take(per_class=1), validation=0.5), "/dataset/validation"),
    ],
)
def test_more_than_there_is_and_too_little_are_refused_at_the_field(reference: Reference, where: str) -> None:
    with pytest.raises(Refused) as refused:
        subset(Toy(), reference)
    assert refused.value.where == where
