"""MobileNetV2 against the count of the literature's student, its stages, and its sums."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from core.anatomy import measure
from core.networks import parse
from core.networks.mobilenetv2 import Block


@pytest.mark.parametrize(("width", "known"), [(0.5, 812_836), (1, 2_353_060)])
def test_the_parameter_count_is_the_sum_of_its_layers(width: float, known: int) -> None:
    def block(into: int, out: int, expansion: int) -> int:
        wide = expansion * into
        return (into * wide + 2 * wide) + (9 * wide + 2 * wide) + (wide * out + 2 * out)

    channels = [round(width * c) for c in (32, 16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320)]
    stem = 9 * 3 * channels[0] + 2 * channels[0]
    blocks = sum(block(a, b, 1 if k == 0 else 6) for k, (a, b) in enumerate(pairwise(channels)))
    head = channels[-1] * 1280 + 2 * 1280 + 1280 * 100 + 100
    assert stem + blocks + head == known
    assert measure(parse({"family": "mobilenetv2", "width": width, "input": [3, 32, 32], "classes": 100})).parameters == known


def test_the_last_convolution_grows_with_a_width_above_one() -> None:
    anatomy = measure(parse({"family": "mobilenetv2", "width": 1.5, "input": [3, 8, 8], "classes": 10}))
    assert anatomy.weights["conv2.weight"] == (1920, 480, 1, 1)


def test_a_stage_ends_in_the_raw_sum_and_its_pre_activation_is_the_next_expansion() -> None:
    anatomy = measure(parse({"family": "mobilenetv2", "stem_stride": 1, "input": [3, 32, 32], "classes": 10}))
    assert [(stage.size, stage.out, stage.channels, stage.pre, stage.pre_channels) for stage in anatomy.stages] == [
        ((32, 32), "layer2", 12, "layer3.0.relu1:in", 6 * 12),
        ((16, 16), "layer3", 16, "layer4.0.relu1:in", 6 * 16),
        ((8, 8), "layer5", 48, "layer6.0.relu1:in", 6 * 48),
        ((4, 4), "layer7", 160, "relu2:in", 1280),
    ]


def test_the_stride_of_the_stem_halves_every_map_and_keeps_the_weights() -> None:
    plain, strided = (measure(parse({"family": "mobilenetv2", "input": [3, 32, 32], "classes": 10, "stem_stride": s})) for s in (1, 2))
    assert [stage.size for stage in plain.stages] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    assert [stage.size for stage in strided.stages] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert plain.weights == strided.weights


def test_a_block_adds_its_input_only_where_the_shape_stays_and_ends_without_an_activation() -> None:
    x = torch.randn(2, 4, 5, 5)

    def silent(out: int, stride: int) -> torch.Tensor:
        block = Block(4, 24, out, stride).eval()
        nn.init.zeros_(block.conv3.weight)
        given: torch.Tensor = block(x)
        return given

    assert torch.equal(silent(4, 1), x)
    assert silent(4, 2).abs().sum() == 0
    assert silent(6, 1).abs().sum() == 0


def test_every_activation_is_cut_off_at_six() -> None:
    network = parse({"family": "mobilenetv2", "width": 0.1, "input": [3, 8, 8], "classes": 2}).build()
    activations = [module for name, module in network.named_modules() if name.rpartition(".")[2].startswith("relu")]
    assert len(activations) == 2 + 2 * 17
    assert all(module(torch.tensor([-1.0, 5.0, 7.0])).tolist() == [0, 5, 6] for module in activations)
