"""Accuracy with Gaussian noise on the parameters: how wide the valley is in which the training has ended."""

import statistics
from collections.abc import Generator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call

from core.data.rows import Rows
from core.evaluate.accuracy import Accuracy
from core.evaluate.measure import Epsilons, Measure
from core.events import Curve
from core.random import key_of
from core.taps import Tapped


class ParameterNoise(Measure):
    """Accuracy of f with parameters w + epsilon * xi, xi ~ N(0, I), as a curve over epsilon: mean and sample deviation over the draws.

    Every parameter is moved, biases and the scales of norms too, by noise of one size whatever the parameter's own; buffers (the statistics
    of batch norms) are not. The network's own weights are never written to. At epsilon 0 the mean is the accuracy itself. The draws are a
    function of the job's seed, the number of the epsilon and the number of the draw, made on the CPU, so every device draws the same.

    Source: the code published with Petrushina et al., Anti-Distillation, 2022, whose epsilons are the default. It draws anew for every
    batch (`redraw`), goes through the data once for each epsilon, and leaves the noise in the weights; here they stay as they are.
    """

    name: Literal["parameter_noise"] = "parameter_noise"
    epsilons: Epsilons = Field(tuple(i / 100 for i in range(10)), description="The deviation of the noise on every parameter.")
    draws: int = Field(5, ge=1, le=100, description="How many times the noise is drawn for each epsilon; one draw has no deviation.")
    redraw: bool = Field(
        False,
        description="Draw anew for every batch of at most 512 samples, as the published code does, and not once for the whole test split.",
    )

    def curve(self, network: Tapped, rows: Rows, device: torch.device | str = "cpu", *, seed: int) -> Generator[None, None, Curve]:
        """Yields None a batch; returns {"epsilon", "accuracy", "sd"}: for each epsilon the mean over the draws of the share of top-1 hits
        in [0, 1] over all of `rows`, and its sample standard deviation, which is left out where there is one draw.
        """
        found: list[list[float]] = []
        for place, epsilon in enumerate(self.epsilons):
            shares = []
            for draw in range(self.draws):
                accuracy, noisy = Accuracy(device), dict[str, Tensor]()
                for number, batch in enumerate(rows.batches(rows.together, device)):
                    if self.redraw or not noisy:
                        noisy = _noisy(network, epsilon, key_of(seed, "parameter_noise", place, draw, number))
                    with torch.no_grad(), network.quiet():
                        accuracy.add(rows.answers(functional_call(network, noisy, (batch.x,)).logits), batch.y)
                    yield
                shares.append(accuracy.values()["accuracy"])
            found.append(shares)
        # `statistics` is exact: the mean of equal shares is that share.
        means: Curve = {"epsilon": list(self.epsilons), "accuracy": [statistics.mean(shares) for shares in found]}
        return means if self.draws == 1 else {**means, "sd": [statistics.stdev(shares) for shares in found]}


def _noisy(network: Tapped, epsilon: float, key: Tensor) -> dict[str, Tensor]:
    """The parameters by name, each with its noise; a parameter that two modules share is one."""
    generator = torch.Generator().manual_seed(int(key) & (2**63 - 1))
    with torch.no_grad():
        return {
            name: weight + epsilon * torch.randn(weight.shape, generator=generator).to(weight)
            for name, weight in network.named_parameters()
        }
