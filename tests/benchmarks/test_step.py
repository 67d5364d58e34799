"""What a step costs beyond its networks, at a size where only the bookkeeping can be tested."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.images import canonical
from benchmarks.step import METHODS, Case, stopwatch
from benchmarks.training import Bed

TINY = {"family": "wrn", "depth": 10, "widen": 1, "stem_stride": 4}


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    draw = np.random.default_rng(0)
    arrays = {"x": draw.integers(0, 256, (200, 8, 8), np.uint8), "y": np.arange(200) % 4}
    np.savez(tmp_path / "random.npz", **arrays)  # type: ignore[arg-type]
    return Bed(*canonical(tmp_path / "random.npz", tmp_path), tmp_path)


@pytest.mark.parametrize("methods", METHODS)
def test_the_pieces_of_a_step_are_inside_it(bed: Bed, methods: str) -> None:
    case = Case(bed, TINY, TINY, METHODS[methods])
    done = case.bench.step
    with stopwatch(case) as seconds:
        whole = case.step()
    assert case.bench.step == done + 1
    assert (seconds["teacher"] > 0) == bool(METHODS[methods])
    assert min(seconds["student"], seconds["backward"]) > 0
    assert sum(seconds.values()) < whole


def test_the_bare_loop_makes_gradients_and_moves_no_weight(bed: Bed) -> None:
    case = Case(bed, TINY, TINY, METHODS["kd"])
    before = [parameter.detach().clone() for parameter in case.student.parameters()]
    case.bare()
    assert all(parameter.grad is not None for parameter in case.student.parameters())
    assert all(torch.equal(*pair) for pair in zip(before, case.student.parameters(), strict=True))


def test_the_stopwatch_leaves_nothing_behind(bed: Bed) -> None:
    case, backward = Case(bed, TINY, TINY, METHODS["at"]), torch.Tensor.backward
    with stopwatch(case) as seconds:
        case.step()
    read = dict(seconds)
    case.step()
    assert seconds == read
    assert torch.Tensor.backward is backward
