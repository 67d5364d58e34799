"""Oracles of the Wasserstein method: linear networks in closed form, both forms of the penalty, its part of the batch."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from core.anatomy import measure
from core.errors import Refused
from core.method import Scene
from core.methods.kd import KD
from core.methods.wasserstein import Ball, Wasserstein, slopes
from core.networks import parse
from core.random import key_of
from core.taps import Tapped
from tests.core import toys
from tests.core.toys import DOMAIN, Toy, spec, tapped


def linear(*rows: list[float]) -> Tapped:
    """A linear classifier with these weights and no bias, in float64."""
    network = parse({"family": "mlp", "input": [len(rows[0])], "hidden": [], "classes": len(rows)}).build()
    network.load_state_dict({"fc.weight": torch.tensor(rows), "fc.bias": torch.zeros(len(rows))})
    return Tapped(network).double()


def scene(
    student: Tapped, teacher: Tapped, x: Tensor, *, classes: Tensor | None = None, key: int = 0, index: Tensor | None = None
) -> Scene:
    """A batch as the loop shows it to the term."""
    with torch.no_grad():
        theirs = teacher(x)
    rows = torch.arange(len(x)) if index is None else index
    y = torch.zeros(len(x), dtype=torch.int64)
    return Scene(x, y, rows, student(x), theirs, student, teacher, classes, key_of(key), domain=DOMAIN)


def pair(seed: int = 0) -> tuple[Tapped, Tapped, Tensor]:
    """A student and a teacher of convolutions and batch norms, in float64, and a batch for them."""
    student, teacher = tapped(Toy(), (), seed=seed + 1).double().eval(), tapped(Toy(width=6), (), seed=seed + 2).double().eval()
    torch.manual_seed(seed)
    return student, teacher.requires_grad_(False), torch.rand(6, *toys.SHAPE).double()


def terms(student: Tapped, teacher: Tapped, x: Tensor, classes: Tensor | None = None, **fields: Any) -> tuple[Tensor, list[Tensor]]:
    """The loss on a batch and its gradient in each of the student's parameters."""
    loss = Ball(Wasserstein(**fields))(scene(student, teacher, x, classes=classes))
    return loss, list(torch.autograd.grad(loss, list(student.parameters())))


S, T, X = [[2.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, -1.0]], [[1.0, 2.0], [3.0, -1.0]]
# S - T = diag(2, 2): l = |2x|^2 = 4|x|^2, its gradient is 8x; over both images mean l = 4 (5 + 10) / 2 = 30.
L2, L1 = 8 * (5**0.5 + 10**0.5) / 2, 8 * (3 + 4) / 2


@pytest.mark.parametrize("form", ["auto", "double_backward", "tangent"])
@pytest.mark.parametrize(("norm", "penalty"), [("l2", L2), ("l1", L1)])
def test_of_linear_networks_the_penalty_is_the_closed_form(form: str, norm: str, penalty: float) -> None:
    student, teacher, x = linear(*S), linear(*T).requires_grad_(False), torch.tensor(X).double()
    shown = scene(student, teacher, x)
    loss = Ball(Wasserstein(loss="mse", epsilon=0.5, norm=norm, form=form))(shown)
    assert loss.item() == pytest.approx(30 + 0.5 * penalty)
    assert shown.notes["wasserstein.penalty"].item() == pytest.approx(penalty)
    assert shown.notes["wasserstein.ratio"].item() == pytest.approx(0.5 * penalty / 30)
    # With D = S - T the gradient is 2 D^T D x, so that of the penalty by S can be had from ordinary autograd on this formula.
    weight = torch.tensor(S).double().requires_grad_()
    gap = weight - torch.tensor(T).double()
    order = 1 if norm == "l1" else 2
    closed = (x @ gap.T).square().sum(1).mean() + 0.5 * torch.linalg.vector_norm(2 * x @ gap.T @ gap, order, dim=1).mean()
    (expected,) = torch.autograd.grad(closed, weight)
    (found,) = torch.autograd.grad(loss, student.network.get_parameter("fc.weight"))
    assert torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("form", ["double_backward", "tangent"])
def test_the_derivative_is_total_the_teacher_moves_with_the_image_too(form: str) -> None:
    student, teacher, x = linear([2.0], [0.0]), linear([-1.0], [0.0]), torch.tensor([[1 / 3]]).double()
    shown = scene(student, teacher.requires_grad_(False), x)
    Ball(Wasserstein(loss="mse", form=form))(shown)
    # l = 9x^2, dl/dx = 18x = 6; with the teacher held still it would be 2 (s - t) 2 = 4.
    assert shown.notes["wasserstein.penalty"].item() == pytest.approx(6.0)


@pytest.mark.parametrize("classes", [None, torch.tensor([True, False, True])], ids=["all classes", "one class absent"])
@pytest.mark.parametrize("loss", ["kl", "mse"])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_both_forms_are_one_number_and_one_gradient(loss: str, norm: str, classes: Tensor | None) -> None:
    student, teacher, x = pair()
    fields = {"loss": loss, "norm": norm, "epsilon": 2.0}
    value, gradients = terms(student, teacher, x, classes, **fields, form="double_backward")
    other, others = terms(student, teacher, x, classes, **fields, form="tangent")
    plain, _ = terms(student, teacher, x, classes, loss=loss, epsilon=0.0)
    assert value.item() > plain.item() * 1.01
    assert other.item() == pytest.approx(value.item(), rel=1e-12)
    for one, another in zip(gradients, others, strict=True):
        assert torch.allclose(one, another, rtol=1e-9, atol=1e-11)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_slopes_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    student, teacher = (torch.randn(4, 3).double().requires_grad_() for _ in range(2))
    p, logq = (teacher / 2.5).softmax(1), (student / 2.5).log_softmax(1)
    kl = 2.5**2 * (p * (p.log() - logq)).sum()
    for found, expected in zip(slopes(student, teacher, "kl", 2.5), torch.autograd.grad(kl, (student, teacher)), strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
    far = torch.tensor([[2000.0, 0.0, -2000.0]])
    assert all(slope.isfinite().all() for slope in slopes(far, -far, "kl", 1.0))


@pytest.mark.parametrize("form", ["double_backward", "tangent"])
@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_one_network_disagrees_nowhere_with_itself(loss: str, form: str) -> None:
    student = tapped(Toy(), (), seed=1).eval()
    teacher = copy.deepcopy(student).requires_grad_(False)
    value, gradients = terms(student, teacher, torch.rand(4, *toys.SHAPE), loss=loss, form=form)
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert all(gradient.abs().max() < 1e-6 for gradient in gradients)


def test_with_an_epsilon_of_zero_it_is_kd_at_weight_one() -> None:
    student, teacher, x = pair()
    found, _ = terms(student, teacher, x, temperature=3.0, epsilon=0.0)
    both = measure(Toy()), measure(Toy())
    kd = KD(temperature=3.0).lesson(*both).train["kd"].term(scene(student, teacher, x))
    assert found.item() == pytest.approx(kd.item(), rel=1e-12)


def norms(share: float, key: int, order: Tensor | None = None) -> float:
    """The penalty of linear networks on images 0, 1, 2, ..., whose norms are 8 times that, measured on a share of them."""
    rows = torch.arange(8) if order is None else order
    shown = scene(linear([2.0], [0.0]), linear([0.0], [0.0]).requires_grad_(False), rows[:, None].double(), key=key, index=rows)
    Ball(Wasserstein(loss="mse", share=share))(shown)
    return shown.notes["wasserstein.penalty"].item() / 8


def test_a_share_is_drawn_by_the_key_whatever_the_order_of_the_batch_and_is_right_in_the_mean() -> None:
    assert norms(1.0, 0) == pytest.approx(3.5)  # the mean of 0 to 7
    backwards = torch.arange(8).flip(0)
    drawn = [norms(0.2, key) for key in range(300)]  # 1.6 images, rounded up: two
    assert [norms(0.2, key, backwards) for key in range(20)] == pytest.approx(drawn[:20])
    assert set(drawn) <= {k / 2 for k in range(1, 14)}
    assert len(set(drawn)) == 13
    # The mean of two of eight has a deviation of 1.5 (1.75 = 5.25 / 2 * 6 / 7 = 2.25, its root); of 300 of them 0.087.
    assert sum(drawn) / len(drawn) == pytest.approx(3.5, abs=0.35)


def test_samples_do_not_meet_and_every_mode_and_statistic_is_given_back() -> None:
    student, teacher, x = pair()
    student.train()
    student.network.get_submodule("bn2").eval()
    modes = [module.training for module in student.modules()]
    shown = scene(student, teacher, x)
    statistics = {name: value.clone() for name, value in student.named_buffers()}
    Ball(Wasserstein())(shown)
    alone = []
    for k in range(len(x)):
        one = Scene(x[k : k + 1], shown.y[:1], shown.index[:1], shown.s, shown.t, student, teacher, None, shown.key, domain=DOMAIN)
        Ball(Wasserstein())(one)
        alone.append(one.notes["wasserstein.penalty"].item())
    assert shown.notes["wasserstein.penalty"].item() == pytest.approx(sum(alone) / len(alone), rel=1e-5)
    assert [module.training for module in student.modules()] == modes
    assert all(torch.equal(value, statistics[name]) for name, value in student.named_buffers())


@pytest.mark.parametrize(
    ("fields", "facts"),
    [({}, {"form": "tangent"}), ({"form": "double_backward"}, {"form": "double_backward"}), ({"epsilon": 0.0}, {})],
)
def test_the_term_says_which_form_ran(fields: dict[str, Any], facts: dict[str, Any]) -> None:
    student, teacher, x = pair()
    term = Ball(Wasserstein(**fields))
    term(scene(student, teacher, x))
    assert term.facts() == facts


def test_two_classes_are_enough_and_other_counts_are_refused() -> None:
    student, teacher = linear([1.0, 2.0], [0.5, 0.0]), linear([0.0, 1.0], [1.0, 0.0]).requires_grad_(False)
    value, _ = terms(student, teacher, torch.tensor([[0.3, 0.4]]).double())
    assert value.isfinite()
    with pytest.raises(Refused, match="the teacher has 5 outputs, the student 3") as refused:
        toys.make(spec(Wasserstein()), teacher=Toy(classes=5))
    assert refused.value.where == "/methods/0/loss"
