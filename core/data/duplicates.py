"""Equal samples of a dataset, found by a digest of each as the samples pass by."""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.report import MAX_NAME, Duplicates

MOST = 5_000_000
"""Of more samples than this no digests are kept: it takes 16 bytes for each, and about 40 more while they are compared."""
_NAMED = 10


class Digests:
    """BLAKE2b, 128 bits, of every sample, by split; compared once all are there."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._kept = {split: bytearray() for split in counts} if sum(counts.values()) <= MOST else {}

    def add(self, split: str, rows: NDArray[Any]) -> None:
        """The next samples of a split, contiguous, (n, ...)."""
        if split in self._kept:
            kept = self._kept[split]
            for row in rows.reshape(len(rows), -1).view(np.uint8):
                kept += blake2b(row.data, digest_size=16).digest()

    def compare(self, name: Callable[[str, int], str]) -> Duplicates | None:
        """What is equal to what; `name` tells a row of a split to people. None where there were too many samples to look."""
        if not self._kept:
            return None
        ranges, at = {}, 0
        for split, kept in self._kept.items():
            ranges[split] = range(at, at := at + len(kept) // 16)
        words = np.frombuffer(b"".join(self._kept.values()), np.uint64).reshape(-1, 2)
        order = np.lexsort((words[:, 1], words[:, 0]))  # stable: among equals the earlier row comes first
        fresh = np.ones(len(words), np.bool_)
        fresh[1:] = (words[order[1:]] != words[order[:-1]]).any(1)
        earliest = np.empty(len(words), np.int64)
        earliest[order] = order[fresh][np.cumsum(fresh) - 1]
        kinds = {split: np.unique(earliest[rows.start : rows.stop]) for split, rows in ranges.items()}
        repeats = np.flatnonzero(earliest != np.arange(len(words)))

        def split_of(row: int) -> str:
            return next(split for split, rows in ranges.items() if row in rows)

        def told(row: int) -> str:
            return name(split_of(row), row - ranges[split_of(row)].start)[:MAX_NAME]

        begins = np.array([rows.start for rows in ranges.values()])
        home = begins[np.searchsorted(begins, repeats, "right") - 1]  # where the split of each begins
        leaks = repeats[earliest[repeats] < home]
        first = [*leaks[:_NAMED], *np.setdiff1d(repeats, leaks)[:_NAMED]][:_NAMED]
        return Duplicates(
            within={split: len(rows) - len(kinds[split]) for split, rows in ranges.items()},
            across={
                f"{one}/{other}": int(np.isin(earliest[ranges[other].start : ranges[other].stop], kinds[one]).sum())
                for one, other in combinations(ranges, 2)
            },
            pairs=tuple((told(int(earliest[row])), told(int(row))) for row in first),
        )
