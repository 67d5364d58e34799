"""The two shared losses against hand values, identities and torch's own."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from core.method import Scene, Term
from core.random import key_of
from core.taps import Tapped, View
from core.terms import CrossEntropy, SoftTargets, divergence, log_softmax
from tests.core.toys import DOMAIN

NETWORK = Tapped(torch.nn.Identity())


def scene(student: Tensor, teacher: Tensor | None = None, y: Tensor | None = None, classes: Tensor | None = None) -> Scene:
    n = len(student)
    y = torch.zeros(n, dtype=torch.int64) if y is None else y
    theirs = None if teacher is None else View(teacher, {})
    return Scene(torch.zeros(n, 2), y, torch.arange(n), View(student, {}), theirs, NETWORK, None, classes, key_of(0), DOMAIN)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_soft_targets_have_the_value_and_gradient_of_a_hand_calculation() -> None:
    """p = (sigmoid 1, sigmoid -1), q = (1/2, 1/2): 4 (log 2 - H(p)) and 2 (q - p)."""
    student = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    loss = SoftTargets(2.0)(scene(student, torch.tensor([[2.0, 0.0]], dtype=torch.float64)))
    assert loss.item() == pytest.approx(0.4437762866869097, abs=1e-14)
    loss.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad[0].tolist() == pytest.approx([-0.4621171572600098, 0.4621171572600098], abs=1e-14)


def test_soft_targets_are_the_kullback_leibler_divergence_of_torch() -> None:
    student, teacher = draw(7, 5), draw(7, 5, seed=1)
    expected = F.kl_div(F.log_softmax(student / 3, 1), F.softmax(teacher / 3, 1), reduction="batchmean")
    assert torch.allclose(SoftTargets(3.0)(scene(student, teacher)), 9 * expected)
    assert torch.allclose(SoftTargets(3.0, scaled=False)(scene(student, teacher)), expected)


def test_where_student_and_teacher_agree_loss_and_gradient_are_zero() -> None:
    student = draw(4, 6).requires_grad_()
    loss = SoftTargets(4.0)(scene(student, student.detach() + 5))
    (gradient,) = torch.autograd.grad(loss, student)
    assert abs(loss.item()) < 1e-14
    assert gradient.abs().max() < 1e-15


def test_at_a_high_temperature_soft_targets_compare_centred_logits() -> None:
    student, teacher = draw(7, 5), draw(7, 5, seed=1)
    gap = student - teacher
    centred = (gap - gap.mean(1, keepdim=True)).square().sum(1).mean() / (2 * 5)
    assert SoftTargets(1000.0)(scene(student, teacher)).item() == pytest.approx(centred.item(), rel=1e-3)


def test_the_softmax_is_taken_in_fp32_whatever_the_logits_are() -> None:
    student, teacher = draw(7, 5).bfloat16(), draw(7, 5, seed=1).bfloat16()
    loss = SoftTargets(4.0)(scene(student, teacher))
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, SoftTargets(4.0)(scene(student.float(), teacher.float())))


def test_absent_classes_count_nothing_and_get_no_gradient() -> None:
    classes = torch.tensor([True, True, False, True, False])
    student, teacher, y = draw(6, 5).requires_grad_(), draw(6, 5, seed=1), torch.tensor([0, 1, 3, 0, 1, 3])
    inner = torch.tensor([0, 1, 0, 2, 0])[y]
    for term, reduced in (
        (SoftTargets(4.0), scene(student[:, classes], teacher[:, classes])),
        (CrossEntropy(), scene(student[:, classes], y=inner)),
        (CrossEntropy(0.2), scene(student[:, classes], y=inner)),
    ):
        loss = term(scene(student, teacher, y, classes))
        assert loss.item() == pytest.approx(term(reduced).item(), rel=1e-12)
        (gradient,) = torch.autograd.grad(loss, student)
        assert gradient.isfinite().all()
        assert gradient[:, ~classes].eq(0).all()
        assert gradient[:, classes].abs().sum() > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_that_of_torch(smoothing: float) -> None:
    student, y = draw(7, 5), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    assert torch.allclose(CrossEntropy(smoothing)(scene(student, y=y)), F.cross_entropy(student, y, label_smoothing=smoothing))


def test_log_softmax_of_masked_classes_is_minus_infinity() -> None:
    logp = log_softmax(torch.zeros(1, 3), classes=torch.tensor([True, False, True]))
    assert logp.exp().tolist() == [pytest.approx([0.5, 0.0, 0.5])]


def test_the_divergence_of_one_hot_like_logits_stays_finite() -> None:
    student = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    loss = divergence(student, torch.tensor([[-1e4, 0.0, 1e4]]), 1.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_a_term_gets_the_logits_and_its_own_taps_of_the_teacher_and_nothing_else() -> None:
    term = Term()
    term.teacher_taps = ("a",)
    kept = term.target(View(torch.zeros(1, 2), {"a": torch.ones(1), "b": torch.ones(1)}))
    assert kept.at.keys() == {"a"}
