"""The data that exports are made and judged with: test inputs that nobody trained on, and training inputs to calibrate with."""

import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from core import random
from core.data.rows import Rows
from core.taps import Tapped

_ROWS = 2048
_FEWEST = 64
_BYTES = 128 << 20
_FLOPS = 2e12
"""About a minute of one processor."""
_CALIBRATION = 256


def hold(student: Tapped, rows: Rows, path: Path, *, flops: int) -> int:
    """Write test inputs "x", their labels "y" (-1 where there is none) and the student's "logits" as safetensors; how many there are.

    They are spread evenly over the split: all of it up to 2,048, fewer where they are large or the network is, at least 64 then.
    """
    most = min(_ROWS, _fitting(rows), max(_FEWEST, int(_FLOPS / max(1, flops))))
    chosen = _spread(rows, most)
    device = student.mean.device
    x, logits, y = list[Tensor](), list[Tensor](), list[Tensor]()
    with torch.no_grad(), student.quiet():
        for batch in chosen.batches(chosen.together, device):
            x.append(batch.x.cpu().contiguous())
            y.append(batch.y.cpu())
            logits.append(student(batch.x).logits.float().cpu())
    save_file({"x": torch.cat(x), "y": torch.cat(y), "logits": torch.cat(logits)}, path)
    return len(chosen)


def calibrating(rows: Rows, seed: int) -> Tensor:
    """Inputs (N, ...) float32 in data range, on the CPU: at most 256 of the training rows, drawn from the seed, in a shuffled order."""
    n = min(_CALIBRATION, _fitting(rows), len(rows))
    drawn = random.order(int(random.key_of(seed, "calibration")) & (2**53 - 1), 0, len(rows))[:n]
    chosen = rows.only(rows.position[drawn.numpy()])
    return torch.cat([batch.x.contiguous() for batch in chosen.batches(chosen.together)])


def _fitting(rows: Rows) -> int:
    return max(1, _BYTES // (4 * math.prod(rows.bank.shape[1:])))


def _spread(rows: Rows, most: int) -> Rows:
    if len(rows) <= most:
        return rows
    return rows.only(rows.position[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)])
