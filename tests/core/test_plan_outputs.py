"""Teachers whose outputs are not simply the dataset's classes, and teachers that show nothing but their outputs."""

from typing import Any

import pytest

from core.anatomy import Anatomy, measure
from core.data import DatasetReport
from core.errors import Refused
from core.evaluate.boundary import Boundary
from core.method import Method
from core.methods import catalogue
from core.methods.at import AT
from core.methods.jacobian import Jacobian
from core.methods.kd import KD
from core.methods.padding import Padding
from core.networks import parse
from core.plan import Plan, plan
from core.spec import JobSpec, baseline, identity
from tests.core.toys import SHAPE, Toy, report, spec

NAMED = report(30).model_copy(update={"class_names": ("cat", "dog", "eel")})
WIDE = measure(Toy(classes=9))
FROZEN = measure(Toy()).model_copy(update={"frozen": True, "family": "onnx", "taps": {}, "stages": (), "weights": {}, "calls": {}})
BEFORE = "2351c3ed150319f028ef8d5847867784eaa2d7b85adcffcacc4a82da47ac7548"
MAP = {"cat": 7, "dog": 0, "eel": 3}


def decide(asked: JobSpec, teacher: Anatomy | None, student: Anatomy | None = None, dataset: DatasetReport = NAMED, **more: Any) -> Plan:
    return plan(asked, teacher, student or measure(Toy()), dataset=dataset, **more)


def refusals(asked: JobSpec, teacher: Anatomy | None, **more: Any) -> list[str]:
    with pytest.raises(Refused) as caught:
        decide(asked, teacher, **more)
    return [f"{each.where}: {each.reason}" for each in caught.value.all]


def test_a_map_lets_a_wider_teacher_teach_some_of_its_classes() -> None:
    assert refusals(spec(KD()), WIDE)[0].startswith("/teacher: the teacher has 9 outputs")
    decided = decide(spec(KD(), label_map=MAP, evaluate=["agreement"]), WIDE)
    assert (decided.outputs, decided.same_classes) == ((7, 0, 3), True)
    assert "6 of its 9 outputs answer for none" in decided.warnings[-1]


def test_a_map_overrides_names_that_say_otherwise() -> None:
    labels = ("fox", "owl", "pig")
    assert "other classes" in refusals(spec(KD()), measure(Toy()), teacher_labels=labels)[0]
    decided = decide(spec(KD(), label_map={"cat": "pig", "dog": "owl", "eel": "fox"}), measure(Toy()), teacher_labels=labels)
    assert decided.outputs == (2, 1, 0)


def test_a_map_without_a_teacher_is_refused_with_whatever_else_is_wrong() -> None:
    found = refusals(spec(KD(), teacher=False, label_map=MAP), None)
    assert [each.partition(":")[0] for each in found] == ["/label_map", "/teacher"]


def test_weights_of_outputs_are_not_taken_over_in_another_order() -> None:
    small, large = (measure(parse({"family": "mlp", "input": list(SHAPE), "classes": 3, "hidden": [width]})) for width in (4, 8))
    assert decide(spec(Padding()), small, large, teacher_labels=("cat", "dog", "eel")).outputs is None
    (found,) = refusals(spec(Padding()), small, student=large, teacher_labels=("dog", "cat", "eel"))
    assert found.startswith("/teacher: the method 'padding' takes the weights of the teacher's output k")


def test_a_spec_without_a_map_keeps_the_identity_that_it_had_before_there_were_maps() -> None:
    """Taken on the commit before `label_map` came."""
    plain = spec(KD())
    assert plain.label_map is None
    assert "label_map" in plain.model_dump()
    assert identity(plain) != identity(spec(KD(), label_map=MAP))
    assert baseline(spec(KD(), label_map=MAP), 2).label_map is None
    assert identity(plain) == BEFORE


@pytest.mark.parametrize("method", [AT(), Jacobian(), Padding()], ids=lambda method: method.name)
def test_a_method_that_looks_into_a_frozen_teacher_is_refused_with_the_reason(method: Method) -> None:
    found = refusals(spec(KD(), method), FROZEN)
    assert found == [
        f"/methods/1: the method {method.name!r} looks into the teacher, and of this teacher (onnx) there are the logits alone: "
        "no taps, no gradient, no weights"
    ]


def test_a_frozen_teacher_teaches_its_logits_and_is_not_attacked() -> None:
    assert decide(spec(KD()), FROZEN).is_frozen
    (found,) = refusals(spec(KD(), evaluate=[Boundary().model_dump()]), FROZEN)
    assert found.startswith("/evaluate/0: boundary follows the teacher's gradient")


def test_a_method_for_which_answers_suffice_asks_for_nothing_else() -> None:
    teacher, student = measure(Toy(width=6)), measure(Toy())
    suffice = [name for name, method in catalogue().items() if method.answers_suffice]
    assert "kd" in suffice
    for name in suffice:
        lesson = catalogue()[name].model_validate({"name": name}).lesson(teacher, student)
        terms = [weighted.term for terms in (*(fit.terms for fit in lesson.transfer), lesson.train) for weighted in terms.values()]
        assert all(term.teacher != "network" and not term.teacher_taps for term in terms)
        assert not lesson.initialise
        assert all(fit.teacher_mode == "eval" for fit in lesson.transfer)
