"""Oracles of FitNet: hints compared by hand, the regressor's shape, and what the first stage leaves alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.anatomy import Anatomy, measure
from core.errors import Refused
from core.method import Term
from core.methods.fitnet import Fitnet, hint_loss
from core.networks import parse
from core.taps import Pair, Tapped
from tests.core import toys
from tests.core.methods.scenes import look, moved, state_of, transfer
from tests.core.toys import Toy, spec, tapped

TEACHER, STUDENT = measure(Toy(width=6)), measure(Toy(width=4))
LOW = (Pair("relu1", "relu1"),)


def term(method: Fitnet, teacher: Anatomy = TEACHER, student: Anatomy = STUDENT) -> Any:
    """The term of a method's only fit."""
    lesson = method.lesson(teacher, student)
    return (lesson.train if method.joint else lesson.transfer[0].terms)["fitnet"].term


def regressor(method: Fitnet, teacher: Anatomy = TEACHER, student: Anatomy = STUDENT) -> Any:
    return term(method, teacher, student).regressors[0]


def twins() -> tuple[Tapped, Tapped, Tensor, Tensor]:
    """One network twice, in eval mode, and a batch."""
    student, teacher = (tapped(Toy(width=6), ("relu1",), seed=1).eval() for _ in range(2))
    torch.manual_seed(0)
    return student, teacher, torch.rand(5, *toys.SHAPE), torch.zeros(5, dtype=torch.int64)


def identity(of: Term) -> Term:
    """The term, its regressors set to pass every channel on."""
    for module in of.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return of


@pytest.mark.parametrize("variant", ["corrected", "official"])
def test_identical_networks_behind_an_identity_regressor_have_no_loss_and_no_gradient(variant: str) -> None:
    made = identity(term(Fitnet.model_validate({"pairs": LOW, "variant": variant}), TEACHER, TEACHER))
    student, teacher, x, y = twins()
    found = look(made, student, teacher, x, y)
    assert found.item() == 0
    gradients = torch.autograd.grad(found, list(student.parameters()), allow_unused=True)
    assert all(gradient is None or gradient.eq(0).all() for gradient in gradients)


def test_a_constant_answer_to_a_hint_of_zeros_costs_half_its_square() -> None:
    for c in (3.0, -0.5):
        assert hint_loss(torch.full((2, 3, 4, 5), c), torch.zeros(2, 3, 4, 5)).item() == c * c / 2


def test_the_official_form_sums_over_the_rows_of_maps_and_over_vectors() -> None:
    # Halved squares 0.5 2 / 4.5 8: the columns sum to 5 and 10, their mean is 7.5; the mean of all four is 3.75.
    hint = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert hint_loss(torch.zeros_like(hint), hint, rows=True).item() == 7.5
    assert hint_loss(torch.zeros_like(hint), hint).item() == 3.75
    # It is the height that is summed over: six halved squares of 1 in every column.
    tall = torch.ones(2, 3, 6, 1)
    assert hint_loss(torch.zeros_like(tall), tall, rows=True).item() == 3.0
    vectors = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    assert hint_loss(torch.zeros_like(vectors), vectors, rows=True).item() == pytest.approx((2.5 + 4.5) / 2)


def test_the_term_of_the_official_variant_is_the_height_of_the_hint_times_the_other() -> None:
    student, teacher, x, y = twins()
    with torch.no_grad():
        student.network.get_parameter("bn1.bias").add_(0.5)
    corrected, official = (
        identity(term(Fitnet.model_validate({"pairs": LOW, "variant": variant}), TEACHER, TEACHER)) for variant in ("corrected", "official")
    )
    found = look(corrected, student, teacher, x, y).item()
    assert found > 0
    assert look(official, student, teacher, x, y).item() == pytest.approx(8 * found)


@pytest.mark.parametrize(
    ("pair", "shape"),
    [(Pair("relu1", "relu1"), (6, 4, 1, 1)), (Pair("relu2", "relu1"), (12, 4, 5, 5)), (Pair("relu2", "relu2"), (12, 8, 1, 1))],
)
def test_the_kernel_makes_the_sizes_meet_without_padding(pair: Pair, shape: tuple[int, ...]) -> None:
    for variant in ("corrected", "official"):
        convolution, relu = regressor(Fitnet.model_validate({"pairs": (pair,), "variant": variant}))
        assert (tuple(convolution.weight.shape), convolution.padding, convolution.stride) == (shape, (0, 0), (1, 1))
        assert isinstance(relu, nn.ReLU)
    assert isinstance(regressor(Fitnet(pairs=(pair,), activation="none")), nn.Conv2d)


def test_vectors_have_a_linear_regressor() -> None:
    teacher, student = (measure(parse({"family": "mlp", "input": [5], "hidden": [width], "classes": 3})) for width in (7, 4))
    linear, _ = regressor(Fitnet(pairs=LOW), teacher, student)
    assert tuple(linear.weight.shape) == (7, 4)


def test_the_official_regressor_is_drawn_as_published_and_absent_between_equal_shapes() -> None:
    # pylearn2's layers start without a bias, and the published script adds no layer where shape and channels agree.
    convolution, _ = regressor(Fitnet(pairs=(Pair("relu2", "relu1"),), variant="official"))
    assert convolution.weight.abs().max() <= 0.05
    assert convolution.weight.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.05)
    assert convolution.bias.eq(0).all()
    assert isinstance(regressor(Fitnet(pairs=LOW, variant="official"), TEACHER, TEACHER), nn.Identity)
    assert isinstance(regressor(Fitnet(pairs=LOW), TEACHER, TEACHER)[0], nn.Conv2d)


def test_a_guided_map_smaller_than_the_hint_is_refused_by_name() -> None:
    with pytest.raises(Refused, match=r"\(6, 8, 8\).*\(8, 4, 4\)") as refused:
        toys.make(spec(Fitnet(pairs=(*LOW, Pair("relu1", "relu2")))))
    assert refused.value.where == "/methods/0/pairs/1"


def test_the_first_stage_leaves_everything_above_the_guided_layer_as_it_was_statistics_included() -> None:
    job = toys.make(spec(Fitnet(epochs=3, pairs=LOW)))
    before = state_of(job.student)
    transfer(job)
    guided = {"conv1.weight", *(f"bn1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))}
    assert moved(before, state_of(job.student)) == guided


def test_the_default_hint_is_what_the_activation_behind_the_middle_stage_gives() -> None:
    networks = [measure(parse({"family": "wrn", "depth": 10, "input": [3, 16, 16], "classes": 10, "widen": widen})) for widen in (2, 1)]
    made = term(Fitnet(), *networks)
    assert (made.teacher_taps, made.student_taps) == (("block3.0.relu1",), ("block3.0.relu1",))


def test_joint_puts_the_term_into_the_training_and_makes_no_fit() -> None:
    lesson = Fitnet(joint=True, weight=7.0).lesson(TEACHER, STUDENT)
    assert (lesson.transfer, list(lesson.train), lesson.train["fitnet"].weight) == ((), ["fitnet"], 7.0)
    two = Fitnet(epochs=4, lr=0.3).lesson(TEACHER, STUDENT)
    assert (dict(two.train), [(list(fit.terms), fit.recipe.epochs, fit.lr) for fit in two.transfer]) == ({}, [(["fitnet"], 4, 0.3)])
