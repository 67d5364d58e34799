"""One pass over data that was not trained on, by hand."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from core.data.rows import Rows
from core.evaluate import Values, evaluate
from core.networks import parse
from core.taps import Tapped
from tests.core.toys import DOMAIN


def rows(n: int, *, classes: int = 3) -> Rows:
    """n samples of two features, the first of which names the class that a network of `identity` gives."""
    bank = np.eye(classes, dtype=np.float32)[np.arange(n) % classes]
    return Rows.whole(bank, (np.arange(n) // 2 % classes).astype(np.int64), classes=classes, domain=DOMAIN)


def last(measuring: Iterator[Values | None]) -> Values:
    told = list(measuring)
    assert told[:-1] == [None] * (len(told) - 1)
    assert told[-1] is not None
    return told[-1]


def test_accuracy_and_loss_are_those_of_a_count_by_hand() -> None:
    # answers 0 1 2 0 1, labels 0 0 1 1 2: one hit of five
    found = last(evaluate(Tapped(nn.Identity()), rows(5)))
    assert found["accuracy"] == 0.2
    assert found["n"] == 5
    # logits are one-hot: -log softmax is log(e + 2) - 1 on a hit and log(e + 2) on a miss
    assert found["loss"] == pytest.approx(math.log(math.e + 2) - 0.2, abs=1e-6)


def test_every_sample_counts_once_whatever_the_batch_size() -> None:
    for size in (1, 2, 5, 7, 512):
        found = last(evaluate(Tapped(nn.Identity()), rows(7), batch_size=size))
        assert found["n"] == 7
        assert found["accuracy"] == last(evaluate(Tapped(nn.Identity()), rows(7)))["accuracy"]
        assert found["loss"] == pytest.approx(last(evaluate(Tapped(nn.Identity()), rows(7)))["loss"], abs=1e-6)


def test_it_yields_once_a_batch_and_last_the_values() -> None:
    assert len(list(evaluate(Tapped(nn.Identity()), rows(7), batch_size=2))) == 4 + 1


def test_the_values_are_plain_numbers() -> None:
    assert {type(value) for value in last(evaluate(Tapped(nn.Identity()), rows(4), against=Tapped(nn.Identity()))).values()} <= {int, float}


def test_neither_modes_nor_the_absence_of_gradients_leak_to_whoever_reads() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 3))
    network.get_submodule("1").eval()
    tapped = Tapped(network)
    before = {name: module.training for name, module in tapped.named_modules()}
    for _ in evaluate(tapped, rows(6), batch_size=2):
        assert torch.is_grad_enabled()
        assert {name: module.training for name, module in tapped.named_modules()} == before
    assert network.get_submodule("0").num_batches_tracked == 0


def test_a_network_is_measured_in_eval_mode() -> None:
    tapped = Tapped(nn.Sequential(nn.Dropout(0.9))).train()
    assert last(evaluate(tapped, rows(6)))["accuracy"] == last(evaluate(Tapped(nn.Identity()), rows(6)))["accuracy"]


def test_images_reach_the_network_in_its_own_space() -> None:
    torch.manual_seed(0)
    bank = torch.randint(0, 256, (10, 8, 8, 1), dtype=torch.uint8)
    network = parse({"family": "convnet", "input": [1, 8, 8], "classes": 4, "channels": [4]}).build().eval()
    x = (bank.permute(0, 3, 1, 2).float() / 255 - 0.3) / 0.2
    y = network(x).argmax(1)
    tapped = Tapped(network, mean=[0.3], std=[0.2])
    found = last(evaluate(tapped, Rows.whole(bank.numpy(), y.numpy(), classes=4, domain=DOMAIN), batch_size=3))
    assert found["accuracy"] == 1.0


def test_an_accuracy_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        next(evaluate(Tapped(nn.Identity()), rows(0)))


@pytest.mark.parametrize(("shape", "together"), [((8, 8, 1), 512), ((32, 32, 3), 512), ((224, 224, 3), 27), ((4096, 4096, 3), 1)])
def test_large_images_are_evaluated_few_at_a_time(shape: tuple[int, ...], together: int) -> None:
    bank = np.broadcast_to(np.uint8(0), (3, *shape))
    assert Rows.whole(bank, np.zeros(3, np.int64), classes=2, domain=DOMAIN).together == together
