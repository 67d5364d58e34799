"""What several seeds say together: mean, spread, and paired differences with a t interval."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import spearmanr, t

FEWEST = 3
"""Fewer pairs than this say nothing about their spread, so no interval is given."""


@dataclass(frozen=True, slots=True)
class Spread:
    """n values: their mean, and their sample standard deviation where there are two or more."""

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """n paired differences: their mean, and the bounds of its 95 % t interval where there are at least three."""

    n: int
    mean: float
    low: float | None
    high: float | None


def spread(values: Mapping[int, float]) -> Spread | None:
    """The spread of values by seed; None of nothing."""
    if not values:
        return None
    return Spread(len(values), statistics.mean(values.values()), statistics.stdev(values.values()) if len(values) > 1 else None)


def difference(values: Mapping[int, float], against: Mapping[int, float]) -> Difference | None:
    """values - against over the seeds that both have, mean ± t(0.975, n-1) sd / sqrt(n); None where they share no seed."""
    found = [values[seed] - against[seed] for seed in sorted(values.keys() & against.keys())]
    if not found:
        return None
    n, mean = len(found), statistics.mean(found)
    if n < FEWEST:
        return Difference(n, mean, None, None)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(found) / n**0.5
    return Difference(n, mean, mean - half, mean + half)


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation of pairs of values, equal values sharing a rank: 1 for one order, -1 for the opposite one. None for fewer
    than three pairs, and where all values of a side are equal.
    """
    if len(pairs) < FEWEST or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)
