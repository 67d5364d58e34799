"""ShuffleNetV2 against the count of the literature's student, its stages, and its shuffle."""

import pytest
import torch

from core.anatomy import measure
from core.errors import Refused
from core.networks import parse
from core.networks.shufflenetv2 import Block


@pytest.mark.parametrize(
    ("size", "channels", "known"),
    [
        (0.5, (48, 96, 192, 1024), 443_716),
        (1, (116, 232, 464, 1024), 1_355_528),
        (1.5, (176, 352, 704, 1024), 2_580_548),
        (2, (224, 488, 976, 2048), 5_521_860),
    ],
)
def test_the_parameter_count_is_the_sum_of_its_layers(size: float, channels: tuple[int, ...], known: int) -> None:
    def conv(into: int, out: int) -> int:
        return into * out + 2 * out

    def depthwise(channels: int) -> int:
        return 9 * channels + 2 * channels

    def layer(into: int, out: int, blocks: int) -> int:
        half = out // 2
        down = depthwise(into) + conv(into, half) + conv(into, half) + depthwise(half) + conv(half, half)
        return down + blocks * (conv(half, half) + depthwise(half) + conv(half, half))

    a, b, c, last = channels
    by_hand = conv(3, 24) + layer(24, a, 3) + layer(a, b, 7) + layer(b, c, 3) + conv(c, last) + last * 100 + 100
    assert by_hand == known
    assert measure(parse({"family": "shufflenetv2", "size": size, "input": [3, 32, 32], "classes": 100})).parameters == known


def test_a_stage_ends_after_a_shuffle_and_its_pre_activation_is_in_the_next_branch() -> None:
    anatomy = measure(parse({"family": "shufflenetv2", "size": 1, "input": [3, 32, 32], "classes": 10}))
    assert [(stage.size, stage.out, stage.channels, stage.pre, stage.pre_channels) for stage in anatomy.stages] == [
        ((32, 32), "relu1", 24, "relu1:in", 24),
        ((16, 16), "layer1", 116, "layer2.0.branch.relu1:in", 116),
        ((8, 8), "layer2", 232, "layer3.0.branch.relu1:in", 232),
        ((4, 4), "layer3", 464, "relu2:in", 1024),
    ]
    assert anatomy.taps["layer1.3.shuffle"] == anatomy.taps["layer1"]


def test_a_block_passes_the_first_half_untouched_and_interleaves_it_with_the_second() -> None:
    torch.manual_seed(0)
    block = Block(6, 6, 1).eval()
    x = torch.randn(2, 6, 4, 4, requires_grad=True)
    got = block(x)
    assert torch.equal(got[:, 0::2], x[:, :3])
    (slope,) = torch.autograd.grad(got[:, 1::2].sum(), x)
    assert [bool(channel.any()) for channel in slope.abs().sum((0, 2, 3))] == [False] * 3 + [True] * 3


def test_where_the_size_halves_both_sides_see_every_channel() -> None:
    torch.manual_seed(0)
    block = Block(4, 6, 2).eval()
    x = torch.randn(2, 4, 4, 4, requires_grad=True)
    got = block(x)
    assert got.shape == (2, 6, 2, 2)
    for side in (got[:, 0::2], got[:, 1::2]):
        (slope,) = torch.autograd.grad(side.sum(), x, retain_graph=True)
        assert (slope.abs().sum((0, 2, 3)) > 0).all()


def test_a_size_that_was_not_published_is_refused_with_those_that_were() -> None:
    with pytest.raises(Refused, match=r"0\.5, 1\.0, 1\.5, 2\.0") as refused:
        parse({"family": "shufflenetv2", "size": 0.75, "input": [3, 32, 32], "classes": 10})
    assert refused.value.where == "/architecture/size"
