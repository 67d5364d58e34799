"""Curves: joined over attempts, thinned without losing a peak."""

import math

from hypothesis import given
from hypothesis import strategies as st

from api.curves import Columns, chosen, joined, last_values, thinned

Blocks = list[tuple[int, Columns]]


def test_blocks_of_one_attempt_follow_each_other() -> None:
    blocks: Blocks = [(1, {"done": [1, 2], "loss": [5.0, 4.0]}), (1, {"done": [3], "loss": [3.0]})]
    assert joined(blocks) == {"done": [1, 2, 3], "loss": [5.0, 4.0, 3.0]}


def test_after_a_resume_the_newer_attempt_counts_from_its_first_point_on() -> None:
    blocks: Blocks = [(1, {"done": [10, 20, 30], "loss": [3.0, 2.0, 1.0]}), (2, {"done": [15, 25], "loss": [9.0, 8.0]})]
    assert joined(blocks) == {"done": [10, 15, 25], "loss": [3.0, 9.0, 8.0]}


def test_a_block_that_an_older_attempt_wrote_late_is_left_out() -> None:
    blocks: Blocks = [(2, {"done": [1], "loss": [1.0]}), (1, {"done": [2], "loss": [2.0]})]
    assert joined(blocks) == {"done": [1], "loss": [1.0]}


def test_a_curve_that_begins_late_has_gaps_before() -> None:
    blocks: Blocks = [(1, {"done": [1], "loss": [5.0]}), (1, {"done": [2], "loss": [4.0], "kd": [0.5]})]
    assert joined(blocks) == {"done": [1, 2], "loss": [5.0, 4.0], "kd": [None, 0.5]}


def test_no_blocks_are_no_curves() -> None:
    assert joined([]) == {}
    assert thinned({}, 10) == {}


def test_asked_for_curves_come_with_their_axes() -> None:
    columns: dict[str, list[float | None]] = {"done": [1], "epoch": [0], "loss": [5.0], "kd": [1.0]}
    assert chosen(columns, ["kd"]).keys() == {"done", "epoch", "kd"}
    assert chosen(columns, []) == columns


@given(st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=1, max_size=400), st.integers(4, 60))
def test_thinning_keeps_the_ends_the_lowest_and_the_highest(values: list[float | None], most: int) -> None:
    columns: dict[str, list[float | None]] = {"done": [float(i) for i in range(len(values))], "loss": values}
    thin = thinned(columns, most)
    assert len(thin["done"]) == len(thin["loss"]) <= max(most, 4)
    assert thin["done"][0] == 0
    assert thin["done"][-1] == len(values) - 1
    assert thin["done"] == sorted(thin["done"], key=lambda at: at or 0)
    known = [value for value in values if value is not None]
    kept = [value for value in thin["loss"] if value is not None]
    if known:
        assert (min(kept), max(kept)) == (min(known), max(known))


def test_thinning_two_curves_keeps_the_peaks_of_both() -> None:
    n = 1000
    up: list[float | None] = [math.sin(i) for i in range(n)]
    down: list[float | None] = [-abs(i - 333.0) for i in range(n)]
    thin = thinned({"done": [float(i) for i in range(n)], "a": up, "b": down}, 50)
    assert len(thin["done"]) <= 50
    assert max(value for value in thin["b"] if value is not None) == 0.0
    assert max(value for value in thin["a"] if value is not None) == max(value for value in up if value is not None)


def test_the_newest_values_leave_the_axes_out() -> None:
    assert last_values({"done": [1, 2], "epoch": [0, 0], "step": [1, 2], "loss": [5.0, 4.0], "kd": [None]}) == {"loss": 4.0}
