"""The CIFAR ResNet against the published counts, and its two shortcuts by hand."""

from typing import Any

import pytest
import torch

from core.anatomy import measure
from core.errors import Refused
from core.networks import parse
from core.networks.resnet import Pad, Project


@pytest.mark.parametrize(("depth", "parameters"), [(8, 75_290), (14, 172_506), (20, 269_722), (26, 366_938)])
def test_the_parameter_counts_are_the_published_ones(depth: int, parameters: int) -> None:
    assert measure(parse({"family": "resnet", "depth": depth, "input": [3, 32, 32], "classes": 10})).parameters == parameters


@pytest.mark.parametrize("depth", [32, 44, 56, 110])
def test_the_parameter_count_of_a_deep_one_is_the_sum_of_its_layers(depth: int) -> None:
    def layer(into: int, out: int) -> int:
        return 9 * into * out + 2 * out + (depth - 2) // 3 * (9 * out * out + 2 * out) - (9 * out * out + 2 * out)

    by_hand = (9 * 3 * 16 + 2 * 16) + layer(16, 16) + layer(16, 32) + layer(32, 64) + (64 * 10 + 10)
    assert measure(parse({"family": "resnet", "depth": depth, "input": [3, 32, 32], "classes": 10})).parameters == by_hand


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        ({"depth": 20}, 278_324),
        ({"depth": 56}, 861_620),
        ({"depth": 8, "width": 4, "stem": 32}, 1_233_540),
        ({"depth": 32, "width": 4, "stem": 32}, 7_433_860),
    ],
    ids=["resnet20", "resnet56", "resnet8x4", "resnet32x4"],
)
def test_the_projecting_ones_have_the_counts_of_the_distillation_literature(fields: dict[str, Any], parameters: int) -> None:
    anatomy = measure(parse({"family": "resnet", "shortcut": "project", **fields, "input": [3, 32, 32], "classes": 100}))
    assert anatomy.parameters == parameters


def test_width_multiplies_every_channel_count() -> None:
    anatomy = measure(parse({"family": "resnet", "depth": 8, "width": 4, "input": [3, 32, 32], "classes": 10}))
    assert [stage.channels for stage in anatomy.stages] == [64, 128, 256]
    # stem, then two convolutions a layer with their two batch norms, then the head
    stem = 3 * 64 * 9 + 2 * 64
    layers = sum(9 * (a * b + b * b) + 4 * b for a, b in ((64, 64), (64, 128), (128, 256)))
    assert anatomy.parameters == stem + layers + 256 * 10 + 10


def test_the_shortcuts_gradient_keeps_the_memory_format() -> None:
    x = torch.rand(2, 4, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(Pad(4, 8, 2)(x).square().sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_the_shortcut_takes_every_second_pixel_and_pads_the_channels_on_both_sides() -> None:
    x = torch.arange(2 * 3 * 3, dtype=torch.float32).reshape(1, 2, 3, 3)
    got = Pad(2, 4, 2)(x)
    assert got.shape == (1, 4, 2, 2)
    assert torch.equal(got[0, 0], torch.zeros(2, 2))
    assert torch.equal(got[0, 1], torch.tensor([[0.0, 2.0], [6.0, 8.0]]))
    assert torch.equal(got[0, 2], torch.tensor([[9.0, 11.0], [15.0, 17.0]]))
    assert torch.equal(got[0, 3], torch.zeros(2, 2))


def test_the_projection_mixes_the_channels_of_every_second_pixel_and_normalises_them() -> None:
    projection = Project(2, 3, 2).eval()
    projection.load_state_dict(
        {
            "conv.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).reshape(3, 2, 1, 1),
            "bn.weight": torch.tensor([1.0, 1.0, 2.0]),
            "bn.bias": torch.tensor([0.0, -9.0, 0.0]),
            "bn.running_mean": torch.tensor([0.0, 0.0, 1.0]),
            "bn.running_var": torch.ones(3),
            "bn.num_batches_tracked": torch.tensor(0),
        }
    )
    got = projection(torch.arange(2 * 3 * 3, dtype=torch.float32).reshape(1, 2, 3, 3))
    by_hand = torch.tensor([[[0.0, 2.0], [6.0, 8.0]], [[0.0, 2.0], [6.0, 8.0]], [[16.0, 24.0], [40.0, 48.0]]])
    # The batch norm divides by the root of 1 + 1e-5.
    torch.testing.assert_close(got[0], by_hand, rtol=1e-5, atol=1e-4)


def test_a_narrow_stem_is_padded_to_the_first_layer_at_the_same_size() -> None:
    anatomy = measure(parse({"family": "resnet", "depth": 8, "stem": 4, "input": [3, 32, 32], "classes": 10}))
    assert anatomy.taps["layer1.0.shortcut:in"] == (4, 32, 32)
    assert anatomy.taps["layer1.0.shortcut"] == (16, 32, 32)
    # Against the published 75,290 only the stem and the first convolution shrink: padding has no weights.
    assert anatomy.parameters == 75_290 - (3 * 12 * 9 + 2 * 12) - 12 * 16 * 9


def test_a_projection_stands_only_where_the_shape_changes() -> None:
    plain, narrow = (
        measure(parse({"family": "resnet", "depth": 14, "shortcut": "project", **stem, "input": [3, 8, 8], "classes": 10}))
        for stem in ({}, {"stem": 8})
    )
    projections = {name for name in plain.weights if name.endswith("shortcut.conv.weight")}
    assert projections == {"layer2.0.shortcut.conv.weight", "layer3.0.shortcut.conv.weight"}
    assert narrow.weights["layer1.0.shortcut.conv.weight"] == (16, 8, 1, 1)


def test_a_stride_in_the_stem_quarters_every_map_and_keeps_the_weights() -> None:
    plain, strided = (
        measure(parse({"family": "resnet", "depth": 8, "input": [3, 32, 32], "classes": 10, "stem_stride": s})) for s in (1, 2)
    )
    assert [stage.size for stage in plain.stages] == [(32, 32), (16, 16), (8, 8)]
    assert [stage.size for stage in strided.stages] == [(16, 16), (8, 8), (4, 4)]
    assert plain.weights == strided.weights


def test_a_stem_that_padding_would_have_to_narrow_is_refused_by_name() -> None:
    wide = {"family": "resnet", "depth": 8, "stem": 17, "input": [3, 32, 32], "classes": 10}
    with pytest.raises(Refused, match="padding cannot take channels away") as refused:
        parse(wide)
    assert refused.value.where == "/architecture/stem"
    assert parse({**wide, "shortcut": "project"})
    assert parse({**wide, "width": 2})
