"""Activation similarity: on which share of a layer's neurons two networks agree whether they are active."""

from torch import Tensor


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """The share, a scalar in [0, 1], of equal entries of two boolean activations (B, ...): identical networks give 1, opposite ones 0,
    unrelated ones about one half.

    The published code (bhheo/AB_distillation) prints 100 times this, measured while training, with batch statistics; here it is
    measured on held-out data in eval mode, and every neuron of every sample counts the same.
    """
    return (first == second).float().mean()
