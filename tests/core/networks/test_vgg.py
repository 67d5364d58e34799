"""VGG against the counts of the distillation literature, and its stages."""

import pytest
import torch

from core.anatomy import measure
from core.errors import Refused
from core.networks import parse

LAYERS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


@pytest.mark.parametrize(("depth", "known"), [(8, 3_965_028), (11, 9_277_284), (13, 9_462_180), (16, 14_774_436), (19, 20_086_692)])
def test_the_parameter_count_is_the_sum_of_its_layers(depth: int, known: int) -> None:
    def layer(into: int, out: int) -> int:
        return 9 * into * out + out + 2 * out

    widths = (3, 64, 128, 256, 512, 512)
    blocks = sum(layer(a, b) + (n - 1) * layer(b, b) for a, b, n in zip(widths[:-1], widths[1:], LAYERS[depth], strict=True))
    assert blocks + 512 * 100 + 100 == known
    assert measure(parse({"family": "vgg", "depth": depth, "input": [3, 32, 32], "classes": 100})).parameters == known


def test_the_size_halves_three_times_and_the_last_two_blocks_are_one_stage() -> None:
    anatomy = measure(parse({"family": "vgg", "depth": 13, "input": [3, 32, 32], "classes": 10}))
    assert [(stage.size, stage.out, stage.channels, stage.pre) for stage in anatomy.stages] == [
        ((32, 32), "block1", 64, "block1.1.relu:in"),
        ((16, 16), "block2", 128, "block2.1.relu:in"),
        ((8, 8), "block3", 256, "block3.1.relu:in"),
        ((4, 4), "block5", 512, "block5.1.relu:in"),
    ]


def test_an_image_of_one_pixel_is_taken() -> None:
    network = parse({"family": "vgg", "input": [1, 1, 1], "classes": 3}).build().eval()
    assert network(torch.rand(2, 1, 1, 1)).shape == (2, 3)


def test_a_depth_that_vgg_never_had_is_refused_by_name() -> None:
    with pytest.raises(Refused, match="8, 11, 13, 16 or 19") as refused:
        parse({"family": "vgg", "depth": 12, "input": [3, 32, 32], "classes": 10})
    assert refused.value.where == "/architecture/depth"
