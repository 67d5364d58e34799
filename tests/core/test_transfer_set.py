"""A job on a dataset without labels: what it refuses, what it measures in the place of accuracy, and that its student learns."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from core.anatomy import Anatomy, measure
from core.data import Batches, subset
from core.errors import Refused
from core.evaluate import evaluate
from core.events import Evaluated, Step
from core.method import Method
from core.methods.anti_distillation import AntiDistillation
from core.methods.at import AT
from core.methods.bss import BSS
from core.methods.jacobian import Jacobian
from core.methods.kd import KD
from core.methods.padding import Padding
from core.methods.wasserstein import Wasserstein
from core.optim import SGD, Linear, Recipe
from core.plan import Plan, plan
from core.spec import DatasetRef
from tests.core import toys
from tests.core.toys import Job, Toy, report, spec, transfer_set, without_labels

TEACHER, STUDENT = measure(Toy(width=6)), measure(Toy())
RECIPE = Recipe(epochs=2, batch_size=8, optimizer=SGD(lr=0.05), task_weight=0.0)
TEACHERS_DATA: dict[str, Any] = {"teacher_dataset": {"id": "ds_2", "validation": 0.0}}


def decide(*methods: Method, teacher: Anatomy | None = TEACHER, student: Anatomy = STUDENT, recipe: Recipe = RECIPE, **more: Any) -> Plan:
    known = {name: more.pop(name) for name in ("dataset_report", "teacher_report", "labels") if name in more}
    return plan(
        spec(*methods, teacher=teacher is not None, recipe=recipe, **more),
        teacher,
        student,
        dataset=known.get("dataset_report", transfer_set(24)),
        teacher_dataset=known.get("teacher_report"),
        teacher_labels=known.get("labels"),
    )


def made(*methods: Method, **more: Any) -> Job:
    recipe = more.pop("recipe", RECIPE)
    return toys.make(spec(*methods, recipe=recipe), labelled=False, **more)


@pytest.mark.parametrize(
    ("methods", "asked", "where", "word"),
    [
        ([], {"teacher": None}, "/teacher", "nothing to learn from"),
        ([KD()], {"recipe": RECIPE.model_copy(update={"task_weight": 0.1})}, "/recipe/task_weight", "no labels"),
        ([KD()], {"recipe": RECIPE.model_copy(update={"task_weight": Linear(linear=(0.0, 1.0))})}, "/recipe/task_weight", "no labels"),
        ([KD()], {"student": measure(Toy(classes=4))}, "/student/architecture", "4 outputs, the teacher 3"),
        ([KD()], {"evaluate": ["accuracy", "fgsm"]}, "/evaluate/1", "fgsm"),
        ([KD()], {"evaluate": ["parameter_noise"]}, "/evaluate/0", "parameter_noise"),
        ([KD()], {"evaluate": [{"name": "boundary", "samples": 4}]}, "/evaluate/0", "boundary"),
        ([KD()], {"dataset": {"id": "ds_1", "classes": ["a", "b"]}}, "/dataset/classes", "no classes to choose"),
        ([KD()], {"dataset": {"id": "ds_1", "take": {"per_class": 2}}}, "/dataset/take/per_class", "no classes to take from"),
        ([KD()], {"dataset": {"id": "ds_1", "take": {"total": 25}}}, "/dataset/take/total", "there are 24"),
        ([KD()], {"label_map": {"ant": 0}}, "/label_map", "no classes that outputs could answer for"),
        ([KD(), BSS()], {}, "/methods/1", "'bss' reads labels"),
        ([Jacobian()], {}, "/methods/0", "'jacobian' reads labels"),
        ([], {}, "/methods", "no method teaches in the training"),
        ([Padding()], {"teacher": STUDENT}, "/methods", "no method teaches in the training"),
        ([KD(weight=0.0)], {}, "/methods", "no method teaches in the training"),
    ],
)
def test_what_cannot_be_done_without_labels_is_refused_at_its_field(
    methods: list[Method], asked: dict[str, Any], where: str, word: str
) -> None:
    with pytest.raises(Refused) as caught:
        decide(*methods, **asked)
    assert (caught.value.where, word in caught.value.reason) == (where, True), caught.value
    assert {refused.where for refused in caught.value.all} <= {where, "/methods"}  # who names no teacher names no method either
    assert caught.value.hint


@pytest.mark.parametrize("methods", [[KD()], [AT(), KD()], [Jacobian(output="teacher")], [Wasserstein()], [KD(), BSS(weight=0.0)]])
def test_methods_that_read_no_labels_are_taken(methods: list[Method]) -> None:
    decided = decide(*methods, evaluate=["accuracy"])
    assert (decided.rows, decided.same_classes, decided.evaluate) == ((24,), True, ("agreement",))


def test_everything_that_needs_labels_is_told_at_once() -> None:
    asked: dict[str, Any] = {
        "dataset": {"id": "ds_1", "classes": ["a", "b"]},
        "evaluate": ["fgsm", "boundary"],
        "student": measure(Toy(classes=4)),
    }
    with pytest.raises(Refused) as caught:
        decide(KD(), BSS(), recipe=Recipe(batch_size=8), **asked)
    places = ["/student/architecture", "/recipe/task_weight", "/evaluate/0", "/evaluate/1", "/methods/1", "/dataset/classes"]
    assert sorted(refused.where for refused in caught.value.all) == sorted(places)


def test_a_student_whose_last_layer_learns_nothing_is_warned_of() -> None:
    (warning,) = decide(AT()).warnings
    assert "last layer learns nothing" in warning
    assert decide(AT(), KD()).warnings == decide(Jacobian(output="teacher")).warnings == ()
    assert decide(AT(), recipe=Recipe(batch_size=8), dataset_report=report(24)).warnings == ()


def test_the_teachers_data_may_be_without_labels_where_no_term_reads_them() -> None:
    quiet = AntiDistillation(labels_weight=0.0, noise_weight=0.0, trace_weight=0.0)
    known: dict[str, Any] = {
        "teacher": STUDENT,
        "teacher_report": transfer_set(12),
        "dataset_report": report(24),
        "recipe": Recipe(batch_size=8),
    }
    assert decide(quiet, **known, **TEACHERS_DATA).rows == (12, 24)
    with pytest.raises(Refused, match="reads labels, and the teacher_dataset has none") as caught:
        decide(AntiDistillation(), **known, **TEACHERS_DATA)
    assert caught.value.where == "/methods/0"


def test_a_labelled_set_of_the_teachers_data_keeps_its_labels_beside_a_transfer_set() -> None:
    known: dict[str, Any] = {"teacher": STUDENT, "teacher_report": report(12), **TEACHERS_DATA}
    decided = decide(AntiDistillation(), KD(), labels=["column 0", "column 1", "column 2"], **known)
    assert decided.rows == (12, 24)
    with pytest.raises(Refused, match="'column 0' is none of the student's classes"):
        decide(AntiDistillation(), KD(), labels=["a", "b", "c"], **known)


def test_the_students_outputs_are_called_as_the_teachers_or_by_their_numbers() -> None:
    assert decide(KD(), labels=["ant", "bee", "cat"]).class_names == ("ant", "bee", "cat")
    assert decide(KD()).class_names == ("0", "1", "2")
    assert decide(dataset_report=report(24), recipe=Recipe(batch_size=8)).class_names == ("column 0", "column 1", "column 2")


class Unlabelled:
    """A dataset of `train` training samples without labels, and six for the test."""

    def __init__(self, train: int) -> None:
        self.report = transfer_set(train)
        self._train = train

    def split(self, name: str) -> Any:
        return without_labels(toys.squares(*{"train": (self._train,), "test": (6,)}[name], first=0 if name == "train" else self._train))


@pytest.mark.parametrize("take", [None, {"total": 30}, {"fraction": 0.3}])
@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_rows_are_taken_and_set_aside_by_seed_alone_and_the_plan_counts_them(take: dict[str, Any] | None, validation: float) -> None:
    asked: dict[str, Any] = {"id": "ds_1", "take": take, "validation": validation}
    data = Unlabelled(60)
    try:
        splits = subset(data, DatasetRef(**asked))
    except KeyError:
        raise AssertionError("a split that is not there was read") from None
    taken = 60 if take is None else take.get("total", 18)
    assert len(splits.train) == taken - round(validation * taken)
    assert decide(KD(), dataset=asked, dataset_report=data.report).rows == (len(splits.train),)
    if splits.validation is not None:
        assert not set(splits.train.index) & set(splits.validation.index)
        assert len(splits.validation) + len(splits.train) == taken
    again, other = (subset(data, DatasetRef(**asked, seed=seed)) for seed in (0, 1))
    assert again.train.index.tolist() == splits.train.index.tolist()
    if len(splits.train) < 60:
        assert other.train.index.tolist() != splits.train.index.tolist()


def test_a_label_that_is_read_all_the_same_is_an_error_and_no_class() -> None:
    batch = Batches(without_labels(toys.squares(8)), 8, seed=0)(0, 0)
    logits = torch.zeros(8, 3)
    with pytest.raises(IndexError):
        torch.nn.functional.cross_entropy(logits, batch.y)
    with pytest.raises(RuntimeError, match="out of bounds"):
        logits.gather(1, batch.y[:, None])


def test_agreement_stands_in_the_place_of_accuracy_in_every_measurement() -> None:
    job = made(KD())
    played = toys.play(job, freeze=False)
    told = [event for event in played.events if isinstance(event, Evaluated)]
    assert [event.split for event in told] == ["validation", "validation", "test"]
    assert all(set(event.values) == {"agreement", "max_abs_diff", "n"} for event in told)
    assert [event.values["n"] for event in told] == [9, 9, 15]
    assert job.teacher is not None
    x = next(without_labels(toys.squares(15, first=33, seed=2)).batches(15)).x
    with torch.no_grad(), job.teacher.quiet(), job.student.quiet():
        ours, theirs = (network(x).logits for network in (job.student, job.teacher))
    assert told[-1].values["agreement"] == pytest.approx((ours.argmax(1) == theirs.argmax(1)).double().mean().item())
    assert told[-1].values["max_abs_diff"] == pytest.approx((ours - theirs).abs().max().item(), rel=1e-6)
    steps = [event for event in played.events if isinstance(event, Step)]
    assert all(set(event.values) == {"kd", "loss", "lr"} for event in steps)


def test_without_labels_and_without_another_network_there_is_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="no labels"):
        list(evaluate(toys.tapped(Toy(), (), seed=0), without_labels(toys.squares(4))))


def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_bytes_and_events() -> None:
    whole = toys.play(made(AT(), KD()))
    for told, blob in whole.kept:
        again = made(AT(), KD(), initial=50)
        toys.scramble(again)
        rest = toys.play(again, resume=blob, freeze=False)
        assert whole.events[:told] + rest.events == whole.events
        assert all(torch.equal(value, rest.weights[name]) for name, value in whole.weights.items())


@cache
def wise() -> Mapping[str, Tensor]:
    """The weights of a teacher that learnt from labels."""
    recipe = Recipe(epochs=12, batch_size=8, optimizer=SGD(lr=0.05))
    return toys.play(toys.make(spec(teacher=False, recipe=recipe), student=Toy(width=6), n=96), freeze=False).weights


def test_a_student_of_a_transfer_set_comes_to_agree_with_its_teacher(record_property: Callable[[str, object], None]) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 12})
    played = toys.play(made(KD(), recipe=recipe, teacher_weights=wise(), n=96), freeze=False)
    agreed = [event.values["agreement"] for event in played.events if isinstance(event, Evaluated)]
    record_property("agreement", agreed)
    # Of three classes, chance is a third; 11 of 15 by chance has a probability of about two in a thousand.
    assert agreed[-1] >= 11 / 15
