"""The CIFAR ResNet against the published counts, and its shortcut by hand."""

import pytest
import torch

from core.anatomy import measure
from core.networks import parse
from core.networks.resnet import Shortcut


@pytest.mark.parametrize(("depth", "parameters"), [(8, 75_290), (14, 172_506), (20, 269_722), (26, 366_938)])
def test_the_parameter_counts_are_the_published_ones(depth: int, parameters: int) -> None:
    assert measure(parse({"family": "resnet", "depth": depth, "input": [3, 32, 32], "classes": 10})).parameters == parameters


def test_width_multiplies_every_channel_count() -> None:
    anatomy = measure(parse({"family": "resnet", "depth": 8, "width": 4, "input": [3, 32, 32], "classes": 10}))
    assert [stage.channels for stage in anatomy.stages] == [64, 128, 256]
    # stem, then two convolutions a layer with their two batch norms, then the head
    stem = 3 * 64 * 9 + 2 * 64
    layers = sum(9 * (a * b + b * b) + 4 * b for a, b in ((64, 64), (64, 128), (128, 256)))
    assert anatomy.parameters == stem + layers + 256 * 10 + 10


def test_the_shortcut_takes_every_second_pixel_and_pads_the_channels_on_both_sides() -> None:
    x = torch.arange(2 * 3 * 3, dtype=torch.float32).reshape(1, 2, 3, 3)
    got = Shortcut(2, 4)(x)
    assert got.shape == (1, 4, 2, 2)
    assert torch.equal(got[0, 0], torch.zeros(2, 2))
    assert torch.equal(got[0, 1], torch.tensor([[0.0, 2.0], [6.0, 8.0]]))
    assert torch.equal(got[0, 2], torch.tensor([[9.0, 11.0], [15.0, 17.0]]))
    assert torch.equal(got[0, 3], torch.zeros(2, 2))
