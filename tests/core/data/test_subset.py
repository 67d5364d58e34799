"""Which rows a job uses."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from core.data.batches import Batches
from core.data.rows import Rows
from core.data.subset import subset
from core.errors import Refused
from tests.core.toys import DOMAIN, report


@dataclass(frozen=True)
class Take:
    total: int | None = None
    per_class: int | None = None
    fraction: float | None = None


@dataclass(frozen=True)
class Reference:
    classes: tuple[str, ...] | None = None
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
        self.report = report(100, classes=2)

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
    assert np.bincount(subset(Toy(), Reference(take=take)).train.y).tolist() == counts


def test_validation_is_a_part_of_what_was_taken_and_keeps_the_rows_numbers() -> None:
    whole = subset(Toy(), Reference(take=Take(total=50))).train
    splits = subset(Toy(), Reference(take=Take(total=50), validation=0.2))
    assert splits.validation is not None
    assert np.bincount(splits.validation.y).tolist() == [6, 4]
    assert sorted([*splits.train.index, *splits.validation.index]) == whole.index.tolist()
    again = subset(Toy(), Reference(take=Take(total=50), validation=0.2, seed=1))
    assert again.train.index.tolist() != splits.train.index.tolist()


def test_a_datasets_own_validation_split_is_used_unless_none_is_wanted() -> None:
    splits = subset(Toy(validation=True), Reference(validation=0.5))
    assert splits.validation is not None
    assert (len(splits.train), splits.validation.index.tolist()) == (100, list(range(100, 110)))
    assert subset(Toy(validation=True), Reference(validation=0)).validation is None


@pytest.mark.parametrize(
    ("reference", "where"),
    [
        (Reference(take=Take(per_class=41)), "/dataset/take/per_class"),
        (Reference(take=Take(total=101)), "/dataset/take/total"),
        (Reference(take=Take(total=1)), "/dataset/take/total"),
        (Reference(take=Take(fraction=0.001)), "/dataset/take/fraction"),
        (Reference(take=Take(per_class=1), validation=0.5), "/dataset/validation"),
    ],
)
def test_more_than_there_is_and_too_little_are_refused_at_the_field(reference: Reference, where: str) -> None:
    with pytest.raises(Refused) as refused:
        subset(Toy(), reference)
    assert refused.value.where == where


class Clothes:
    """Four classes of 5, 10, 15 and 20 training samples, as many validation and test samples of each."""

    def __init__(self) -> None:
        labels = np.repeat([3, 0, 1, 2], [20, 5, 10, 15])
        self.report = report(50, classes=4).model_copy(update={"class_names": ("shirt", "coat", "bag", "boot")})
        self.rows = Rows.whole(np.zeros((50, 2), np.float32), labels, first=7, classes=4, domain=DOMAIN)

    def split(self, name: str) -> Rows:
        return self.rows


def test_only_the_chosen_classes_are_left_in_every_split() -> None:
    splits = subset(Clothes(), Reference(classes=("boot", "coat"), validation=0.1))
    for rows in (splits.train, splits.validation, splits.test):
        assert rows is not None
        assert np.bincount(rows.y, minlength=4).tolist() == [0, 10, 0, 20]
        assert rows.index.tolist() == [*range(7, 27), *range(32, 42)]
        assert (rows.classes, rows.present) == (4, (1, 3))


def test_a_part_is_taken_of_the_chosen_classes_alone() -> None:
    assert np.bincount(subset(Clothes(), Reference(classes=("boot", "coat"), take=Take(total=6))).train.y).tolist() == [0, 2, 0, 4]
    with pytest.raises(Refused, match="30 in 2 classes"):
        subset(Clothes(), Reference(classes=("boot", "coat"), take=Take(total=31)))


def test_the_samples_of_another_dataset_are_labelled_by_the_networks_outputs() -> None:
    rows = subset(Clothes(), Reference(), outputs=("boot", "hat", "shirt", "bag", "coat")).train
    assert np.bincount(rows.y).tolist() == [20, 0, 5, 15, 10]
    assert (rows.classes, rows.present) == (5, (0, 2, 3, 4))


@pytest.mark.parametrize("take", [Take(total=20), Take(total=23), Take(per_class=3)])
def test_the_same_samples_are_drawn_whatever_the_outputs_are_called(take: Take) -> None:
    reference = Reference(take=take, validation=0.3)
    own, others = (subset(Clothes(), reference, outputs=outputs) for outputs in (None, ("boot", "hat", "bag", "coat", "shirt")))
    assert own.validation is not None
    assert others.validation is not None
    assert own.train.index.tolist() == others.train.index.tolist()
    assert own.validation.index.tolist() == others.validation.index.tolist()


def test_logits_of_classes_that_were_not_chosen_are_no_answers() -> None:
    rows = subset(Clothes(), Reference(classes=("boot", "coat"))).test
    answers = rows.answers(torch.tensor([[9.0, 2.0, 8.0, 1.0]]))
    assert answers.argmax(1).tolist() == [1]
    assert torch.equal(answers.softmax(1), torch.tensor([[0.0, 1.0, 0.0, math.exp(-1)]]) / (1 + math.exp(-1)))
    assert subset(Clothes(), Reference()).test.answers(answers) is answers


def test_a_chosen_class_of_which_nothing_was_taken_is_an_answer_all_the_same() -> None:
    rows = subset(Clothes(), Reference(classes=("boot", "coat"))).train
    batches = Batches(rows.only(rows.position[:4]), 2, seed=0)
    assert batches.classes is not None
    assert batches.classes.tolist() == [False, True, False, True]
