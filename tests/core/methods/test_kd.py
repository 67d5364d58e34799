"""Oracles of knowledge distillation; the value and gradient by hand are in `tests/core/test_terms.py`."""

import pytest
from pydantic import ValidationError

from core.anatomy import measure
from core.methods.kd import KD
from core.optim import Linear
from core.terms import SoftTargets
from tests.core.toys import Toy

ANATOMY = measure(Toy())


def term(method: KD) -> SoftTargets:
    found = method.lesson(ANATOMY, ANATOMY).train["kd"].term
    assert isinstance(found, SoftTargets)
    return found


def test_by_default_the_temperature_is_four_and_the_weight_nine_tenths() -> None:
    assert (KD().temperature, KD().weight) == (4.0, 0.9)
    assert term(KD()).scale == 16.0


def test_the_official_variant_leaves_the_square_out() -> None:
    assert term(KD(temperature=3.0, variant="official")).scale == 1.0


def test_a_weight_may_move() -> None:
    weighted = KD(weight=Linear(linear=(4, 1))).lesson(ANATOMY, ANATOMY).train["kd"]
    assert weighted.weight == Linear(linear=(4, 1))


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"temperature": 1e4}, {"weight": -1}, {"variant": "paper"}, {"alpha": 0.9}])
def test_parameters_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        KD.model_validate(wrong)
