"""Accuracy under the fast gradient sign method: every sample moved one step towards a higher loss, by the same amount in each value."""

from collections.abc import Generator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.data.rows import Rows
from core.evaluate.accuracy import Accuracy
from core.evaluate.measure import Epsilons, Measure
from core.events import Curve
from core.taps import Tapped

_TOGETHER = 128
"""So many samples are differentiated together: a gradient takes far more memory than an answer."""


class FGSM(Measure):
    """Accuracy on x + epsilon * sign(d CE(f(x), y) / dx), as a curve over epsilon.

    One step with the true label y, in eval mode. x and epsilon are in data units, before the network's own normalisation, so one epsilon
    means the same to every network. At epsilon 0 it is the accuracy itself. One gradient a batch serves every epsilon.

    Source: Goodfellow, Shlens & Szegedy, Explaining and Harnessing Adversarial Examples, ICLR 2015. The epsilons are those of the code
    published with Petrushina et al., Anti-Distillation, 2022, which does not clamp.
    """

    name: Literal["fgsm"] = "fgsm"
    epsilons: Epsilons = Field(tuple(i / 500 for i in range(10)), description="How far each value of a sample is moved, in data units.")
    clamp: bool = Field(
        True, description="Keep the moved samples within the dataset's own range; `false` lets them leave it, as the published code does."
    )

    def curve(self, network: Tapped, rows: Rows, device: torch.device | str = "cpu") -> Generator[None, None, Curve]:
        """Yields None a batch; returns {"epsilon", "accuracy"}: for each epsilon the share of top-1 hits in [0, 1] over all of `rows`."""
        counts = [Accuracy(device) for _ in self.epsilons]
        for batch in rows.batches(rows.together, device):
            parts = zip(torch.split(batch.x, _TOGETHER), torch.split(batch.y, _TOGETHER), strict=True)
            towards = torch.cat([_slope(network, rows, x, y).sign() for x, y in parts])
            with torch.no_grad(), network.quiet():
                for epsilon, count in zip(self.epsilons, counts, strict=True):
                    moved = batch.x + epsilon * towards
                    if self.clamp:
                        moved = moved.clamp(rows.domain.least, rows.domain.greatest)
                    count.add(rows.answers(network(moved).logits), batch.y)
            yield
        return {"epsilon": list(self.epsilons), "accuracy": [count.values()["accuracy"] for count in counts]}


def _slope(network: Tapped, rows: Rows, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of each sample's cross-entropy with respect to itself."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad(), network.quiet():
        # The samples do not meet in eval mode, so the gradient of the sum holds each one's own.
        loss = F.cross_entropy(rows.answers(network(leaf).logits), y, reduction="sum")
        return torch.autograd.grad(loss, leaf)[0]
