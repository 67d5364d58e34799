"""How often two networks agree, by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from core.data.rows import Rows
from core.evaluate import evaluate
from core.evaluate.agreement import Agreement
from core.taps import Tapped
from tests.core.toys import DOMAIN


def test_agreement_and_the_largest_difference_are_counted_over_all_batches() -> None:
    agreement = Agreement()
    agreement.add(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.5]]))
    agreement.add(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.25]]))
    assert agreement.values() == {"agreement": pytest.approx(2 / 3), "max_abs_diff": 2.0}


def test_networks_of_different_classes_have_no_common_answers() -> None:
    with pytest.raises(ValueError, match="3 and 2 outputs"):
        Agreement().add(torch.zeros(4, 3), torch.zeros(4, 2))


def test_a_network_agrees_with_itself_and_not_with_its_negative() -> None:
    class Negative(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -x

    rows = Rows.whole(np.array([[1, 0], [0, 1], [3, 2]], dtype=np.float32), np.array([0, 1, 0]), classes=2, domain=DOMAIN)
    for other, share in ((nn.Identity(), 1.0), (Negative(), 0.0)):
        *_, found = evaluate(Tapped(nn.Identity()), rows, against=Tapped(other))
        assert found is not None
        assert found["agreement"] == share
