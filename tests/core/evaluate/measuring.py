"""What tests of measures measure on: affine networks, rows of a few vectors, and what a measure returns."""

from collections.abc import Generator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from core.data import Domain, Rows
from core.taps import Tapped
from tests.core.toys import CLASSES, DOMAIN, Toy, squares, tapped

Found = TypeVar("Found")
IMAGES = squares(21, seed=3)


def returned(measuring: Generator[None, None, Found]) -> Found:
    """What a measure returns once all its batches are read."""
    while True:
        try:
            next(measuring)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def affine(weight: Sequence[Sequence[float]], bias: Sequence[float] | None = None) -> Tapped:
    """Logits Wx + b."""
    linear = nn.Linear(len(weight[0]), len(weight))
    linear.weight.data = torch.tensor(weight)
    linear.bias.data = torch.zeros(len(weight)) if bias is None else torch.tensor(bias)
    return Tapped(linear)


def vectors(x: Sequence[Sequence[float]], y: Sequence[int], *, least: float = 0.0, greatest: float = 1.0) -> Rows:
    """Samples of two classes, in a range."""
    domain = Domain(least, greatest, (0.5,), (0.25,))
    return Rows.whole(np.array(x, dtype=np.float32), np.array(y, dtype=np.int64), classes=2, domain=domain)


def sleepy(seed: int = 0) -> Tapped:
    """A network with batch norms and dropout in train mode, one module of it in eval mode, and gradients from an earlier step.

    Its logits are centred on the images, so that it does not give one answer to all of them.
    """
    network = tapped(Toy(dropout=0.5), (), seed=seed).train()
    with torch.no_grad(), network.quiet():
        network.network.get_parameter("fc.bias").sub_(network(next(IMAGES.batches(len(IMAGES))).x).logits.mean(0))
    network.network.get_submodule("bn2").eval()
    network.network.get_parameter("conv1.weight").requires_grad_(False)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 2.0) if parameter.requires_grad else None
    return network


def labelled(by: Tapped) -> Rows:
    """The images with the labels that a network gives them: it is right everywhere."""
    with torch.no_grad(), by.quiet():
        answers = by(next(IMAGES.batches(len(IMAGES))).x).logits.argmax(1)
    return Rows.whole(IMAGES.bank, answers.numpy(), classes=CLASSES, domain=DOMAIN)


def traces(network: Tapped) -> list[object]:
    """Everything that measuring must leave as it is: bytes, gradients, which parameters learn, and modes."""
    state = [value.numpy().tobytes() for value in network.network.state_dict().values()]
    grads = [None if parameter.grad is None else parameter.grad.numpy().tobytes() for parameter in network.parameters()]
    return [state, grads, [p.requires_grad for p in network.parameters()], [module.training for module in network.modules()]]
