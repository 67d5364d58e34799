"""Events on the wire."""

from core.events import Evaluated, decode, encode


def test_an_evaluation_that_was_told_before_there_were_curves_still_reads() -> None:
    old = '{"event":"evaluated","fit":0,"epoch":1,"done":9,"split":"test","values":{"accuracy":0.5}}'
    assert decode(old) == Evaluated(0, 1, 9, "test", {"accuracy": 0.5}, {})


def test_curves_go_over_the_wire_as_columns() -> None:
    told = Evaluated(0, 1, 9, "test", {"accuracy": 0.5}, {"fgsm": {"epsilon": [0.0, 0.1], "accuracy": [0.5, float("nan")]}})
    assert decode(encode(told)) == Evaluated(
        0,
        1,
        9,
        "test",
        {"accuracy": 0.5},
        {"fgsm": {"epsilon": [0.0, 0.1], "accuracy": [0.5, None]}},  # type: ignore[list-item]
    )
