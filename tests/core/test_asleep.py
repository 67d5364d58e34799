"""What sleeps is found by structure alone, and finding it changes nothing."""

import torch
from torch import Tensor, nn

from core.asleep import settle
from core.bench import Bench
from core.data import Batches
from core.method import Fit, Weighted
from core.optim import Recipe
from core.source import Live
from core.taps import Pair, Tapped
from core.terms import CrossEntropy
from tests.core.toys import Drift, Hint, ToyNet, squares


class Nested(nn.Module):
    """A body in a container, and a head beside it."""

    def __init__(self) -> None:
        super().__init__()
        toy = ToyNet(into=2, width=4, dropout=0.5, classes=3)
        self.low = nn.Sequential(toy.conv1, toy.bn1, toy.relu1)
        self.high = nn.Sequential(toy.dropout, toy.conv2, toy.bn2, toy.relu2)
        self.head = nn.Sequential(toy.pool, toy.flatten, toy.fc)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.high(self.low(x)))
        return logits


def settled(terms: dict[str, Weighted], *, only: tuple[str, ...] = (), taps: tuple[str, ...] = (), teacher_train: bool = False) -> Bench:
    student, teacher = Tapped(Nested(), taps=taps), Tapped(Nested(), taps=taps)
    now = Fit(terms, Recipe(epochs=1, batch_size=8), only=only, teacher_mode="train" if teacher_train else "eval")
    bench = Bench([now], [3], student, teacher, seed=0)
    settle(bench, Live(Batches(squares(24), 8, seed=0), teacher))
    return bench


def awake(bench: Bench) -> set[str]:
    return {name for name, module in bench.student.network.named_modules() if module.training}


TASK = {"task": Weighted(CrossEntropy(), 1.0)}


def test_under_the_task_loss_everything_is_awake() -> None:
    bench = settled(TASK)
    assert awake(bench) == {name for name, _ in bench.student.network.named_modules()}


def test_above_a_hint_everything_sleeps() -> None:
    hint = {"hint": Weighted(Hint(Pair("low.2", "low.2"), (4, 4)), 1.0)}
    # In eval mode the dropout above gives back the very tensor that is reached: awake, and without effect.
    assert awake(settled(hint, taps=("low.2",))) == {"", "low", "low.0", "low.1", "low.2", "high", "high.0"}


def test_a_dropout_of_the_input_is_awake_though_nothing_below_it_learns() -> None:
    student = Tapped(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(2, affine=False), ToyNet(into=2, width=4, dropout=0, classes=3)))
    bench = Bench([Fit(TASK, Recipe(epochs=1, batch_size=8))], [3], student, None, seed=0)
    settle(bench, Live(Batches(squares(24), 8, seed=0), None))
    assert {"0", "1", "2"} <= awake(bench)


def test_a_term_of_weight_zero_wakes_nothing() -> None:
    terms = {"hint": Weighted(Hint(Pair("low.2", "low.2"), (4, 4)), 1.0), "task": Weighted(CrossEntropy(), 0.0)}
    assert "head" not in awake(settled(terms, taps=("low.2",)))


def test_below_what_learns_and_above_it_everything_is_in_eval_mode() -> None:
    assert awake(settled(TASK, only=("high",))) == {"high", "high.0", "high.1", "high.2", "high.3"}
    assert awake(settled(TASK, only=("head",))) == {"head", "head.0", "head.1", "head.2"}


def test_settling_changes_no_parameter_no_buffer_and_no_gradient() -> None:
    drift = Drift(3)
    torch.manual_seed(0)
    bench = settled({"drift": Weighted(drift, 1.0)})
    assert drift.mean.eq(0).all()
    fresh = torch.nn.BatchNorm2d(4).state_dict()
    bn = bench.student.network.get_submodule("low.1")
    assert torch.equal(bn.get_buffer("running_mean"), fresh["running_mean"])
    assert all(parameter.grad is None for parameter in bench.student.parameters())


def test_the_teacher_is_in_eval_mode_unless_the_fit_says_otherwise() -> None:
    for train in (False, True):
        bench = settled(TASK, teacher_train=train)
        assert bench.teacher is not None
        assert bench.teacher.training is train
