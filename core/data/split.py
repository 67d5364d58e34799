"""Which samples a job uses: stratified, seeded, and pure: the same reference names the same rows for ever."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import random

Labels = NDArray[np.int64]


def shuffled_by_class(labels: Labels, rows: Labels, purpose: str, seed: int) -> dict[int, Labels]:
    """The rows of each class in an order drawn from (purpose, seed, class); a longer prefix contains every shorter one."""
    mixed = int(random.key_of(purpose, seed))
    classes = (int(label) for label in np.unique(labels[rows]))
    chosen = {label: rows[labels[rows] == label] for label in classes}
    return {label: own[random.order(mixed, label, len(own)).numpy()] for label, own in chosen.items()}


def shares(counts: Mapping[int, int], total: int) -> dict[int, int]:
    """Split `total` over classes in proportion to their counts, by largest remainder; ties go to the lower class.

    >>> shares({0: 50, 1: 30, 2: 20}, 11)
    {0: 6, 1: 3, 2: 2}
    """
    whole = sum(counts.values())
    floors = {label: count * total // whole for label, count in counts.items()}
    left = total - sum(floors.values())
    by_remainder = sorted(counts, key=lambda label: (-(counts[label] * total % whole), label))
    return {label: floors[label] + (label in by_remainder[:left]) for label in counts}


def draw(labels: Labels, rows: Labels, wanted: Mapping[int, int], purpose: str, seed: int) -> Labels:
    """`wanted[c]` rows of each class c, in ascending order."""
    mixed = shuffled_by_class(labels, rows, purpose, seed)
    parts: list[NDArray[Any]] = [own[: wanted.get(label, 0)] for label, own in mixed.items()]
    return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def set_aside(labels: Labels, rows: Labels, fraction: float, purpose: str, seed: int) -> tuple[Labels, Labels]:
    """(kept, aside): about `fraction` of every class goes aside, at least one sample in all, and at least one of each class is kept."""
    counts = {int(label): int(count) for label, count in zip(*np.unique(labels[rows], return_counts=True), strict=True)}
    total = max(1, round(fraction * len(rows)))
    wanted = {label: min(share, counts[label] - 1) for label, share in shares(counts, total).items()}
    aside = draw(labels, rows, wanted, purpose, seed)
    return np.setdiff1d(rows, aside, assume_unique=True), aside
