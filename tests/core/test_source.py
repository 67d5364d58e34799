"""A live source runs the teacher once for all terms that look at it, without a gradient, and not at all for none."""

import torch
from torch import Tensor, nn

from core.data import Batches
from core.source import Live
from core.taps import Pair, Tapped, View
from core.terms import CrossEntropy, SoftTargets
from tests.core.toys import Hint, Toy, squares


class Counting(nn.Module):
    """A network that counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Toy(width=6).build()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.inner(x)
        return logits


def live() -> tuple[Live, Counting]:
    network = Counting()
    return Live(Batches(squares(24), 8, seed=0), Tapped(network.eval(), taps=["inner.relu1"])), network


def test_one_pass_serves_all_terms_and_each_gets_its_own_target() -> None:
    source, network = live()
    hint = Hint(Pair("inner.relu1", "relu1"), (6, 4))
    batch, views = source(0, 1, {"task": CrossEntropy(), "kd": SoftTargets(4.0), "hint": hint})
    assert network.calls == 1
    assert views.keys() == {"kd", "hint"}
    assert views["kd"].at == {}
    assert views["hint"].at.keys() == {"inner.relu1"}
    assert not views["hint"].at["inner.relu1"].requires_grad
    assert not views["kd"].logits.requires_grad
    assert len(batch.x) == 8


def test_where_no_term_looks_the_teacher_does_not_run() -> None:
    source, network = live()
    _, views = source(0, 0, {"task": CrossEntropy()})
    assert (network.calls, views) == (0, {})


def test_what_a_terms_target_throws_away_it_does_not_get() -> None:
    class Signs(SoftTargets):
        def target(self, t: View) -> View:
            return View(t.logits > 0, {})

    source, _ = live()
    _, views = source(0, 0, {"signs": Signs(1.0)})
    assert views["signs"].logits.dtype == torch.bool
