"""Counting hits and summing losses."""

import pytest
import torch

from core.evaluate.accuracy import Accuracy


def test_hits_and_losses_add_up_over_batches_of_unequal_size() -> None:
    accuracy = Accuracy()
    accuracy.add(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0]))
    accuracy.add(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    hit, miss, tie = 0.126928, 2.126928, 0.693147
    assert accuracy.values() == {"accuracy": pytest.approx(1 / 3), "loss": pytest.approx((hit + miss + tie) / 3, abs=1e-6), "n": 3}


def test_half_precision_logits_are_summed_in_full_precision() -> None:
    accuracy = Accuracy()
    for _ in range(64):
        accuracy.add(torch.zeros(64, 10, dtype=torch.bfloat16), torch.zeros(64, dtype=torch.int64))
    assert accuracy.values()["loss"] == pytest.approx(2.302585, abs=1e-6)
