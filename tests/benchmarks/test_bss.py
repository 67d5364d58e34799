"""The engine's step with boundary samples and the textbook loop are one computation; shown on networks small enough for a test."""

from pathlib import Path

import pytest
import torch

from benchmarks.bss import ITERATIONS, Textbook, difference, equal, opened, pictures
from benchmarks.step import Case

TINY = {"family": "resnet", "depth": 8, "stem_stride": 4}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return opened(pictures(tmp_path, size=8, n=64), TINY, TINY, batch_size=16, precision="fp32")


def test_both_compute_the_same_where_every_sample_takes_every_step(case: Case) -> None:
    found = equal(case)
    assert found["float64"]["gradient"] < 1e-10
    for _ in range(8):  # two epochs: the first begins with a step from before
        case.step()
    assert case.told["bss.iterations"] == ITERATIONS
    assert case.teacher is not None
    book = Textbook(case.teacher, case.student, case.batch)
    book.step()
    assert book.passes == ITERATIONS


def test_both_compute_the_same_where_samples_cross(case: Case) -> None:
    assert case.teacher is not None
    with torch.no_grad():
        case.teacher.network.get_parameter("fc.weight").mul_(1e3)
    assert max(difference(case, torch.float64).values()) < 1e-10
    for _ in range(8):  # two epochs: the first begins with a step from before
        case.step()
    assert 0 < case.told["bss.iterations"] < ITERATIONS


def test_a_difference_stops_the_script(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.bss.ITERATIONS", 9)
    with pytest.raises(SystemExit, match="do not compute the same"):
        equal(case)


def test_the_loops_step_moves_the_student_and_nothing_of_the_engines(case: Case) -> None:
    assert case.teacher is not None
    book = Textbook(case.teacher, case.student, case.batch)
    before = [parameter.clone() for parameter in case.student.parameters()]
    book.step()
    assert all(torch.equal(*pair) for pair in zip(before, case.student.parameters(), strict=True))
    moved = zip(before, book.student.parameters(), strict=True)
    assert any(not torch.equal(*pair) for pair in moved)
