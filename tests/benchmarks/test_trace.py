"""The two ways to the trace are one number, and the script says so before it measures; shown on a network small enough for a test."""

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import trace
from core.taps import Tapped
from core.trace import closed_form


def test_the_closed_form_is_the_whole_hessians_and_agrees_with_the_mean_of_many_probes() -> None:
    assert trace.equal()["gradient"] < 1e-12
    network, x, y = trace.drawn((6, 5), 4, 8)
    found = trace.agreeing(network, x, y, None, 200)
    assert 0 < found["standard_error"] < 0.2 * found["closed_form"]
    measured = trace.measured(network, x, y, rounds=1, steps=1)
    assert measured["ratio"]["median"] == pytest.approx(measured["hutchinson_ms"] / measured["closed_form_ms"])


def test_a_difference_stops_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(network: Tapped, x: Tensor, *more: Any) -> Tensor:
        return closed_form(network, torch.cat([x, x[:1]]), *more)

    monkeypatch.setattr(trace, "closed_form", wrong)
    with pytest.raises(SystemExit, match="not the trace"):
        trace.equal()
    network, x, y = trace.drawn((6, 5), 4, 8)
    monkeypatch.setattr(trace, "closed_form", lambda *_: torch.tensor(-1.0))
    with pytest.raises(SystemExit, match="do not agree"):
        trace.agreeing(network, x, y, None, 20)


def test_where_classes_are_absent_both_leave_them_out() -> None:
    network, x, y = trace.drawn((6, 5), 4, 8, classes=3)
    present = torch.arange(10) < 3
    assert int(y.max()) < 3
    found = trace.agreeing(network, x, y, present, 200)
    assert 0 < found["standard_error"] < 0.3 * found["closed_form"]
    assert found["closed_form"] != pytest.approx(closed_form(network, x).item(), rel=0.1)
