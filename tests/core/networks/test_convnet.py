"""The plain convolutional network by hand."""

import torch

from core.anatomy import measure
from core.networks import parse


def test_its_parameters_are_those_of_its_layers() -> None:
    anatomy = measure(parse({"family": "convnet", "input": [1, 8, 8], "classes": 10, "channels": [4, 8]}))
    assert anatomy.parameters == (9 * 1 * 4 + 2 * 4) + (9 * 4 * 8 + 2 * 8) + (8 * 10 + 10)


def test_the_default_has_the_stated_number_of_parameters() -> None:
    anatomy = measure(parse({"family": "convnet", "input": [3, 32, 32], "classes": 10}))
    layers = sum(9 * a * b + 2 * b for a, b in ((3, 16), (16, 32), (32, 64)))
    assert anatomy.parameters == layers + 64 * 10 + 10 == 24_346


def test_each_block_is_a_stage_of_half_the_size() -> None:
    anatomy = measure(parse({"family": "convnet", "input": [1, 8, 8], "classes": 10, "channels": [4, 8, 16]}))
    assert [(stage.size, stage.out, stage.channels, stage.pre) for stage in anatomy.stages] == [
        ((8, 8), "block1", 4, "block1.relu:in"),
        ((4, 4), "block2", 8, "block2.relu:in"),
        ((2, 2), "block3", 16, "block3.relu:in"),
    ]


def test_more_blocks_than_halvings_stay_at_one_pixel() -> None:
    family = parse({"family": "convnet", "input": [1, 4, 4], "classes": 3, "channels": [2, 2, 2, 2, 2]})
    assert family.build().eval()(torch.rand(2, 1, 4, 4)).shape == (2, 3)
    assert [stage.size for stage in measure(family).stages] == [(4, 4), (2, 2), (1, 1)]
