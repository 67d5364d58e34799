"""Everything that is wrong with a job is told at once; what only follows from another fault is not."""

from typing import Any

import pytest

from core.anatomy import Anatomy, measure
from core.errors import Refused
from core.methods.at import AT
from core.methods.bss import BSS
from core.methods.fitnet import Fitnet
from core.methods.kd import KD
from core.methods.net2net import Net2Net
from core.optim import Recipe
from core.plan import plan
from core.spec import JobSpec
from core.taps import Pair
from tests.core.toys import Toy, ToyMethod, report, spec

TEACHER, STUDENT = measure(Toy(width=6)), measure(Toy())


def pointers(asked: JobSpec, teacher: Anatomy | None = TEACHER, student: Anatomy = STUDENT, **more: Any) -> list[str]:
    """Where the refusals of a job point, in order."""
    with pytest.raises(Refused) as caught:
        plan(asked, teacher, student, **{"dataset": report(24), "teacher_dataset": report(12)} | more)
    return [refused.where for refused in caught.value.all]


def test_six_faults_that_have_nothing_to_do_with_each_other_are_six_refusals() -> None:
    recipe = Recipe(batch_size=8, augmentation=({"name": "cutout", "size": 8}, {"name": "crop", "padding": 8, "mode": "reflect"}))
    asked = spec(
        KD(),
        AT(pairs=(Pair("relu8", "relu1"), Pair("relu1", "relu9"))),
        recipe=recipe,
        dataset={"id": "ds_1", "take": {"total": 25}},
        evaluate=["agreement"],
    )
    found = pointers(asked, measure(Toy(width=6, classes=7)), measure(Toy(classes=5)))
    assert sorted(found) == [
        "/dataset/take/total",
        "/methods/1/pairs/0/0",
        "/methods/1/pairs/1/1",
        "/recipe/augmentation/0/size",
        "/recipe/augmentation/1/padding",
        "/student/architecture",
        "/teacher",
    ]


def test_both_ends_of_a_pair_and_every_pair_are_looked_at() -> None:
    asked = spec(Fitnet(pairs=(Pair("a", "b"),)), AT(pairs=(Pair("relu1", "c"), Pair("relu1", "relu1"), Pair("d", "relu1"))))
    assert pointers(asked) == ["/methods/0/pairs/0/0", "/methods/0/pairs/0/1", "/methods/1/pairs/0/1", "/methods/1/pairs/2/0"]


def test_a_missing_teacher_is_told_once_however_many_methods_and_measures_need_it() -> None:
    asked = spec(KD(), AT(), teacher=False, evaluate=["agreement", "boundary"], recipe=Recipe(batch_size=100))
    assert pointers(asked, None) == ["/teacher", "/recipe/batch_size"]


def test_a_teacher_of_other_classes_is_told_once_however_many_methods_compare_answers() -> None:
    asked = spec(KD(), ToyMethod(), evaluate=["agreement"], teacher_dataset={"id": "ds_2", "validation": 0.0})
    assert pointers(asked, measure(Toy(width=6, classes=7))) == ["/teacher"]


def test_of_networks_that_take_other_inputs_no_shape_is_compared_but_taps_and_classes_are() -> None:
    other = measure(Toy(width=6, input=(2, 16, 16), classes=7))
    asked = spec(AT(pairs=(Pair("relu1", "relu1"), Pair("nowhere", "relu1"))), BSS())
    assert pointers(asked, other) == ["/teacher", "/methods/0/pairs/1/0", "/methods/1/name"]


def test_a_student_of_other_classes_is_no_fault_of_a_method_that_copies_the_teacher() -> None:
    assert pointers(spec(Net2Net()), measure(Toy()), measure(Toy(width=6, classes=7))) == ["/student/architecture"]


def test_a_fit_without_weights_is_told_beside_the_data_that_do_not_fit() -> None:
    recipe = Recipe(batch_size=8, task_weight=0.0)
    asked = spec(Fitnet(weight=0), recipe=recipe, dataset={"id": "ds_1", "take": {"total": 25}})
    assert pointers(asked) == ["/methods/0", "/dataset/take/total", "/recipe/task_weight"]


def test_the_same_fault_of_two_fits_is_told_once() -> None:
    assert pointers(spec(Fitnet(), KD(), recipe=Recipe(batch_size=25))) == ["/recipe/batch_size"]
