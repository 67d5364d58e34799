"""How alike two decision boundaries are: lines and circles by hand, a bent boundary by brute force."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.data import Rows
from core.evaluate.boundary import Boundary, _compared
from core.taps import Tapped
from tests.core.evaluate.measuring import affine, labelled, returned, sleepy, traces, vectors
from tests.core.toys import DOMAIN


class Computed(nn.Module):
    """Logits (f(x), 0): the boundary of two classes is where f is 0."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        margin = self.f(x)
        return torch.stack([margin, torch.zeros_like(margin)], 1)


def network(f: Callable[[Tensor], Tensor]) -> Tapped:
    return Tapped(Computed(f))


def plane(*weight: float, offset: float) -> Tapped:
    """The boundary w x + offset = 0."""
    return affine([list(weight), [0.0] * len(weight)], [offset, 0.0])


def compare(student: Tapped, teacher: Tapped, x: Sequence[Sequence[float]], measure: Boundary | None = None) -> dict[str, float]:
    """The values on samples of class 0."""
    return returned((measure or Boundary()).values(student, teacher, vectors(x, [0] * len(x)), seed=0))


def test_the_distance_to_a_plane_is_its_margin_over_the_length_of_its_normal() -> None:
    # (3 * .2 + 4 * .1 + 1) / 5 = .4 and (3 * 0 + 4 * 0 + 1) / 5 = .2; the teacher's plane 8 x2 + 2 lies .35 and .25 away.
    found = compare(plane(3.0, 4.0, offset=1.0), plane(0.0, 8.0, offset=2.0), [[0.2, 0.1], [0.0, 0.0]], Boundary(iterations=1))
    assert found["boundary_distance"] == pytest.approx((0.4 + 0.2) / 2, rel=1e-5)
    assert found["teacher.boundary_distance"] == pytest.approx((0.35 + 0.25) / 2, rel=1e-5)
    assert found["magsim"] == pytest.approx((0.35 / 0.4 + 0.2 / 0.25) / 2, rel=1e-5)
    assert found["angsim"] == pytest.approx(4 / 5, rel=1e-5)
    assert (found["boundary_pairs"], found["boundary_tried"]) == (2, 2)


@pytest.mark.parametrize("theta", [0.0, 0.3, math.pi / 2, 2.5, math.pi])
def test_a_boundary_turned_by_theta_at_equal_distance_has_the_cosine_of_theta(theta: float) -> None:
    # The samples differ along the axis of the turn, so both planes stay .7 away from each.
    teacher, student = plane(1.0, 0.0, 0.0, offset=0.7), plane(math.cos(theta), math.sin(theta), 0.0, offset=0.7)
    found = compare(student, teacher, [[0.0, 0.0, height] for height in (0.0, 0.4, 0.9)])
    assert found["angsim"] == pytest.approx(math.cos(theta), abs=1e-6)
    assert found["magsim"] == pytest.approx(1.0, abs=1e-6)


def test_identical_networks_are_alike_exactly() -> None:
    rows = labelled(sleepy())
    found = returned(Boundary(iterations=6).values(sleepy(), sleepy(), rows, seed=0))
    assert found["boundary_pairs"] == found["boundary_tried"] == 21
    assert (found["magsim"], found["angsim"]) == (1.0, 1.0)
    assert found["boundary_distance"] == found["teacher.boundary_distance"] > 0


def test_any_shift_is_like_itself_to_the_last_bit() -> None:
    shifts = torch.randn(1000, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (_compared(shifts, shifts)[:2] == 1.0).all()


@pytest.mark.parametrize(("inside", "radius", "distance"), [(1.0, 1.0, 0.5), (-1.0, 0.2, 0.3)])
def test_a_circle_is_reached_along_its_radius_from_inside_and_from_outside(inside: float, radius: float, distance: float) -> None:
    """f = +-(r^4 - |x|^4) at |x| = .5: the step overshoots or falls short, and the attack still ends on the circle."""
    circle = network(lambda x: inside * (radius**4 - x.square().sum(1).square()))
    found = compare(circle, plane(-0.6, -0.8, offset=1.0), [[0.3, 0.4]])
    assert found["boundary_distance"] == pytest.approx(distance, rel=1e-3)
    assert found["angsim"] == pytest.approx(inside, abs=1e-4)


def test_a_point_on_a_bent_boundary_is_the_nearest_one() -> None:
    """The parabola x2 = x1^2 - .5 from (0.4, 0.5), against the nearest of a million points of it."""
    parabola = network(lambda x: x[:, 1] - x[:, 0].square() + 0.5)
    u = np.linspace(-2, 2, 1_000_001)
    nearest = np.sqrt((u - 0.4) ** 2 + (u**2 - 0.5 - 0.5) ** 2).min()
    found = compare(parabola, parabola, [[0.4, 0.5]], Boundary(iterations=40))
    assert found["boundary_distance"] == pytest.approx(nearest, rel=1e-3)


def test_a_corner_between_two_linear_pieces_is_reached_and_is_the_nearest_point() -> None:
    """max of 1 - x1 - x2 / 2 and 1 - x1 / 2 - x2, from (0, .1): the nearest points of the two lines, (.76, .48) and (.36, .82), lie inside
    the class, and the plain iteration goes from one to the other for ever; the boundary is nearest at the corner (2/3, 2/3)."""
    corner = network(lambda x: torch.maximum(1 - x[:, 0] - x[:, 1] / 2, 1 - x[:, 0] / 2 - x[:, 1]))
    found = compare(corner, plane(-2 / 3, 0.1 - 2 / 3, offset=1.0), [[0.0, 0.1]])
    assert found["boundary_distance"] == pytest.approx(math.hypot(2 / 3, 2 / 3 - 0.1), rel=1e-3)
    assert found["angsim"] == pytest.approx(1.0, abs=1e-3)


def test_shifts_leave_the_range_of_the_data() -> None:
    assert compare(plane(1.0, 0.0, offset=3.0), plane(1.0, 0.0, offset=3.0), [[0.5, 0.5]])["boundary_distance"] == pytest.approx(3.5)


def test_what_is_not_reached_is_counted_and_never_averaged() -> None:
    """The student's f is 1 everywhere but beyond x1 = .5, where it falls: the first sample has no slope to follow."""
    student = network(lambda x: 1 - 10 * (x[:, 0] - 0.5).relu())
    found = compare(student, plane(-1.0, 0.0, offset=1.0), [[0.0, 0.0], [0.55, 0.0]])
    assert (found["boundary_tried"], found["boundary_pairs"]) == (2, 1)
    assert found["boundary_distance"] == pytest.approx(0.05, rel=1e-3)
    assert found["teacher.boundary_distance"] == pytest.approx(0.45, rel=1e-3)


@pytest.mark.parametrize("f", [lambda x: 1 + 0 * x[:, 0], lambda x: 1 + x[:, 0].square(), lambda x: 1e30 * x[:, 0].sqrt() + 1])
def test_where_no_pair_is_usable_there_are_counts_and_no_values(f: Callable[[Tensor], Tensor]) -> None:
    assert compare(network(f), plane(1.0, 0.0, offset=1.0), [[0.5, 0.0]]) == {"boundary_pairs": 0, "boundary_tried": 1}


def test_only_samples_that_both_classify_right_are_tried() -> None:
    # The teacher is wrong on the second, the student on the third.
    teacher, student = plane(1.0, 0.0, offset=-0.5), plane(0.0, 1.0, offset=-0.5)
    found = compare(student, teacher, [[0.9, 0.9], [0.1, 0.9], [0.9, 0.1]])
    assert found["boundary_tried"] == 1
    assert found["boundary_distance"] == pytest.approx(0.4)
    assert compare(student, teacher, [[0.1, 0.9]]) == {"boundary_pairs": 0, "boundary_tried": 0}


def test_so_many_samples_are_tried_and_the_seed_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.evaluate.boundary._TOGETHER", 4)
    student, rows = plane(1.0, offset=0.0), vectors([[n / 64] for n in range(1, 33)], [0] * 32)
    first, again, other = (returned(Boundary(samples=10).values(student, student, rows, seed=seed)) for seed in (0, 0, 1))
    assert first["boundary_tried"] == first["boundary_pairs"] == 10
    assert first == again
    assert first["boundary_distance"] != other["boundary_distance"]
    everything = returned(Boundary(samples=100).values(student, student, rows, seed=0))
    assert everything["boundary_tried"] == 32
    assert everything["boundary_distance"] == pytest.approx(33 / 2 / 64)


def test_the_other_class_is_drawn_by_the_teachers_probabilities_without_its_top_class() -> None:
    """Classes 1, 2, 3 lie 1, 2 and 4 away and have the teacher's probabilities 5 : 3 : 2 beside class 0."""
    x = np.zeros((4000, 1), dtype=np.float32)
    rows = Rows.whole(x, np.zeros(4000, dtype=np.int64), classes=4, domain=DOMAIN)
    p = np.log([100.0, 5.0, 3.0, 2.0])
    teacher = affine([[0.0], [1.0], [1.0], [1.0]], p.tolist())
    student = affine([[0.0], [1.0], [1.0], [1.0]], [0.0, -1.0, -2.0, -4.0])
    found = returned(Boundary(samples=4000, iterations=1).values(student, teacher, rows, seed=0))
    # The mean of 1, 2, 4 by these weights, within five deviations of 1.1 / sqrt(4000).
    assert found["boundary_distance"] == pytest.approx(0.5 * 1 + 0.3 * 2 + 0.2 * 4, abs=0.09)


def test_a_teacher_that_is_sure_still_has_a_second_choice() -> None:
    """All its other probabilities are 0 in single precision."""
    rows = Rows.whole(np.zeros((50, 1), dtype=np.float32), np.zeros(50, dtype=np.int64), classes=3, domain=DOMAIN)
    teacher = affine([[0.0], [1.0], [1.0]], [1000.0, 0.0, -1000.0])
    found = returned(Boundary().values(teacher, teacher, rows, seed=0))
    assert found["boundary_distance"] == pytest.approx(1000.0)


def test_nothing_of_either_network_changes_and_nothing_leaks_between_steps() -> None:
    student, teacher = sleepy(), sleepy(1)
    before = [traces(student), traces(teacher)]
    yields = 0
    for _ in Boundary(iterations=3).values(student, teacher, labelled(sleepy()), seed=0):
        yields += 1
        assert torch.is_grad_enabled()
        assert [traces(student), traces(teacher)] == before
    assert yields == 1 + 2 * 3
    assert [traces(student), traces(teacher)] == before
