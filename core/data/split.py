"""Which samples a job uses: stratified, seeded, and pure: the same reference names the same rows for ever.

Samples without labels are one stratum, that of the label `UNLABELLED`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core import random
from core.data.report import UNLABELLED
from core.errors import Refused

Labels = NDArray[np.int64]


class Take(Protocol):
    """How much of the training split is used: exactly one of the three is not None."""

    @property
    def total(self) -> int | None: ...
    @property
    def per_class(self) -> int | None: ...
    @property
    def fraction(self) -> float | None: ...


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


def taken(counts: Mapping[int, int], take: Take | None, *, where: str) -> dict[int, int]:
    """How many training samples of each class a job takes, given how many there are: at least one of each. `Refused` under `where`."""
    if take is None:
        return dict(counts)
    if take.per_class is not None and UNLABELLED in counts:
        raise Refused(f"{where}/take/per_class", "the dataset has no labels, so no classes to take from", hint='"total", or "fraction"')
    if take.per_class is not None:
        label, fewest = min(counts.items(), key=lambda item: item[1])
        if fewest < take.per_class:
            raise Refused(f"{where}/take/per_class", f"class {label} has {fewest} training samples, {take.per_class} are asked for")
        return dict.fromkeys(counts, take.per_class)
    whole = sum(counts.values())
    total = take.total if take.total is not None else round((take.fraction or 0) * whole)
    if not len(counts) <= total <= whole:
        name = "total" if take.total is not None else "fraction"
        reason = f"{total} samples are asked for; there are {whole}" + ("" if UNLABELLED in counts else f" in {len(counts)} classes")
        raise Refused(f"{where}/take/{name}", reason, hint="at least one of each class, at most all")
    wanted = shares(counts, total)
    for label in [label for label, share in wanted.items() if share == 0]:
        # A class without a sample would be tested and never learnt; the largest share gives one away.
        wanted[max(wanted, key=lambda other: (wanted[other], -other))] -= 1
        wanted[label] = 1
    return wanted


def aside(counts: Mapping[int, int], fraction: float) -> dict[int, int]:
    """How many samples of each class are set aside: about `fraction`, one in all at least, but never the last of a class."""
    total = max(1, round(fraction * sum(counts.values())))
    return {label: min(share, counts[label] - 1) for label, share in shares(counts, total).items()}


def counted(labels: Labels) -> dict[int, int]:
    """The samples of each class that is there."""
    return {int(label): int(count) for label, count in zip(*np.unique(labels, return_counts=True), strict=True)}


def draw(labels: Labels, rows: Labels, wanted: Mapping[int, int], purpose: str, seed: int) -> Labels:
    """`wanted[c]` rows of each class c, in ascending order."""
    mixed = shuffled_by_class(labels, rows, purpose, seed)
    parts: list[NDArray[Any]] = [own[: wanted.get(label, 0)] for label, own in mixed.items()]
    return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def set_aside(labels: Labels, rows: Labels, fraction: float, purpose: str, seed: int) -> tuple[Labels, Labels]:
    """(kept, aside): about `fraction` of every class goes aside, at least one sample in all, and at least one of each class is kept."""
    found = draw(labels, rows, aside(counted(labels[rows]), fraction), purpose, seed)
    return np.setdiff1d(rows, found, assume_unique=True), found
