"""Rows of one split: which samples, where they lie, and how they become tensors in the dataset's own range."""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.data.report import Domain

_TOGETHER = 512
_VALUES = 1 << 22


@dataclass(frozen=True, slots=True)
class Batch:
    """B samples: `x` (B, C, H, W) or (B, D) float32 in data range, `y` (B,) int64, `index` (B,) int64 the rows of the dataset.

    `y` is `UNLABELLED` everywhere where the dataset has no labels.
    `view` is the number of the augmented view: x is a function of (index, view).
    """

    x: Tensor
    y: Tensor
    index: Tensor
    view: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Some samples of one split.

    `bank` (N, H, W, C) or (N, D) and `labels` (N,) are the whole split as it lies on disk, memory-mapped; `position` (n,) says which of its
    samples are meant; `first` is the row of the dataset at which the split begins, so that no two samples of a dataset share an index.
    `domain` is that of the whole dataset. `present` are the classes that were chosen, None for all: logits of others are no answers.
    Samples without labels have 0 `classes`, and `UNLABELLED` for `labels`.
    """

    bank: NDArray[Any]
    labels: NDArray[np.int64]
    position: NDArray[np.int64]
    first: int
    classes: int
    domain: Domain
    present: tuple[int, ...] | None = None

    @classmethod
    def whole(
        cls,
        bank: NDArray[Any],
        labels: NDArray[np.int64],
        *,
        first: int = 0,
        classes: int,
        domain: Domain,
    ) -> "Rows":
        """All samples of a split."""
        return cls(bank, labels, np.arange(len(labels)), first, classes, domain)

    def __len__(self) -> int:
        return len(self.position)

    @property
    def labelled(self) -> bool:
        """Whether it is known of what class each sample is."""
        return self.classes > 0

    def only(self, position: NDArray[np.int64]) -> "Rows":
        """Some of the split's samples, by their place in the split."""
        return replace(self, position=position)

    def named(self, outputs: Mapping[int, int], classes: int) -> "Rows":
        """The samples whose label is in `outputs`, {label: output}, labelled by the outputs of networks that tell `classes` apart."""
        labels = np.full(self.classes, -1)  # none of the samples that are left has this label
        labels[list(outputs)] = list(outputs.values())
        position = self.position[np.isin(self.labels[self.position], list(outputs))]
        present = tuple(sorted(outputs.values())) if len(outputs) < classes else None
        return replace(self, labels=labels[self.labels], position=position, classes=classes, present=present)

    def answers(self, logits: Tensor) -> Tensor:
        """Logits (B, C), those of classes that were not chosen so low that they take no probability.

        The least number there is, and not minus infinity, whose difference from itself is none.
        """
        if self.present is None:
            return logits
        absent = torch.ones(self.classes, dtype=torch.bool, device=logits.device)
        absent[list(self.present)] = False
        return logits.masked_fill(absent, torch.finfo(logits.dtype).min)

    @property
    def x(self) -> NDArray[Any]:
        """The samples as they are stored; no copy where all of the split is meant."""
        return self.bank if len(self.position) == len(self.bank) else self.bank[self.position]

    @property
    def y(self) -> NDArray[np.int64]:
        """The labels (n,)."""
        return self.labels[self.position]

    @property
    def index(self) -> NDArray[np.int64]:
        """The rows of the dataset (n,)."""
        return self.first + self.position

    @property
    def together(self) -> int:
        """How many samples evaluation looks at together: at most 512, and fewer where they are large, so that memory stays bounded."""
        return max(1, min(_TOGETHER, _VALUES // math.prod(self.bank.shape[1:])))

    def batches(self, size: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """All samples once, in order, unaugmented, `size` at a time (the last batch may be smaller): what evaluation reads."""
        bank = as_tensor(self.bank)
        for start in range(0, len(self), size):
            position = torch.from_numpy(self.position[start : start + size])
            x = in_range(bank.index_select(0, position).to(device))
            y = torch.from_numpy(self.labels[self.position[start : start + size]])
            yield Batch(x, y.to(device), (position + self.first).to(device), 0)


def as_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor over the same memory. It must not be written to: a memory-mapped file is read-only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def in_range(stored: Tensor) -> Tensor:
    """Stored samples (B, H, W, C) or (B, D) as networks meet them: (B, C, H, W) or (B, D) float32, uint8 divided by 255.

    Images come out in torch's channels-last memory format.
    """
    x = stored.to(torch.float32).div_(255) if stored.dtype == torch.uint8 else stored  # in place: half the memory is touched
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x
