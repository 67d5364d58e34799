"""Top-1 accuracy and mean cross-entropy, summed where the logits are and read once."""

import torch
from torch import Tensor
from torch.nn import functional as F


class Accuracy:
    """Counts over batches of logits (B, C) and labels (B,)."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._hits = torch.zeros((), dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._n = 0

    def add(self, logits: Tensor, y: Tensor) -> None:
        """One more batch; reads nothing back, so a GPU is not made to wait."""
        self._hits += (logits.argmax(1) == y).sum()
        self._loss += F.cross_entropy(logits.float(), y, reduction="sum").double()
        self._n += len(y)

    def values(self) -> dict[str, float]:
        """{"accuracy": share in [0, 1], "loss": nats a sample, "n": samples}."""
        return {"accuracy": int(self._hits) / self._n, "loss": float(self._loss) / self._n, "n": self._n}
