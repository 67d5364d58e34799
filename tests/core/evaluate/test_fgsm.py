"""The fast gradient sign method, by hand on affine networks."""

import pytest
import torch
from pydantic import ValidationError

from core.evaluate import evaluate
from core.evaluate.fgsm import FGSM
from core.taps import Tapped
from tests.core.evaluate.measuring import IMAGES, affine, labelled, returned, sleepy, traces, vectors

BINARY = affine([[1.0, -2.0], [0.0, 0.0]])
"""The margin of class 0 is x1 - 2 x2; epsilon takes epsilon * (1 + 2) of it."""


def test_the_margin_falls_by_epsilon_times_the_sum_of_the_weights_sizes() -> None:
    # (.5, .2) has the margin .1 and crosses at .1 / 3, (.9, .1) has .7 and crosses at .7 / 3.
    rows = vectors([[0.5, 0.2], [0.9, 0.1]], [0, 0])
    found = returned(FGSM(epsilons=(0.0, 0.033, 0.034, 0.1, 0.233, 0.234), clamp=False).curve(BINARY, rows))
    assert found == {"epsilon": [0.0, 0.033, 0.034, 0.1, 0.233, 0.234], "accuracy": [1.0, 1.0, 0.5, 0.5, 0.5, 0.0]}


def test_it_moves_away_from_the_label_also_where_the_network_is_wrong() -> None:
    # The margin .1 says class 0, the label is 1: the step raises the margin, and the answer stays wrong.
    assert returned(FGSM(epsilons=(0.0, 0.5)).curve(BINARY, vectors([[0.5, 0.2]], [1])))["accuracy"] == [0.0, 0.0]


def test_clamped_samples_stay_in_the_range_of_the_data() -> None:
    # x1 can fall by .02 and no more, x2 can rise by .01: margin .06 - .02 - .02 > 0, where the free step of .03 takes .09.
    rows = vectors([[0.02, -0.02]], [0], least=0.0, greatest=1.0)
    free, kept = (returned(FGSM(epsilons=(0.03,), clamp=clamp).curve(BINARY, rows))["accuracy"] for clamp in (False, True))
    assert (free, kept) == ([0.0], [0.0])
    rows = vectors([[0.02, -0.02]], [0], least=0.0, greatest=-0.01)
    assert returned(FGSM(epsilons=(0.03,)).curve(BINARY, rows))["accuracy"] == [1.0]


def test_epsilon_is_in_data_units_whatever_the_networks_own_space() -> None:
    # In normalised space the margin is 10 (x1 - 2 x2): ten times the margin, ten times the fall, the same crossing.
    narrow = Tapped(BINARY.network, mean=[0.0], std=[0.1])
    assert returned(FGSM(epsilons=(0.033, 0.034)).curve(narrow, vectors([[0.5, 0.2]], [0])))["accuracy"] == [1.0, 0.0]


def test_at_epsilon_0_it_is_the_accuracy_itself_and_it_falls_from_there() -> None:
    network = sleepy()
    rows = labelled(network)
    (*_, clean) = evaluate(network, rows)
    accuracy = returned(FGSM(epsilons=(0.0, 0.5)).curve(network, rows))["accuracy"]
    assert clean is not None
    assert accuracy[0] == clean["accuracy"] == 1.0
    assert accuracy[1] < 0.8


def test_nothing_of_the_network_changes_and_nothing_leaks_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    network = sleepy()
    before = traces(network)
    monkeypatch.setattr("core.data.rows._TOGETHER", 8)
    yields = 0
    for _ in FGSM().curve(network, IMAGES):
        yields += 1
        assert torch.is_grad_enabled()
        assert traces(network) == before
    assert yields == 3
    assert traces(network) == before


def test_it_works_for_a_consumer_without_gradients() -> None:
    with torch.no_grad():
        assert returned(FGSM(epsilons=(0.1,)).curve(BINARY, vectors([[0.5, 0.2]], [0])))["accuracy"] == [0.0]


def test_the_defaults_are_the_published_epsilons() -> None:
    assert FGSM().epsilons == (0.0, 0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.014, 0.016, 0.018)


@pytest.mark.parametrize("wrong", [{"epsilons": []}, {"epsilons": [-0.1]}, {"epsilons": [float("nan")]}, {"epsilon": 0.1}, {"clamp": 2}])
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FGSM.model_validate(wrong)
