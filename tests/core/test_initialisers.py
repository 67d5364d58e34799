"""Named initial weights: their bounds, and that they come from torch's generator."""

from typing import Literal

import pytest
import torch
from torch import nn

from core.initialisers import Initialiser, initialise

Name = Literal["default", "xavier", "fan_in"]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 20, 5), nn.BatchNorm2d(20), nn.Linear(400, 100)


def made(name: Name, seed: int = 0) -> Small:
    torch.manual_seed(7)
    network = Small()
    torch.manual_seed(seed)
    initialise(network, Initialiser(initialiser=name))
    return network


@pytest.mark.parametrize(
    ("name", "bounds", "bias"),
    [("xavier", ((6 / (3 * 25 + 20 * 25)) ** 0.5, (6 / 500) ** 0.5), False), ("fan_in", (75**-0.5, 400**-0.5), True)],
)
def test_weights_are_uniform_between_their_bounds(name: Name, bounds: tuple[float, float], bias: bool) -> None:
    network = made(name)
    layers: tuple[nn.Conv2d | nn.Linear, ...] = (network.conv, network.linear)
    for layer, bound in zip(layers, bounds, strict=True):
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert layer.bias is not None
        assert layer.bias.any() == bias
        assert layer.bias.abs().max() <= bound
    assert network.norm.weight.eq(1).all()
    assert network.norm.bias.eq(0).all()


def test_fan_in_is_what_torch_gives_a_linear_layer() -> None:
    ours, theirs = made("fan_in").linear.weight, nn.Linear(400, 100).weight
    assert abs(ours.abs().max() - theirs.abs().max()) < 1e-4
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.02)


def test_the_draws_are_torchs_and_default_draws_nothing() -> None:
    one, same, other = (made("xavier", seed).linear.weight for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(made("default").linear.weight, made("default", seed=1).linear.weight)
