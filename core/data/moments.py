"""Mean, deviation, least and greatest value per channel of data that passes by once."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Moments:
    """Streaming moments over the last axis: exact integer sums for uint8, Chan's pairwise merge in float64 for floats."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self._sum = np.zeros(channels, np.int64)
        self._squares = np.zeros(channels, np.int64)
        self._mean = np.zeros(channels, np.float64)
        self._spread = np.zeros(channels, np.float64)
        self._whole = False

    def add(self, x: NDArray[Any]) -> None:
        """Meet some samples, channels last."""
        values = x.reshape(-1, x.shape[-1])
        if not len(values):
            return
        if x.dtype == np.uint8:
            self._whole = True
            self.count += len(values)
            self._sum += values.sum(0, dtype=np.int64)
            self._squares += np.square(values, dtype=np.int64).sum(0)
            return
        count, mean = len(values), values.mean(0, dtype=np.float64)
        spread = np.square(values - mean).sum(0)
        step = mean - self._mean
        total = self.count + count
        self._mean += step * (count / total)
        self._spread += spread + step**2 * (self.count * count / total)
        self.count = total

    def mean(self) -> tuple[float, ...]:
        """Per channel, in data units (uint8 divided by 255)."""
        if self._whole:
            return tuple(int(total) / (255 * self.count) for total in self._sum)
        return tuple(float(mean) for mean in self._mean)

    def std(self) -> tuple[float, ...]:
        """The population deviation per channel, in data units."""
        if self._whole:
            pairs = zip(self._sum, self._squares, strict=True)
            return tuple(math.sqrt(self.count * int(squares) - int(total) ** 2) / (255 * self.count) for total, squares in pairs)
        return tuple(math.sqrt(spread / self.count) for spread in self._spread)
