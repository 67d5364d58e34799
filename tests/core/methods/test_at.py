"""Oracles of attention transfer: what the maps may differ in at no cost, and what a map without life gives."""

import pytest
import torch

from core.errors import Refused
from core.methods.at import AT, Attention, attention
from core.taps import Pair
from tests.core import toys
from tests.core.methods.scenes import loss
from tests.core.toys import Toy, spec

ONE = (Pair("t", "s"),)


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_maps_scale_does_not_matter() -> None:
    features = maps(3, 5, 4, 4)
    assert torch.allclose(attention(features), attention(7 * features), rtol=0, atol=1e-15)


def test_energy_at_another_place_costs_one_in_the_mean_form() -> None:
    # Q is (1, 0) and (0, 1): squares 1 and 1, whose mean is 1 and whose sum would be 2.
    student, teacher = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, 5.0]]]])
    assert loss(Attention(ONE), student={"s": student}, teacher={"t": teacher}).item() == 1.0


def test_the_pairs_add_up_and_the_batch_is_a_mean() -> None:
    there, here = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, 5.0]]]])
    made = Attention((*ONE, Pair("t2", "s2")))
    student, teacher = torch.cat([there, there]), torch.cat([here, there])
    assert loss(made, student={"s": student, "s2": there.repeat(2, 1, 1, 1)}, teacher={"t": teacher, "t2": here.repeat(2, 1, 1, 1)}) == 1.5


def test_neither_the_order_nor_the_number_of_the_channels_matters() -> None:
    features = maps(3, 5, 4, 4)
    for other in (features[:, [3, 1, 4, 0, 2]], torch.cat([features, features], 1), -features):
        found = loss(Attention(ONE), student={"s": features}, teacher={"t": other})
        assert found.item() == pytest.approx(0, abs=1e-30)
    assert loss(Attention(ONE), student={"s": features}, teacher={"t": maps(3, 2, 4, 4, seed=1)}) > 0.01


def test_it_is_the_energy_and_not_the_size_that_is_normalised() -> None:
    # Two places with channel energies 9 + 16 = 25 and 0: Q = (1, 0). And 1, 2: Q = (1, 2) / sqrt(5).
    found = attention(torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]], [[[1.0, 1.0]], [[0.0, 1.0]]]]))
    assert torch.allclose(found, torch.tensor([[1.0, 0.0], [1 / 5**0.5, 2 / 5**0.5]]))


def test_a_dead_map_gives_zeros_and_finite_gradients() -> None:
    features = torch.zeros(2, 3, 2, 2)
    features[1] = 1.0
    features[1, :, 0, 0] = 0.0  # a sample that lives, with a dead place
    features.requires_grad_()
    assert attention(features)[0].eq(0).all()
    loss(Attention(ONE), student={"s": features}, teacher={"t": maps(2, 3, 2, 2).float()}).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert features.grad[0].eq(0).all()
    assert features.grad[1].abs().sum() > 0


def test_maps_of_unequal_sizes_are_refused_at_their_pair_with_the_shapes() -> None:
    with pytest.raises(Refused, match=r"\(6, 8, 8\).*\(8, 4, 4\)") as refused:
        toys.make(spec(AT(pairs=(Pair("relu1", "relu1"), Pair("relu1", "relu2")))))
    assert refused.value.where == "/methods/0/pairs/1"


def test_a_tap_without_a_map_is_refused() -> None:
    with pytest.raises(Refused, match="no height and width") as refused:
        toys.make(spec(AT(pairs=(Pair("relu2", "flatten"),))))
    assert refused.value.where == "/methods/0/pairs/0/1"


def test_maps_of_a_single_place_are_refused_where_there_are_no_others() -> None:
    single = Pair("pool", "pool")
    with pytest.raises(Refused, match="every paired map has one place") as refused:
        toys.make(spec(AT(pairs=(single,))))
    assert refused.value.where == "/methods/0/pairs"
    toys.make(spec(AT(pairs=(single, Pair("relu1", "relu1")))))


def test_by_default_the_stages_outputs_are_paired_with_the_published_weight() -> None:
    decided = toys.make(spec(AT())).plan
    (train,) = decided.fits
    assert (decided.teacher_taps, decided.student_taps) == (("dropout", "relu2"), ("dropout", "relu2"))
    assert train.terms["at"].weight == 1000.0


def test_a_teacher_of_other_classes_may_teach() -> None:
    toys.play(toys.make(spec(AT()), teacher=Toy(width=6, classes=7)), freeze=False)
