"""How channels flow: which axes of which weights are of one width, and in what order."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.anatomy import measure
from core.channels import Channels, channels
from core.networks import Family
from tests.core.growing import family, zoo


def flow(made: Family) -> Channels:
    anatomy = measure(made)
    return channels(anatomy.graph, anatomy.input, anatomy.weights)


def axis(found: Channels, weight: str, axis: int = 0) -> list[int]:
    units: list[int] = found.weights[weight][axis].tolist()
    return units


def test_in_a_perceptron_each_layer_reads_what_the_one_before_makes() -> None:
    found = flow(zoo("mlp", hidden=[3, 2]))
    assert axis(found, "linear1.weight") == axis(found, "linear1.bias") == axis(found, "linear2.weight", 1)
    assert axis(found, "linear2.weight") == axis(found, "fc.weight", 1)
    assert len({*axis(found, "linear1.weight"), *axis(found, "linear2.weight"), *axis(found, "fc.weight")}) == 3 + 2 + 3
    # Two channels of 8 x 8 pixels, laid flat one after the other.
    assert axis(found, "linear1.weight", 1) == [0] * 64 + [1] * 64


def test_a_sum_ties_all_that_is_added_to_one_stream_together() -> None:
    found = flow(zoo("resnet", depth=14))
    stream = axis(found, "conv1.weight")
    for name in ("layer1.0.bn2.weight", "layer1.1.bn2.running_var", "layer1.1.conv2.weight"):
        assert axis(found, name) == stream
    assert axis(found, "layer1.1.conv1.weight", 1) == stream
    assert axis(found, "layer1.0.bn1.weight") == axis(found, "layer1.0.conv2.weight", 1) != stream


def test_a_shortcut_that_pads_puts_the_old_channels_in_the_middle_of_the_new() -> None:
    found = flow(zoo("resnet", depth=8))
    old, new = axis(found, "layer1.0.conv2.weight"), axis(found, "layer2.0.conv2.weight")
    assert new[8:24] == old
    assert not {*new[:8], *new[24:]} & set(old)


class Mixed(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 2, 1)
        self.each = nn.Conv2d(6, 6, 3, padding=1, groups=groups)
        self.fc = nn.Linear(6 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.each(torch.cat((self.a(x), self.b(x)), dim=1))
        logits: Tensor = self.fc(F.max_pool2d(h, 4).view(len(x), -1))
        return logits


def test_a_concatenation_keeps_the_order_and_a_depthwise_convolution_the_units() -> None:
    found = flow(family(partial(Mixed, 6)))
    whole = axis(found, "a.weight") + axis(found, "b.weight")
    assert axis(found, "each.weight") == axis(found, "each.bias") == whole
    assert len(found.weights["each.weight"]) == 1
    assert axis(found, "fc.weight", 1) == np.repeat(whole, 4).tolist()
    assert found.fixed == {0: "the input"}


def test_channels_in_groups_are_bound_to_their_places() -> None:
    found = flow(family(partial(Mixed, 2)))
    assert set(found.fixed.values()) == {"the input", "each"}
    assert "each.weight" not in found.weights


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(2, 4, 1), nn.Linear(4, 3)
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.stem(x).chunk(2, dim=1)
        h = self.shuffle(torch.cat((b, a), 1))
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(h, 1).flatten(1))
        return logits


def test_halves_that_change_places_and_are_shuffled() -> None:
    found = flow(family(Halves))
    first, second, third, fourth = axis(found, "stem.weight")
    assert axis(found, "fc.weight", 1) == [third, first, fourth, second]


def test_what_is_not_known_binds_what_it_reads_and_gives() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.fc = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(self.stem(x).softmax(1))
            return logits

    found = flow(family(Strange, (4,)))
    assert found.fixed == {0: "the input", 1: "", 2: ""}
