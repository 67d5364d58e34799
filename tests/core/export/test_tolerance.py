"""How far an export may lie from the student, with numbers counted by hand."""

from typing import Any

import pytest

from core.export.tolerance import EIGHT_BITS, EXACT, HALF, Tolerance


def found(**changes: Any) -> dict[str, Any]:
    return {"finite": True, "max_abs_diff": 0.0, "largest_logit": 8.0, "compared": 1000, "same": 1000, **changes}


@pytest.mark.parametrize(
    ("tolerance", "changes", "offered"),
    [
        (EXACT, {"max_abs_diff": 7e-4}, True),  # 8 * 1e-4 is allowed
        (EXACT, {"max_abs_diff": 9e-4}, False),
        (EXACT, {"max_abs_diff": 9e-5, "largest_logit": 0.1}, True),  # small logits: 1 * 1e-4
        (EXACT, {"max_abs_diff": 2e-4, "largest_logit": 0.1}, False),
        (HALF, {"same": 990, "max_abs_diff": 3.0}, True),
        (HALF, {"same": 989}, False),
        (EIGHT_BITS, {"same": 950}, True),
        (EIGHT_BITS, {"same": 949}, False),
        (EIGHT_BITS, {"same": 960, "labelled": 1000, "student_hits": 900, "hits": 880}, True),
        (EIGHT_BITS, {"same": 960, "labelled": 1000, "student_hits": 900, "hits": 879}, False),
        (EIGHT_BITS, {"same": 960, "labelled": 1000, "student_hits": 900, "hits": 940}, True),  # better is no fault
        (EIGHT_BITS, {"compared": 8, "same": 7}, True),  # one input of eight is more than 5 %, and decides nothing
        (EIGHT_BITS, {"compared": 8, "same": 6}, False),
        *((tolerance, {"finite": False, "max_abs_diff": None}, False) for tolerance in (EXACT, HALF, EIGHT_BITS)),
    ],
)
def test_an_export_is_offered_up_to_its_bounds_and_no_further(tolerance: Tolerance, changes: dict[str, Any], offered: bool) -> None:
    assert (tolerance.disagreement(found(**changes)) is None) is offered


def test_a_refusal_has_the_numbers() -> None:
    assert EXACT.disagreement(found(max_abs_diff=0.25)) == (
        "its logits differ from the student's by 0.25 on 1000 test inputs; 0.0008 is allowed"
    )
    assert HALF.disagreement(found(same=900)) == "it gives another class than the student on 100 of 1000 test inputs; 1% are allowed"
    lost = EIGHT_BITS.disagreement(found(labelled=500, student_hits=400, hits=380))
    assert lost == "it is right on 20 test inputs fewer than the student of 500; 2% are allowed"
