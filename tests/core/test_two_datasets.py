"""Some classes of a dataset, and a second dataset for the fits that train on the teacher's data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from core.anatomy import Anatomy, measure
from core.data.report import DatasetReport
from core.data.rows import Rows
from core.errors import Refused
from core.evaluate import evaluate
from core.evaluate.boundary import Boundary
from core.evaluate.fgsm import FGSM
from core.evaluate.parameter_noise import ParameterNoise
from core.job import Job
from core.method import Method
from core.methods.anti_distillation import AntiDistillation
from core.methods.net2net import Net2Net
from core.methods.padding import Padding
from core.methods.transfer import Transfer
from core.networks import parse
from core.optim import Recipe
from core.plan import Plan, plan
from core.spec import JobSpec
from tests.core.evaluate.measuring import affine, returned
from tests.core.folders import digits, fill, work
from tests.core.toys import DOMAIN, SHAPE, Toy, ToyMethod, report, spec

TEACHER, STUDENT = measure(Toy(width=6)), measure(Toy())
TEACHERS_DATA: dict[str, Any] = {"teacher_dataset": {"id": "ds_2", "validation": 0.0}}


def decide(asked: JobSpec, teacher: Anatomy | None = TEACHER, **more: Any) -> Plan:
    return plan(asked, teacher, STUDENT, **{"dataset": report(24), "teacher_dataset": report(12)} | more)


def refusal(asked: JobSpec, **more: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        decide(asked, **more)
    return caught.value


def test_only_samples_of_the_chosen_classes_count() -> None:
    chosen = {"id": "ds_1", "validation": 0.0, "classes": ["column 0", "column 2"]}
    decided = decide(spec(teacher=False, dataset=chosen), teacher=None)
    assert decided.rows == (16,)  # 24 in three classes
    for classes, where in ((["column 0", "colum 2"], "/dataset/classes/1"), (["column 0", "column 3"], "/dataset/classes/1")):
        refused = refusal(spec(teacher=False, dataset={**chosen, "classes": classes}), teacher=None)
        assert (refused.where, "column" in (refused.hint or "")) == (where, True)


def test_a_class_that_is_chosen_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="'column 0' stands here more than once"):
        spec(teacher=False, dataset={"id": "ds_1", "classes": ["column 0", "column 2", "column 0"]})


def test_a_batch_larger_than_the_teachers_data_is_said_to_be_that() -> None:
    taken: dict[str, Any] = {"teacher_dataset": {"id": "ds_2", "validation": 0.0, "take": {"total": 3}}}
    refused = refusal(spec(ToyMethod(), recipe=Recipe(batch_size=8), **taken))
    assert (refused.where, "teacher's set of 3" in refused.reason) == ("/recipe/batch_size", True)
    assert "of /teacher_dataset leave 3 of 12" in refused.hint


def test_data_that_no_method_trains_on_and_surgeries_upon_surgeries_are_warned_of() -> None:
    assert decide(spec(ToyMethod(), **TEACHERS_DATA)).warnings == ()
    (warning,) = decide(spec(**TEACHERS_DATA)).warnings
    assert "no method trains on the teacher_dataset" in warning
    (warning,) = decide(spec(Padding(), Net2Net()), teacher=STUDENT).warnings
    assert "2 methods set the student's first weights" in warning
    own = {"architecture": "arc_1", "weights": "upl_1"}
    (warning,) = decide(spec(Padding(), student=own), teacher=STUDENT).warnings
    assert "may overwrite those of /student/weights" in warning
    assert decide(spec(student=own)).warnings == ()


def test_classes_without_a_test_sample_are_refused() -> None:
    untested = report(24).model_copy(update={"per_class": {"train": (8, 8, 8), "test": (24, 0, 0)}})
    chosen = {"id": "ds_1", "validation": 0.0, "classes": ["column 1", "column 2"]}
    refused = refusal(spec(teacher=False, dataset=chosen), teacher=None, dataset=untested)
    assert (refused.where, "test split" in refused.reason) == ("/dataset/classes", True)


def test_the_teachers_data_may_have_some_of_the_classes_and_no_other() -> None:
    fewer = report(12, classes=2)
    decided = decide(spec(ToyMethod(), **TEACHERS_DATA), teacher_dataset=fewer)
    assert decided.rows == (24, 12, 24)
    other = fewer.model_copy(update={"class_names": ("column 0", "row 1")})
    refused = refusal(spec(ToyMethod(), **TEACHERS_DATA), teacher_dataset=other)
    assert (refused.where, "'row 1'" in refused.reason, "classes" in (refused.hint or "")) == ("/teacher_dataset", True, True)
    shared: dict[str, Any] = {"teacher_dataset": {"id": "ds_2", "validation": 0.0, "classes": ["column 0", "column 1"]}}
    assert decide(spec(ToyMethod(), **shared), teacher_dataset=report(12)).rows == (24, 8, 24)


def test_measures_ask_only_for_the_chosen_classes() -> None:
    # Output 2 is the largest everywhere and was not chosen; of the others the first sample's label wins, the second's loses.
    network, other = affine([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [0.0, 0.0, 9.0]), affine([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    whole = Rows.whole(np.array([[0.7, 0.2], [0.3, 0.6]], np.float32), np.array([0, 0]), classes=3, domain=DOMAIN)
    rows = whole.named({0: 0, 1: 1}, 3)
    (*_, found) = evaluate(network, rows, against=other)
    assert found is not None
    assert (found["accuracy"], found["agreement"], found["max_abs_diff"]) == (0.5, 1.0, 0.0)
    assert found["loss"] == pytest.approx(np.mean([np.log(1 + np.exp(-0.5)), np.log(1 + np.exp(0.3))]), abs=1e-6)
    # The margin .5 falls by twice epsilon.
    assert returned(FGSM(epsilons=(0.24, 0.26), clamp=False).curve(network, rows))["accuracy"] == [0.5, 0.0]
    assert returned(ParameterNoise(epsilons=(0.0,)).curve(network, rows, seed=0))["accuracy"] == [0.5]
    measured = returned(Boundary(samples=2).values(network, other, rows, seed=0))
    assert (measured["boundary_tried"], measured["boundary_pairs"]) == (1, 1)
    assert measured["boundary_distance"] == pytest.approx(0.5 / np.sqrt(2), rel=1e-3)


def test_a_job_on_some_classes_learns_and_answers_those_alone(tmp_path: Path) -> None:
    chosen = {"id": "ds_0", "validation": 0.1, "classes": ["0", "1", "7"]}
    folder = fill(tmp_path / "job", teacher=None, methods=[], dataset=chosen)
    ended = work("run", folder)
    assert (ended.code, ended.log) == (0, "")
    x, y = digits()
    job = Job.open(folder, json.loads((folder / "job.json").read_text()))
    assert job.plan.rows[0] < np.isin(y, (0, 1, 7)).sum()
    assert ended.result["test"]["accuracy"] > 0.9
    assert ended.result["test"]["n"] < 0.3 * 0.4 * len(x)


def test_nothing_of_the_teachers_data_is_set_aside_unless_it_is_asked_for() -> None:
    assert decide(spec(ToyMethod(), teacher_dataset={"id": "ds_2"})).rows == (24, 12, 24)
    assert decide(spec(ToyMethod(), teacher_dataset={"id": "ds_2", "validation": 0.25})).rows == (24, 9, 24)


def test_outputs_of_other_classes_are_neither_copied_nor_drawn_near() -> None:
    data = report(24).model_copy(update={"class_names": ("cat", "dog", "eel")})
    few, many = (measure(parse({"family": "mlp", "input": list(SHAPE), "hidden": [w], "classes": n})) for w, n in ((3, 2), (4, 3)))

    digits = data.model_copy(update={"class_names": ("0", "1", "2")})

    def planned(method: Method, labels: tuple[str, ...], teacher: Anatomy = few, data: DatasetReport = data) -> Plan:
        brought = TEACHERS_DATA if isinstance(method, AntiDistillation) else {}
        return plan(spec(method, **brought), teacher, many, dataset=data, teacher_dataset=data, teacher_labels=labels)

    for method in (Padding(), AntiDistillation()):
        assert planned(method, ("cat", "dog")).fits  # the first two of the student's classes
        with pytest.raises(Refused, match="output 0 is 'dog' there and 'cat' here") as refused:
            planned(method, ("dog", "eel"))
        assert refused.value.where == "/teacher"
        for fine in (("0", "1"), ("cat", "dog")):  # numbers tell nothing of other names
            assert planned(method, fine, data=digits).fits
        with pytest.raises(Refused, match="output 0 is '1' there and '0' here"):
            planned(method, ("1", "2"), data=digits)
    assert planned(AntiDistillation(distance_weight=0.0), ("dog", "eel")).fits
    for grown in (Net2Net(), Padding()):
        with pytest.raises(Refused, match=f"the method '{grown.name}' takes the teacher's outputs for the student's"):
            planned(grown, ("fox", "owl", "pig"), many)
    assert planned(Transfer(), ("fox", "owl", "pig"), many).fits
