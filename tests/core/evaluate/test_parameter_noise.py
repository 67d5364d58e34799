"""Noise on the parameters: its size against the normal distribution, and what it leaves alone."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import nn

from core.data import Rows
from core.evaluate import evaluate
from core.evaluate.parameter_noise import ParameterNoise
from core.taps import Tapped
from tests.core.evaluate.measuring import IMAGES, affine, labelled, returned, sleepy, traces, vectors
from tests.core.toys import DOMAIN


class Lonely(nn.Module):
    """Logits (w, 0) with one parameter w for each sample, so that every sample has noise of its own."""

    def __init__(self, n: int, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((n,), w))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = self.w[x[:, 0].long()]
        return torch.stack([chosen, torch.zeros_like(chosen)], 1)


def test_the_noise_is_normal_with_epsilon_as_its_deviation() -> None:
    """w = 1 stays positive with probability Phi(1 / epsilon)."""
    n, epsilons = 20_000, (0.0, 0.5, 1.0, 4.0)
    rows = Rows.whole(np.arange(n, dtype=np.float32)[:, None], np.zeros(n, dtype=np.int64), classes=2, domain=DOMAIN)
    found = returned(ParameterNoise(epsilons=epsilons, draws=2).curve(Tapped(Lonely(n, 1.0)), rows, seed=1))
    assert found["accuracy"][0] == 1.0
    for epsilon, share in zip(epsilons[1:], found["accuracy"][1:], strict=True):
        # Five deviations of a share over 40,000 draws are at most .0125.
        assert share == pytest.approx(NormalDist().cdf(1 / epsilon), abs=0.0125)


def test_mean_and_spread_are_those_of_the_draws_each_held_over_the_whole_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """All samples stand or fall with one weight: a draw gives 1 or 0, so k of n hits give sd = sqrt(n p (1 - p) / (n - 1))."""
    monkeypatch.setattr("core.data.rows._TOGETHER", 2)
    rows, network = vectors([[1.0]] * 6, [0] * 6), affine([[0.1], [0.0]])
    found = returned(ParameterNoise(epsilons=(1.0,), draws=20).curve(network, rows, seed=0))
    (p,), (sd,) = found["accuracy"], found["sd"]
    assert 0 < p < 1
    assert p * 20 == pytest.approx(round(p * 20))
    assert sd == pytest.approx(math.sqrt(20 * p * (1 - p) / 19))


def test_with_redraw_every_batch_has_noise_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.data.rows._TOGETHER", 2)
    rows, network = vectors([[1.0]] * 60, [0] * 60), affine([[0.1], [0.0]])
    (held,), (anew,) = (
        returned(ParameterNoise(epsilons=(1.0,), draws=1, redraw=redraw).curve(network, rows, seed=0))["accuracy"]
        for redraw in (False, True)
    )
    assert held in (0.0, 1.0)
    assert 0 < anew < 1


def test_biases_are_moved_and_buffers_are_not() -> None:
    biased = affine([[0.0], [0.0]], [0.5, 0.0])
    assert returned(ParameterNoise(epsilons=(50.0,), draws=30).curve(biased, vectors([[0.0]], [0]), seed=0))["accuracy"][0] < 1.0

    class Still(nn.Module):
        still: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("still", torch.tensor([1.0, 0.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.still.expand(len(x), 2)

    assert returned(ParameterNoise(epsilons=(50.0,), draws=30).curve(Tapped(Still()), vectors([[0.0]], [0]), seed=0))["accuracy"] == [1.0]


def test_a_parameter_that_two_modules_share_is_moved_once() -> None:
    """Logits (w v x, 0) with w = v: the product of one draw with itself is never negative, that of two draws half of the time."""
    first, second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    second.weight = first.weight
    network = Tapped(nn.Sequential(first, second, nn.ConstantPad1d((0, 1), -1e-9)))
    found = returned(ParameterNoise(epsilons=(9.0,), draws=30).curve(network, vectors([[1.0]], [0]), seed=0))
    assert found["accuracy"] == [1.0]


def test_at_epsilon_0_it_is_the_accuracy_itself_without_spread() -> None:
    network = sleepy()
    rows = labelled(network)
    (*_, clean) = evaluate(network, rows)
    assert clean is not None
    found = returned(ParameterNoise(epsilons=(0.0, 3.0), draws=3).curve(network, rows, seed=0))
    assert (found["accuracy"][0], found["sd"][0]) == (clean["accuracy"], 0.0)
    assert found["sd"][1] > 0


def test_the_seed_decides_the_draws_and_torchs_own_generator_has_no_part() -> None:
    network, measure = sleepy(), ParameterNoise(epsilons=(0.05, 0.05), draws=4)
    rows = labelled(network)
    first = returned(measure.curve(network, rows, seed=0))
    state = torch.get_rng_state()
    torch.rand(5)
    assert returned(measure.curve(network, rows, seed=0)) == first
    torch.set_rng_state(state)
    assert returned(measure.curve(network, rows, seed=1)) != first
    assert first["accuracy"][0] != first["accuracy"][1]
    assert torch.equal(torch.get_rng_state(), state)


def test_one_draw_has_no_deviation() -> None:
    assert returned(ParameterNoise(draws=1).curve(sleepy(), IMAGES, seed=0)).keys() == {"epsilon", "accuracy"}


@pytest.mark.parametrize("redraw", [False, True])
def test_the_weights_are_the_same_bytes_between_batches_and_afterwards(redraw: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    network = sleepy()
    before = traces(network)
    monkeypatch.setattr("core.data.rows._TOGETHER", 8)
    yields = 0
    for _ in ParameterNoise(epsilons=(0.0, 9.0), draws=2, redraw=redraw).curve(network, IMAGES, seed=0):
        yields += 1
        assert torch.is_grad_enabled()
        assert traces(network) == before
    assert yields == 3 * 2 * 2
    assert traces(network) == before


def test_the_defaults_are_the_published_epsilons() -> None:
    assert ParameterNoise().epsilons == (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09)
