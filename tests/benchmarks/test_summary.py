"""The arithmetic of several seeds: by hand."""

import pytest

from benchmarks.summary import Difference, Spread, difference, rank_correlation, spread


def test_mean_and_sample_deviation_by_hand() -> None:
    assert spread({0: 10.0, 1: 12.0, 2: 17.0}) == Spread(3, 13.0, 13.0**0.5)  # (9 + 1 + 16) / 2
    assert spread({4: 10.0}) == Spread(1, 10.0, None)
    assert spread({}) is None


def test_differences_are_paired_by_seed_and_their_interval_is_by_hand() -> None:
    # Over seeds 1, 2, 3: -1, -2, -3; mean -2, deviation 1, and t(0.975, 2) = 4.303.
    found = difference({0: 50.0, 1: 9.0, 2: 8.0, 3: 7.0}, {3: 10.0, 2: 10.0, 1: 10.0, 9: 0.0})
    assert found is not None
    assert (found.n, found.mean) == (3, -2.0)
    assert (found.low, found.high) == pytest.approx((-2 - 4.303 / 3**0.5, -2 + 4.303 / 3**0.5), abs=1e-3)


def test_two_seeds_are_too_few_for_an_interval() -> None:
    assert difference({0: 3.0, 1: 5.0}, {0: 1.0, 1: 1.0}) == Difference(2, 3.0, None, None)
    assert difference({0: 3.0}, {1: 1.0}) is None


def test_the_correlation_of_ranks_is_by_hand() -> None:
    # Ranks 1, 2, 3 and 1, 3, 2: 1 - 6 (0 + 1 + 1) / (3 * 8).
    assert rank_correlation([(1.0, 10.0), (2.0, 90.0), (5.0, 20.0)]) == pytest.approx(0.5)
    # Ranks 1, 2, 3 and 1.5, 1.5, 3: the correlation of these numbers, 1.5 / (2 * 1.5) ** .5.
    assert rank_correlation([(1.0, 4.0), (2.0, 4.0), (3.0, 5.0)]) == pytest.approx(1.5 / 3**0.5)
    assert rank_correlation([(1.0, 4.0), (2.0, 4.0), (3.0, 4.0)]) is None
    assert rank_correlation([(1.0, 4.0), (2.0, 5.0)]) is None
