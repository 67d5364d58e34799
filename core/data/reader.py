"""Rows out of a large bank: the next batch is read while the present one is used, and the file of a map is warmed in its order."""

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.data.rows import as_tensor

LARGE = 64 << 20
_PIECE = 1 << 20


class Reader:
    """Gathers rows of a bank (N, ...). What it gives depends on the positions alone; `then` is only what will likely be asked for next.

    A bank of more than `LARGE` bytes has a thread that gathers ahead. Where it is a map of a file, a second one reads that file once from
    beginning to end: shuffled rows of a file that is not in the page cache are read at the speed of single pages, in order at the disk's.
    It does so only where the file takes less than half of the machine's memory, else the pages would be gone before they are asked for.
    """

    def __init__(self, bank: NDArray[Any]) -> None:
        self._bank = bank
        self._ahead: tuple[Tensor, Future[Tensor]] | None = None
        self._pool = ThreadPoolExecutor(1, "read-ahead") if bank.nbytes > LARGE and bank.flags.c_contiguous else None
        self._file = _file_of(bank) if self._pool else None

    def __call__(self, position: Tensor, then: Tensor | None = None) -> Tensor:
        """The rows at `position` (B,) int64: (B, ...), in memory of their own."""
        if self._pool is None:
            return as_tensor(self._bank).index_select(0, position)
        if self._file is not None:
            threading.Thread(target=_warm, args=self._file, name="warm", daemon=True).start()
            self._file = None
        ahead, self._ahead = self._ahead, None
        found = ahead[1].result() if ahead is not None and torch.equal(ahead[0], position) else self._gathered(position)
        if then is not None:
            self._ahead = (then, self._pool.submit(self._gathered, then))
        return found

    def _gathered(self, position: Tensor) -> Tensor:
        # As opaque items of a row's bytes: one copy each, and without Python's lock.
        rows = self._bank.reshape(len(self._bank), -1)
        items = rows.view(f"V{rows.strides[0]}")[:, 0].take(position.numpy())
        return torch.from_numpy(items.view(self._bank.dtype).reshape(len(position), *self._bank.shape[1:]))


def _file_of(bank: NDArray[Any]) -> tuple[Path, int, int] | None:
    """(path, first byte, bytes) of a bank that is a map of a file which memory can hold twice; None for any other."""
    owner: Any = bank
    while isinstance(owner, np.ndarray) and not isinstance(owner, np.memmap):
        owner = owner.base
    fits = 2 * bank.nbytes < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (Path(owner.filename), owner.offset, bank.nbytes) if isinstance(owner, np.memmap) and owner.filename and fits else None


def _warm(path: Path, begin: int, size: int) -> None:
    buffer = bytearray(_PIECE)
    try:
        with path.open("rb", buffering=0) as file:
            for at in range(begin, begin + size, _PIECE):
                os.preadv(file.fileno(), [buffer], at)
    except OSError:  # an offer, not a duty: whoever asks for the row meets the fault
        return
