"""Named initial weights: their bounds, and that they come from torch's generator."""

from typing import Literal

import pytest
import torch
from torch import nn

from core.initialisers import Initialiser, initialise


def made(name: Literal["default", "xavier", "fan_in"], seed: int = 0) -> nn.Sequential:
    torch.manual_seed(7)
    network = nn.Sequential(nn.Conv2d(3, 20, 5), nn.BatchNorm2d(20), nn.Flatten(), nn.Linear(400, 100))
    torch.manual_seed(seed)
    initialise(network, Initialiser(initialiser=name))
    return network


@pytest.mark.parametrize(
    ("name", "bounds", "bias"),
    [("xavier", ((6 / (3 * 25 + 20 * 25)) ** 0.5, (6 / 500) ** 0.5), False), ("fan_in", (75**-0.5, 400**-0.5), True)],
)
def test_weights_are_uniform_between_their_bounds(name: Literal["xavier", "fan_in"], bounds: tuple[float, float], bias: bool) -> None:
    conv, norm, _, linear = made(name)
    for layer, bound in zip((conv, linear), bounds, strict=True):
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert layer.bias.any() == bias
        assert layer.bias.abs().max() <= bound
    assert norm.weight.eq(1).all()
    assert norm.bias.eq(0).all()


def test_fan_in_is_what_torch_gives_a_linear_layer() -> None:
    ours = made("fan_in")[3].weight.flatten()
    theirs = nn.Linear(400, 100).weight.flatten()
    assert abs(ours.abs().max() - theirs.abs().max()) < 1e-4
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.02)


def test_the_draws_are_torchs_and_default_draws_nothing() -> None:
    one, same, other = made("xavier"), made("xavier"), made("xavier", seed=1)
    assert torch.equal(one[3].weight, same[3].weight)
    assert not torch.equal(one[3].weight, other[3].weight)
    assert torch.equal(made("default")[3].weight, made("default", seed=1)[3].weight)
