"""How often two networks of the same classes give the same answer, and how far their logits lie apart."""

import torch
from torch import Tensor


class Agreement:
    """Counts over batches of two networks' logits (B, C)."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._same = torch.zeros((), dtype=torch.int64, device=device)
        self._apart = torch.zeros((), device=device)
        self._n = 0

    def add(self, first: Tensor, second: Tensor) -> None:
        """One more batch; ValueError where the two do not tell the same number of classes apart."""
        if first.shape != second.shape:
            raise ValueError(f"networks with {first.shape[1]} and {second.shape[1]} outputs have no common answers")
        self._same += (first.argmax(1) == second.argmax(1)).sum()
        self._apart = torch.maximum(self._apart, (first - second).abs().max().float())
        self._n += len(first)

    def values(self) -> dict[str, float]:
        """{"agreement": share of equal top-1 in [0, 1], "max_abs_diff": the largest difference of two logits}."""
        return {"agreement": int(self._same) / self._n, "max_abs_diff": float(self._apart)}
