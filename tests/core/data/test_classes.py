"""Which classes a job uses, and the outputs that stand for them."""

from dataclasses import dataclass

import pytest

from core.data.classes import used
from core.errors import Refused


@dataclass(frozen=True)
class Named:
    class_names: tuple[str, ...]


CLOTHES = Named(("shirt", "coat", "bag", "boot"))
NUMBERS = Named(("0", "1", "2"))


def test_without_a_choice_every_class_is_its_own_output() -> None:
    assert used(CLOTHES, None, CLOTHES.class_names, where="/dataset") == {0: 0, 1: 1, 2: 2, 3: 3}


def test_chosen_classes_keep_their_outputs_in_whatever_order_they_are_named() -> None:
    assert used(CLOTHES, ("boot", "coat"), CLOTHES.class_names, where="/dataset") == {1: 1, 3: 3}


def test_classes_of_another_dataset_go_to_the_outputs_of_their_names() -> None:
    assert used(CLOTHES, None, ("boot", "hat", "shirt", "bag", "coat"), where="/teacher_dataset") == {0: 2, 1: 4, 2: 3, 3: 0}


def test_names_that_are_only_numbers_go_to_the_outputs_of_their_place() -> None:
    assert used(NUMBERS, None, CLOTHES.class_names, where="/teacher_dataset") == {0: 0, 1: 1, 2: 2}
    assert used(CLOTHES, ("coat", "bag"), tuple("01234"), where="/teacher_dataset") == {1: 1, 2: 2}


@pytest.mark.parametrize(
    ("digits", "outputs", "found"),
    [
        (tuple("56789"), tuple("0123456789"), {0: 5, 1: 6, 2: 7, 3: 8, 4: 9}),
        (tuple("0123"), ("0", "1", "10", "2", "3"), {0: 0, 1: 1, 2: 3, 3: 4}),  # as folders are sorted
    ],
)
def test_numbers_that_the_outputs_have_too_are_names(digits: tuple[str, ...], outputs: tuple[str, ...], found: dict[int, int]) -> None:
    assert used(Named(digits), None, outputs, where="/teacher_dataset") == found


@pytest.mark.parametrize(
    ("named", "chosen", "outputs", "where", "told"),
    [
        (CLOTHES, ("bag", "boots"), CLOTHES.class_names, "/dataset/classes/1", "'boots'"),
        (CLOTHES, None, ("shirt", "coat", "bag"), "/dataset", "'boot'"),
        (CLOTHES, None, ("0", "1", "2"), "/dataset", "label 3"),
    ],
)
def test_what_no_output_stands_for_is_refused(
    named: Named, chosen: tuple[str, ...] | None, outputs: tuple[str, ...], where: str, told: str
) -> None:
    with pytest.raises(Refused) as refused:
        used(named, chosen, outputs, where="/dataset")
    assert (refused.value.where, told in refused.value.reason, bool(refused.value.hint)) == (where, True, True)
