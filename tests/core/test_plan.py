"""Whatever cannot work is refused before it runs, with the field named; what can is counted exactly."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from core.anatomy import Anatomy, match, measure
from core.data import Batches, DatasetReport, Rows, subset
from core.errors import Refused
from core.evaluate.fgsm import FGSM
from core.evaluate.parameter_noise import ParameterNoise
from core.method import Fit, Lesson, Method, Scene, Term, Weighted
from core.methods.ab import AB
from core.methods.at import AT
from core.methods.fitnet import Fitnet
from core.methods.fsp import FSP
from core.methods.jacobian import Jacobian
from core.methods.kd import KD
from core.networks import parse
from core.optim import Linear, Recipe
from core.plan import Plan, plan, steps_of, training_rows
from core.spec import DatasetRef, JobSpec
from core.taps import Pair
from tests.core import toys
from tests.core.toys import Toy, ToyMethod, report, spec, squares

TEACHER, STUDENT = measure(Toy(width=6)), measure(Toy())
TEACHERS_DATA: dict[str, Any] = {"teacher_dataset": {"id": "ds_2", "validation": 0.0}}


def decide(asked: JobSpec, teacher: Anatomy | None = TEACHER, student: Anatomy = STUDENT, **more: Any) -> Plan:
    return plan(asked, teacher, student, **{"dataset": report(24), "teacher_dataset": report(12)} | more)


def refusal(asked: JobSpec, **more: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        decide(asked, **more)
    return caught.value


def test_the_empty_lesson_is_the_baseline_and_needs_no_teacher() -> None:
    decided = decide(spec(teacher=False), teacher=None)
    assert [sorted(fit.terms) for fit in decided.fits] == [["task"]]
    assert (decided.surgeries, decided.teacher_taps, decided.student_taps) == ((), (), ())


def test_lessons_become_surgeries_transfer_fits_and_one_training() -> None:
    decided = decide(spec(ToyMethod(epochs=3), KD(), **TEACHERS_DATA))
    assert len(decided.surgeries) == 1
    assert [sorted(fit.terms) for fit in decided.fits] == [["hint"], ["hint", "labels"], ["kd", "task", "toy.drift", "toy.slope"]]
    assert [fit.recipe.epochs for fit in decided.fits] == [3, 3, 2]
    assert [fit.recipe.batch_size for fit in decided.fits] == [8, 8, 8]
    assert (decided.rows, decided.per_epoch) == ((24, 12, 24), (3, 2, 3))
    assert (decided.epochs, decided.steps) == (8, 3 * 3 + 3 * 2 + 2 * 3)
    pair = match(TEACHER, STUDENT)[0]
    assert (decided.teacher_taps, decided.student_taps) == ((pair.teacher,), (pair.student,))
    assert decided.to_json()["steps"] == 21


def test_a_plan_is_pure_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(1)
    first = decide(spec(ToyMethod(), **TEACHERS_DATA))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = decide(spec(ToyMethod(), **TEACHERS_DATA))
    assert torch.equal(torch.get_rng_state(), before)
    hints = [decided.fits[0].terms["hint"].term.state_dict() for decided in (first, second)]
    assert torch.equal(hints[0]["connector.weight"], hints[1]["connector.weight"])
    other = decide(spec(ToyMethod(), seed=5, **TEACHERS_DATA)).fits[0].terms["hint"].term.state_dict()
    assert not torch.equal(hints[0]["connector.weight"], other["connector.weight"])


def test_a_method_behind_does_not_change_the_connectors_of_the_one_before() -> None:
    alone = decide(spec(ToyMethod(), **TEACHERS_DATA)).fits[0].terms["hint"].term.state_dict()
    followed = decide(spec(ToyMethod(), KD(), **TEACHERS_DATA)).fits[0].terms["hint"].term.state_dict()
    assert torch.equal(alone["connector.weight"], followed["connector.weight"])


def test_a_plan_on_the_meta_device_takes_no_memory() -> None:
    with torch.device("meta"):
        decided = decide(spec(ToyMethod(), KD(), **TEACHERS_DATA))
    assert all(parameter.is_meta for parameter in decided.fits[0].terms["hint"].term.parameters())


def test_a_method_that_needs_a_teacher_is_refused_without_one() -> None:
    refused = refusal(spec(KD(), teacher=False), teacher=None)
    assert refused.where == "/teacher"
    assert "'kd' needs a teacher" in refused.reason


@pytest.mark.parametrize(
    ("which", "family", "where", "says"),
    [
        ("student", Toy(input=(3, 8, 8)), "/student/architecture", "3 × 8 × 8"),
        ("student", Toy(classes=7), "/student/architecture", "the student has 7 outputs, the dataset has 3 classes"),
        ("teacher", Toy(input=(2, 4, 4)), "/teacher", "2 × 4 × 4"),
        ("teacher", Toy(classes=7), "/teacher", "the teacher has 7 outputs, the student 3, and the term 'kd' compares them"),
    ],
)
def test_networks_and_data_that_do_not_fit_are_refused(which: str, family: Toy, where: str, says: str) -> None:
    refused = refusal(spec(KD()), **{which: measure(family)})
    assert refused.where == where
    assert says in refused.reason


def test_a_teacher_of_other_classes_may_teach_features() -> None:
    class Features(Method):
        name: str = "features"

        def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
            return Lesson(train={"hint": Weighted(toys.Hint(Pair("relu1", "relu1"), (6, 4)), 1.0)})

    decided = decide(spec(Features()), teacher=measure(Toy(width=6, classes=7)))
    assert not decided.same_classes


def test_a_tap_that_does_not_exist_is_refused_where_it_was_named_with_the_nearest() -> None:
    refused = refusal(spec(KD(), ToyMethod(pairs=(Pair("relu1", "relu9"),)), **TEACHERS_DATA))
    assert refused.where == "/methods/1/pairs/0/1"
    assert "'relu9'" in refused.reason
    assert "relu1" in refused.hint or "relu2" in refused.hint


@pytest.mark.parametrize("method", [AT, AB, Fitnet, Jacobian], ids=lambda method: str(method.model_fields["name"].default))
def test_a_place_of_the_student_that_no_training_moves_is_refused(method: type[Method]) -> None:
    asked = {"output": "maps"} if method is Jacobian else {}
    refused = refusal(spec(KD(), method.model_validate({**asked, "pairs": [["relu1", "conv1"], ["conv1:in", "conv1:in"]]})))
    assert refused.where == "/methods/1/pairs/1/1"
    assert "nothing that the student learns comes before 'conv1:in'" in refused.reason
    decide(spec(method.model_validate({**asked, "pairs": [["conv1:in", "conv1"]]}), recipe=Recipe(epochs=1, batch_size=8)))


class Anything(Method):
    """A method made of one term, for refusals."""

    name: str = "anything"

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        return Lesson(train={"any": Weighted(self.term(), 1.0)})

    def term(self) -> Term:
        raise NotImplementedError


def test_a_tap_that_a_term_wants_is_checked_even_if_the_method_did_not() -> None:
    class Careless(Anything):
        def term(self) -> Term:
            term = Term()
            term.student_taps = ("layer9",)
            return term

    refused = refusal(spec(KD(), Careless()))
    assert refused.where == "/methods/1"
    assert "layer9" in refused.reason


def test_a_term_whose_shapes_do_not_fit_is_refused_by_name() -> None:
    class Wrong(Anything):
        def term(self) -> Term:
            return toys.Hint(Pair("relu1", "relu2"), (6, 8))

    refused = refusal(spec(Wrong()))
    assert refused.where == "/methods/0"
    assert "the term 'any' does not fit these networks" in refused.reason


def test_a_connector_of_absurd_size_is_refused_before_it_takes_memory() -> None:
    """449 x 449 x 64 x 512 weights, and 512 biases, bring maps of 512 x 512 to 64 x 64."""
    image = (3, 512, 512)
    large = measure(parse({"family": "vgg", "depth": 8, "input": image, "classes": 3}))
    with torch.device("meta"):
        refused = refusal(spec(Fitnet(pairs=(Pair("block5", "block1"),))), teacher=large, student=large, dataset=report(24, shape=image))
    assert refused.where == "/methods/0"
    assert f"{449 * 449 * 64 * 512 + 512:,} parameters" in refused.reason


def test_a_term_that_reads_a_value_is_a_defect_and_not_the_users_fault() -> None:
    class Branching(Anything):
        def term(self) -> Term:
            class Branch(Term):
                def forward(self, scene: Scene) -> torch.Tensor:
                    return scene.s.logits.sum() if scene.s.logits.sum().item() > 0 else scene.s.logits.mean()

            return Branch()

    with pytest.raises((NotImplementedError, Refused)):
        decide(spec(Branching()))


def test_two_methods_with_one_term_are_refused_at_the_second() -> None:
    refused = refusal(spec(KD(), KD(temperature=2.0)))
    assert refused.where == "/methods/1/name"
    assert "two methods bring the term 'kd'" in refused.reason


def test_a_batch_larger_than_the_training_set_is_refused() -> None:
    refused = refusal(spec(teacher=False, recipe=Recipe(batch_size=10, accumulate=3)), teacher=None)
    assert refused.where == "/recipe/batch_size"
    assert "10 × 3" in refused.reason
    assert "24" in refused.reason


def test_data_of_the_teacher_must_be_named_and_must_fit() -> None:
    assert refusal(spec(ToyMethod())).where == "/teacher_dataset"
    assert refusal(spec(ToyMethod(), **TEACHERS_DATA), teacher_dataset=report(12, shape=(1, 8, 8))).where == "/teacher_dataset"


def test_a_module_that_does_not_exist_cannot_learn() -> None:
    class Absent(Method):
        name: str = "absent"

        def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
            return Lesson(transfer=(Fit({"kd": KD().lesson(teacher, student).train["kd"]}, Recipe(), only=("conv",)),))

    refused = refusal(spec(KD(), Absent()))
    assert (refused.where, "'conv'" in refused.reason) == ("/methods/1", True)


@pytest.mark.parametrize("never", [0.0, Linear(linear=(0, 0)), Linear(linear=(1, 0), until=0.5)])
def test_a_fit_in_which_no_weight_is_ever_above_zero_is_refused(never: float | Linear) -> None:
    recipe = Recipe(epochs=1, batch_size=8)
    idle = recipe.model_copy(update={"task_weight": never})
    assert refusal(spec(teacher=False, recipe=idle), teacher=None).where == "/recipe/task_weight"
    assert refusal(spec(KD(weight=never), recipe=idle)).where == "/recipe/task_weight"
    refused = refusal(spec(KD(), Fitnet(epochs=1, weight=never), recipe=recipe))
    assert (refused.where, "nothing to learn" in refused.reason) == ("/methods/1", True)
    decide(spec(KD(weight=never), recipe=recipe))


def test_a_weight_that_falls_to_zero_after_the_first_epoch_is_no_reason_to_refuse() -> None:
    falling = Linear(linear=(1, 0))
    decide(spec(Fitnet(epochs=2, weight=falling), recipe=Recipe(epochs=2, batch_size=8, task_weight=falling)))


@pytest.mark.parametrize("method", [Fitnet(weight=0), FSP(weight=0, connectors=True)], ids=lambda method: method.name)
def test_a_transfer_fit_in_which_every_weight_is_zero_is_refused_at_its_method(method: Method) -> None:
    refused = refusal(spec(KD(), method))
    assert (refused.where, "nothing to learn" in refused.reason) == ("/methods/1", True)
    assert "above 0" in refused.hint


@pytest.mark.parametrize("asked", ["agreement", "boundary", {"name": "boundary", "samples": 9}])
def test_what_compares_answers_needs_a_teacher_of_the_same_classes(asked: Any) -> None:
    refused = refusal(spec(teacher=False, evaluate=["accuracy", asked]), teacher=None)
    assert refused.where == "/evaluate/1"
    assert "leave" in refused.hint


def test_what_a_network_does_alone_is_measured_without_a_teacher() -> None:
    assert decide(spec(teacher=False, evaluate=["fgsm", "parameter_noise"]), teacher=None).evaluate == (FGSM(), ParameterNoise())


def test_crops_of_vectors_are_refused() -> None:
    flat = report(24, shape=(16,))
    student = STUDENT.model_copy(update={"input": (16,)})
    recipe = Recipe(batch_size=8, augmentation=({"name": "flip"},))
    refused = refusal(spec(teacher=False, recipe=recipe), teacher=None, student=student, dataset=flat)
    assert refused.where == "/recipe/augmentation"


@pytest.mark.parametrize(
    ("step", "where"),
    [
        ({"name": "crop", "padding": 8, "mode": "reflect"}, "/recipe/augmentation/1/padding"),
        ({"name": "cutout", "size": 8}, "/recipe/augmentation/1/size"),
    ],
)
def test_a_reflection_or_a_hole_as_large_as_the_image_is_refused(step: dict[str, Any], where: str) -> None:
    def asked(step: dict[str, Any]) -> JobSpec:
        return spec(teacher=False, recipe=Recipe.model_validate({"batch_size": 8, "augmentation": [{"name": "flip"}, step]}))

    refused = refusal(asked(step), teacher=None)
    assert (refused.where, refused.hint) == (where, "at most 7")
    field = where.rpartition("/")[2]
    assert plan(asked({**step, field: 7}), None, STUDENT, dataset=report(24)).steps > 0


class Whole:
    """A dataset of squares with uneven classes, for `subset`."""

    def __init__(self, labels: list[int], *, own_validation: bool = False) -> None:
        self.labels = np.array(labels)
        self.names = ("train", "validation", "test") if own_validation else ("train", "test")
        per_class = tuple(int(count) for count in np.bincount(self.labels, minlength=4))
        self.report: DatasetReport = report(len(labels), classes=4).model_copy(
            update={"per_class": dict.fromkeys(self.names, per_class), "counts": dict.fromkeys(self.names, len(labels))}
        )

    def split(self, name: str) -> Rows:
        if name not in self.names:
            raise KeyError(name)
        rows = squares(len(self.labels), classes=4)
        return Rows(rows.bank, self.labels, rows.position, 0, 4, rows.domain)


@pytest.mark.parametrize("own_validation", [False, True])
@pytest.mark.parametrize("validation", [0.0, 0.1, 0.25, 0.5])
@pytest.mark.parametrize(
    "take", [None, {"total": 17}, {"per_class": 3}, {"fraction": 0.4}, {"total": 3}, {"fraction": 0.01}, {"per_class": 9}]
)
def test_the_plan_counts_the_rows_that_the_subset_will_find(take: Any, validation: float, own_validation: bool) -> None:
    data = Whole([0] * 20 + [1] * 9 + [3] * 5, own_validation=own_validation)
    ref = DatasetRef.model_validate({"id": "ds_1", "take": take, "validation": validation})

    def found(count: Callable[[], int]) -> int | str:
        try:
            return count()
        except Refused as refused:
            return refused.where

    assert found(lambda: training_rows(data.report, ref)) == found(lambda: len(subset(data, ref).train))


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("rows", [6, 7, 12, 13, 14, 25])
def test_the_plan_counts_the_steps_that_the_batches_have(rows: int, accumulate: int) -> None:
    recipe = Recipe(batch_size=2, accumulate=accumulate)
    assert steps_of(rows, recipe) == Batches(squares(rows), 2, seed=0, accumulate=accumulate).steps


def test_a_teacher_with_the_same_classes_in_another_order_is_mended_and_told() -> None:
    data = report(30).model_copy(update={"class_names": ("cat", "dog", "eel")})

    def planned(labels: tuple[str, ...] | None) -> Plan:
        return plan(spec(KD()), measure(Toy()), measure(Toy()), dataset=data, teacher_labels=labels)

    for fine in (None, ("cat", "dog", "eel"), ("cat", "dog", "moray")):
        assert planned(fine).same_classes
        assert planned(fine).outputs is None
    mended = planned(("dog", "eel", "cat"))
    assert (mended.same_classes, mended.outputs) == (True, (2, 0, 1))
    assert "for 'cat' answers output 2" in mended.warnings[0]


NAMED = report(30).model_copy(update={"class_names": ("cat", "dog", "eel")})
MAPS = Jacobian(output="maps")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (("fox", "owl", "pig"), "output 0 is 'fox' there and 'cat' here"),
        (("0", "1", "2"), "output 0 is '0' there and 'cat' here"),
        (("dog", "eel", "fox"), "output 0 is 'dog' there and 'cat' here"),
        (("cat", "fox", "dog"), "output 1 is 'fox' there and 'dog' here"),
    ],
)
@pytest.mark.parametrize("method", [KD(), Jacobian(), Jacobian(output="teacher")], ids=["kd", "label", "teacher"])
def test_logits_of_as_many_but_other_classes_are_not_compared(method: Method, labels: tuple[str, ...], says: str) -> None:
    refused = refusal(spec(AT(), method), dataset=NAMED, teacher_labels=labels)
    assert refused.where == "/teacher"
    assert f"the method {method.name!r} compares logits" in refused.reason
    assert says in refused.reason


@pytest.mark.parametrize("method", [AT(), AB(), Fitnet(), FSP(connectors=True), MAPS], ids=lambda method: method.name)
def test_a_teacher_of_as_many_but_other_classes_may_teach_features_and_is_not_examined_on_these(method: Method) -> None:
    decided = decide(spec(method), dataset=NAMED, teacher_labels=("fox", "owl", "pig"))
    assert not decided.same_classes
    assert decide(spec(method), dataset=NAMED).same_classes
    for comparing in ("agreement", "boundary"):
        asked = spec(method, evaluate=["accuracy", comparing])
        assert refusal(asked, dataset=NAMED, teacher_labels=("fox", "owl", "pig")).where == "/evaluate/1"


def test_the_connectors_of_a_teacher_of_other_classes_are_those_of_any_teacher() -> None:
    known, other = (decide(spec(AB(), AT()), dataset=NAMED, teacher_labels=labels) for labels in (None, ("fox", "owl", "pig")))
    ours, theirs = (decided.fits[0].terms["ab"].term.state_dict() for decided in (known, other))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_classes_that_are_called_by_their_numbers_tell_nothing() -> None:
    numbered = report(30).model_copy(update={"class_names": ("0", "1", "2")})
    assert decide(spec(KD()), dataset=numbered, teacher_labels=("cat", "dog", "eel")).same_classes
