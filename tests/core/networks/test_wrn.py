"""The wide residual network against published counts, measured work, and arithmetic by hand."""

import pytest
import torch

from core.anatomy import measure
from core.networks import parse


@pytest.mark.parametrize(
    ("depth", "widen", "parameters"),
    [(22, 4, 4_298_970), (16, 4, 2_748_890), (16, 2, 691_674), (10, 4, 1_198_810), (10, 1, 77_850)],
)
def test_the_parameter_counts_are_the_published_ones(depth: int, widen: int, parameters: int) -> None:
    assert measure(parse({"family": "wrn", "depth": depth, "widen": widen, "input": [3, 32, 32], "classes": 10})).parameters == parameters


def test_the_size_ratios_are_those_of_the_activation_boundary_table() -> None:
    def parameters(depth: int, widen: int) -> int:
        return measure(parse({"family": "wrn", "depth": depth, "widen": widen, "input": [3, 32, 32], "classes": 10})).parameters

    rows = (((22, 4), (10, 4)), ((16, 4), (16, 2)), ((22, 4), (16, 2)), ((22, 4), (10, 1)), ((16, 4), (16, 4)))
    ratios = [round(100 * parameters(*student) / parameters(*teacher), 1) for teacher, student in rows]
    assert ratios == [27.9, 25.2, 16.1, 1.8, 100.0]


def test_the_parameter_count_of_wrn_16_1_is_the_sum_of_its_layers() -> None:
    def group(into: int, out: int) -> int:
        first = 2 * into + 9 * into * out + 2 * out + 9 * out * out + (into * out if into != out else 0)
        second = 2 * out + 9 * out * out + 2 * out + 9 * out * out
        return first + second

    by_hand = 9 * 3 * 16 + group(16, 16) + group(16, 32) + group(32, 64) + 2 * 64 + 64 * 10 + 10
    assert measure(parse({"family": "wrn", "depth": 16, "widen": 1, "input": [3, 32, 32], "classes": 10})).parameters == by_hand


def test_the_work_of_wrn_10_1_is_the_sum_of_its_convolutions_and_its_head() -> None:
    def conv(size: int, into: int, out: int, kernel: int = 9) -> int:
        return 2 * size * size * into * out * kernel

    by_hand = (
        conv(32, 3, 16) + 2 * conv(32, 16, 16)
        + conv(16, 16, 32) + conv(16, 32, 32) + conv(16, 16, 32, 1)
        + conv(8, 32, 64) + conv(8, 64, 64) + conv(8, 32, 64, 1)
        + 2 * 64 * 10
    )  # fmt: skip
    assert measure(parse({"family": "wrn", "depth": 10, "input": [3, 32, 32], "classes": 10})).flops == by_hand


def test_a_stride_in_the_stem_quarters_every_map_and_keeps_the_weights() -> None:
    plain, strided = (measure(parse({"family": "wrn", "depth": 10, "input": [1, 28, 28], "classes": 10, "stem_stride": s})) for s in (1, 2))
    assert [stage.size for stage in plain.stages] == [(28, 28), (14, 14), (7, 7)]
    assert [stage.size for stage in strided.stages] == [(14, 14), (7, 7), (4, 4)]
    assert plain.weights == strided.weights


def test_a_stage_ends_in_the_raw_sum_and_its_pre_activation_is_the_next_batch_norms_output() -> None:
    anatomy = measure(parse({"family": "wrn", "depth": 16, "widen": 2, "input": [3, 32, 32], "classes": 10}))
    assert [stage.out for stage in anatomy.stages] == ["block1", "block2", "block3"]
    assert [stage.pre for stage in anatomy.stages] == ["block2.0.relu1:in", "block3.0.relu1:in", "relu:in"]


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    network = parse({"family": "wrn", "depth": 10, "input": [1, 8, 8], "classes": 10, "dropout": 0.5}).build()
    x = torch.rand(4, 1, 8, 8)
    network.eval()
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))
