"""Stratified, seeded choices of rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.data.split import draw, set_aside, shares, taken
from core.spec import Take

LABELS = np.repeat([0, 1, 2], [50, 30, 20])
ROWS = np.arange(100)


@given(st.dictionaries(st.integers(0, 20), st.integers(1, 1000), min_size=1), st.floats(0, 1))
def test_shares_add_up_and_stay_within_one_of_the_proportion(counts: dict[int, int], fraction: float) -> None:
    total = int(fraction * sum(counts.values()))
    found = shares(counts, total)
    assert sum(found.values()) == total
    assert all(abs(found[label] - total * count / sum(counts.values())) < 1 and found[label] <= count for label, count in counts.items())


def test_a_draw_is_a_function_of_seed_and_purpose() -> None:
    wanted = {0: 5, 1: 3, 2: 2}
    first = draw(LABELS, ROWS, wanted, "take", 0)
    assert np.array_equal(first, draw(LABELS, ROWS, wanted, "take", 0))
    assert np.bincount(LABELS[first]).tolist() == [5, 3, 2]
    assert not np.array_equal(first, draw(LABELS, ROWS, wanted, "take", 1))
    assert not np.array_equal(first, draw(LABELS, ROWS, wanted, "test", 0))


def test_a_smaller_draw_is_part_of_a_larger_one() -> None:
    small, large = (draw(LABELS, ROWS, dict.fromkeys(range(3), n), "take", 7) for n in (4, 9))
    assert set(small) < set(large)


def test_what_is_set_aside_is_stratified_and_the_rest_is_kept() -> None:
    kept, aside = set_aside(LABELS, ROWS, 0.2, "test", 0)
    assert np.bincount(LABELS[aside]).tolist() == [10, 6, 4]
    assert sorted([*kept, *aside]) == list(range(100))


def test_every_class_keeps_a_sample() -> None:
    labels = np.array([0, 0, 1])
    kept, aside = set_aside(labels, np.arange(3), 0.9, "test", 0)
    assert sorted(labels[kept]) == [0, 1]
    assert labels[aside].tolist() == [0]


def test_the_draw_of_today_is_the_draw_of_every_later_version() -> None:
    assert draw(LABELS, ROWS, {0: 3, 1: 2, 2: 1}, "take", 0).tolist() == [6, 8, 46, 51, 74, 98]


def test_what_is_taken_leaves_no_class_empty() -> None:
    take = Take(total=10)
    assert taken({0: 990, 1: 5, 2: 5}, take, where="") == {0: 8, 1: 1, 2: 1}
    assert taken({0: 50, 1: 30, 2: 20}, take, where="") == {0: 5, 1: 3, 2: 2}
    assert taken({0: 9, 1: 1, 2: 1}, Take(total=3), where="") == {0: 1, 1: 1, 2: 1}
