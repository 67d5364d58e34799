"""Oracles of the flow of the solution procedure: the flow by hand, what leaves it as it is, and which networks may be joined."""

from typing import Any

import pytest
import torch
from torch import nn

from core.anatomy import measure
from core.errors import Refused
from core.methods.fsp import FSP, Flows, Pool, flow
from core.taps import Pair
from tests.core import toys
from tests.core.methods.scenes import joint, look, loss
from tests.core.toys import Toy, spec, tapped

WIDE = Toy(width=6)


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def again(features: torch.Tensor) -> torch.Tensor:
    """Every place four times, as a square."""
    return features.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_a_flow_by_hand() -> None:
    # (0 * 2 + 1 * 2 + 2 * 2 + 3 * 2) / 4 places.
    assert flow(torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]), torch.full((1, 1, 2, 2), 2.0)).tolist() == [[[3.0]]]
    # Rows are the first map's channels, columns the second's; two places.
    first, second = torch.tensor([[[[1.0, 2.0]], [[0.0, 4.0]]]]), torch.tensor([[[[1.0, 1.0]], [[1.0, 0.0]], [[3.0, 5.0]]]])
    assert flow(first, second).tolist() == [[[1.5, 0.5, 6.5], [2.0, 0.0, 10.0]]]


@pytest.mark.parametrize(("pool", "expected"), [("max", 4.0), ("avg", 2.5)])
def test_the_larger_map_is_pooled_on_either_side(pool: Pool, expected: float) -> None:
    large, small = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.ones(1, 1, 1, 1)
    assert flow(large, small, pool).item() == flow(small, large, pool).item() == expected


def test_moving_the_places_of_both_maps_alike_changes_nothing() -> None:
    first, second, order = maps(2, 3, 4, 4), maps(2, 5, 4, 4, seed=1), torch.randperm(16)
    moved, along = (features.flatten(2)[:, :, order].reshape(features.shape) for features in (first, second))
    assert torch.allclose(flow(moved, along), flow(first, second), rtol=0, atol=1e-15)
    assert not torch.allclose(flow(moved, second), flow(first, second), atol=1e-3)


def test_scaling_one_map_scales_the_flow() -> None:
    first, second = maps(2, 3, 4, 4), maps(2, 5, 2, 2, seed=1)
    assert torch.allclose(flow(5 * first, second), 5 * flow(first, second), rtol=1e-12)
    assert torch.allclose(flow(first, 5 * second), 5 * flow(first, second), rtol=1e-12)


def test_the_loss_sums_entries_and_flows_and_takes_the_mean_of_the_batch() -> None:
    made = Flows([joint((1, 1, 1), (1, 1, 1), k=k) for k in (1, 2, 3)], "max")
    # At one place a flow is a product: the student's are 2 * 3 and 3 * 1, the teacher's 1 * 1 and 1 * 1, the second sample's all 1.
    student = {"s1": [2.0, 1.0], "s2": [3.0, 1.0], "s3": [1.0, 1.0]}
    found = loss(
        made,
        student={tap: torch.tensor(values).reshape(2, 1, 1, 1) for tap, values in student.items()},
        teacher={f"t{k}": torch.ones(2, 1, 1, 1) for k in (1, 2, 3)},
    )
    assert found.item() == ((6 - 1) ** 2 + (3 - 1) ** 2) / 2
    wide = Flows([joint((2, 1, 1), (2, 1, 1), k=k) for k in (1, 2)], "max")
    both = {"s1": torch.ones(1, 2, 1, 1), "s2": torch.ones(1, 2, 1, 1)}
    assert loss(wide, student=both, teacher={f"t{k}": torch.zeros(1, 2, 1, 1) for k in (1, 2)}).item() == 4.0


def test_the_networks_sizes_may_differ() -> None:
    made = Flows([joint((3, 8, 8), (3, 4, 4)), joint((5, 4, 4), (5, 2, 2), k=2)], "max")
    # The teacher's maps are the student's with every place four times, and so is the larger map of each: a mean over more of the same.
    first, second = (maps(2, width, 2, 2, seed=width) for width in (3, 5))
    student = {"s1": again(first), "s2": second}
    teacher = {"t1": again(again(first)), "t2": again(second)}
    assert loss(made, student=student, teacher=teacher).item() == pytest.approx(0, abs=1e-25)


def test_one_network_has_no_distance_from_itself() -> None:
    made: Any = FSP().lesson(measure(WIDE), measure(WIDE)).transfer[0].terms["fsp"].term
    student, teacher = (tapped(WIDE, made.student_taps, seed=1).eval() for _ in range(2))
    found = look(made, student, teacher, torch.rand(4, *toys.SHAPE), torch.zeros(4, dtype=torch.int64))
    assert found.item() == 0


def test_unequal_widths_are_refused_by_name_with_the_way_out() -> None:
    pairs = (Pair("relu1", "relu1"), Pair("relu2", "relu2"))
    for method, where in (FSP(), "/methods/0/pairs"), (FSP(pairs=pairs), "/methods/0/pairs/0"):
        with pytest.raises(Refused, match=r"has 6 channels, '(relu1|dropout)' 4") as refused:
            toys.make(spec(method))
        assert refused.value.where == where
        assert "connectors" in refused.value.hint


def test_one_pair_is_no_flow() -> None:
    with pytest.raises(Refused, match="there is 1 pair") as refused:
        toys.make(spec(FSP(pairs=(Pair("relu1", "relu1"),))), student=WIDE)
    assert refused.value.where == "/methods/0/pairs"


def test_a_connector_stands_only_where_the_widths_differ() -> None:
    pairs = (Pair("conv1", "bn1"), Pair("relu1", "conv2"), Pair("bn2", "relu2"))
    made: Any = FSP(pairs=pairs, connectors=True).lesson(measure(WIDE), measure(Toy(width=6))).transfer[0].terms["fsp"].term
    same, linear, again = made.connectors
    assert isinstance(same, nn.Identity)
    assert isinstance(again, nn.Identity)
    assert (tuple(linear.weight.shape), linear.bias) == ((6, 12, 1, 1), None)


def test_joint_puts_the_term_into_the_training_and_makes_no_fit() -> None:
    joined = FSP(connectors=True, joint=True).lesson(measure(WIDE), measure(Toy()))
    assert (joined.transfer, list(joined.train)) == ((), ["fsp"])
    two = FSP(connectors=True, epochs=4, lr=0.3).lesson(measure(WIDE), measure(Toy()))
    assert (dict(two.train), [(list(fit.terms), fit.recipe.epochs, fit.lr) for fit in two.transfer]) == ({}, [(["fsp"], 4, 0.3)])
