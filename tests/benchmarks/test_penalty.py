"""The engine's step with a gradient penalty and the textbook loop are one computation; shown on networks small enough for a test."""

from pathlib import Path

import pytest

from benchmarks.bss import pictures
from benchmarks.penalty import WAYS, Textbook, equal, opened

TINY = {"family": "convnet", "channels": [4, 6]}


@pytest.mark.parametrize("way", ["auto", "double backward"])
def test_both_compute_the_same_and_step(tmp_path: Path, way: str) -> None:
    case = opened(pictures(tmp_path, size=8, n=64), TINY, batch_size=16, **WAYS[way])
    assert equal(case)["float64"]["gradient"] < 1e-10
    case.step()
    assert case.bench.terms["wasserstein"].facts() == {"form": "tangent" if way == "auto" else "double_backward"}
    assert case.teacher is not None
    book = Textbook(case.teacher, case.student, case.batch)
    before = [parameter.clone() for parameter in book.student.parameters()]
    book.step()
    assert any(not one.equal(other) for one, other in zip(before, book.student.parameters(), strict=True))


def test_a_difference_stops_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = opened(pictures(tmp_path, size=8, n=64), TINY, batch_size=16)
    monkeypatch.setattr("benchmarks.penalty.EPSILON", 0.2)
    with pytest.raises(SystemExit, match="do not compute the same"):
        equal(case)
