"""Activation similarity: one for a network and itself, none for its opposite, and half for strangers."""

import torch

from core.evaluate.similarity import similarity


def test_identical_activations_agree_everywhere_and_opposite_ones_nowhere() -> None:
    teacher = torch.tensor([[1.0, -2.0, 0.5], [-0.1, -3.0, 4.0]])
    assert similarity(teacher > 0, teacher > 0).item() == 1.0
    assert similarity(-teacher > 0, teacher > 0).item() == 0.0


def test_every_neuron_of_every_sample_counts_the_same() -> None:
    first = torch.tensor([[True, True, False, False], [True, False, False, False]])
    second = torch.tensor([[True, False, False, True], [True, False, False, True]])
    assert similarity(first, second).item() == 5 / 8


def test_unrelated_activations_agree_on_about_half() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = (torch.randn(100, 1000, generator=draw) > 0 for _ in range(2))
    # 100,000 fair coins: five standard deviations are 0.0079.
    assert abs(similarity(first, second).item() - 0.5) < 0.0079
