"""Batches by number: each is a pure function of (seed, epoch, i), so a resumed run needs no iterator's state."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from core import random
from core.data.augment import Augmentation, augment
from core.data.reader import Reader
from core.data.rows import Batch, Rows, as_tensor, in_range
from core.errors import Refused

_DEVICE_SHARE = 0.25
"""The part of an accelerator's memory that a dataset may take; a larger one stays on the host and travels batch by batch."""


class Batches:
    """One split: `steps` optimiser steps of at most `batch_size` × `accumulate` samples each, in an order of each epoch's own.

    Without `reshuffle` every epoch has the order of the first.

    An epoch is one pass: the last batch is smaller, but never a single sample (batch norm cannot train on one): that one joins the
    batch before. `classes` (C,) bool says which classes these rows have; None where they have all or no labels; `domain` is the rows'.
    With `views` = k the augmentation repeats after k epochs.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        *,
        seed: int,
        augmentation: Sequence[Augmentation] = (),
        device: torch.device | str = "cpu",
        views: int | None = None,
        view_seed: int = 0,
        accumulate: int = 1,
        reshuffle: bool = True,
    ) -> None:
        if augmentation and rows.bank.ndim != 4:
            raise Refused("/recipe/augmentation", "the dataset holds vectors; crops and flips need images", hint="leave augmentation empty")
        self._size, self._seed, self._n = batch_size * accumulate, seed, len(rows)
        self._augmentation, self._views, self._view_seed = tuple(augmentation), views, view_seed
        self._device, self._first = torch.device(device), rows.first
        bank = as_tensor(rows.bank)
        self._bank = bank.to(self._device) if _fits(bank, self._device) else None
        self._read = Reader(rows.bank)
        self._labels = torch.from_numpy(np.array(rows.labels))
        self._position = torch.from_numpy(np.array(rows.position))
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))
        self._reshuffle = reshuffle
        whole, left = divmod(self._n, self._size)
        self.steps = max(1, whole + (left > 1 or (left == 1 and self._size == 1)))
        self.domain = rows.domain
        self.classes: Tensor | None = None
        if rows.labelled:
            present = torch.bincount(self._labels[self._position], minlength=rows.classes) > 0
            if rows.present is not None:  # a chosen class is there even where none of its samples was taken
                present[list(rows.present)] = True
            self.classes = None if bool(present.all()) else present.to(self._device)

    def __call__(self, epoch: int, i: int) -> Batch:
        """Batch `i` of `epoch`, both from 0."""
        if not 0 <= i < self.steps:
            raise IndexError(f"an epoch has {self.steps} batches; there is no batch {i}")
        if self._order[0] != epoch:  # a memo of a pure function, not state
            self._order = (epoch, random.order(self._seed, epoch if self._reshuffle else 0, self._n))
        position = self._positions(i)
        index = (position + self._first).to(self._device)
        view = epoch if self._views is None else epoch % self._views
        if self._bank is not None:
            bank, rows = self._bank, position.to(self._device)
        else:
            stored = self._read(position, self._positions(i + 1) if i + 1 < self.steps else None)
            bank, rows = stored.to(self._device), torch.arange(len(position), device=self._device)
        if self._augmentation:
            bank = augment(bank, rows, index, self._augmentation, view_seed=self._view_seed, view=view)
        elif self._bank is not None:
            bank = bank.index_select(0, rows)
        return Batch(in_range(bank), self._labels[position].to(self._device), index, view)

    def _positions(self, i: int) -> Tensor:
        """Where the samples of batch `i` of the epoch lie in the bank."""
        stop = self._n if i == self.steps - 1 else (i + 1) * self._size
        return self._position[self._order[1][i * self._size : stop]]


def _fits(bank: Tensor, device: torch.device) -> bool:
    """Whether the whole bank may lie on the device: an accelerator with room for it."""
    return device.type == "cuda" and bank.nbytes <= _DEVICE_SHARE * torch.cuda.get_device_properties(device).total_memory
