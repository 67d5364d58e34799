"""Oracles of Jacobian matching: linear networks in closed form, whose output is differentiated, and what is left as it was."""

import math

import pytest
import torch
from torch import Tensor, nn

from core.anatomy import measure
from core.errors import Refused
from core.method import Scene
from core.methods.jacobian import Jacobian, Output, Slope
from core.networks import parse
from core.taps import Pair, Tapped
from tests.core import toys
from tests.core.methods.scenes import look
from tests.core.toys import DOMAIN, Toy, spec, tapped

LOGIT: list[Output] = ["label", "teacher"]


def linear(*rows: list[float], bias: list[float] | None = None) -> Tapped:
    """A linear classifier with these weights: the gradient of its logit k is row k."""
    network = parse({"family": "mlp", "input": [len(rows[0])], "hidden": [], "classes": len(rows)}).build()
    network.load_state_dict({"fc.weight": torch.tensor(rows), "fc.bias": torch.tensor(bias or [0.0] * len(rows))})
    return Tapped(network)


def matched(student: Tapped, teacher: Tapped, y: list[int], *, output: Output = "label", x: Tensor | None = None) -> Tensor:
    """The loss of the logits' gradients on inputs of zeros, or on x."""
    width = int(student.network.get_parameter("fc.weight").shape[1])
    x = torch.zeros(len(y), width) if x is None else x
    return look(Slope((), output), student, teacher.requires_grad_(False), x, torch.tensor(y))


def test_of_linear_networks_it_is_two_minus_twice_the_cosine() -> None:
    student, teacher = linear([3.0, 4.0], [1.0, 0.0]), linear([4.0, 3.0], [math.cos(2.0), math.sin(2.0)])
    assert matched(student, teacher, [0]).item() == pytest.approx(0.08)  # the cosine is 24 / 25
    assert matched(student, teacher, [1]).item() == pytest.approx(2 - 2 * math.cos(2.0))
    assert matched(student, teacher, [0, 0, 1]).item() == pytest.approx((0.08 * 2 + 2 - 2 * math.cos(2.0)) / 3)


def test_opposite_directions_cost_four_and_scaling_the_logits_nothing() -> None:
    teacher = linear([1.0, 2.0], [0.0, 1.0])
    assert matched(linear([-3.0, -6.0], [0.0, 1.0]), teacher, [0]).item() == pytest.approx(4.0)
    for scale in (0.01, 1.0, 1000.0):
        student = linear([0.5 * scale, -2.0 * scale], [0.0, 1.0])
        cosine = (0.5 - 4.0) / math.sqrt(4.25 * 5)
        assert matched(student, teacher, [0]).item() == pytest.approx(2 - 2 * cosine, rel=1e-5)


def test_the_teachers_largest_logit_is_one_of_a_class_that_the_data_has() -> None:
    # Output 2 is the teacher's largest everywhere, and absent; of the others it is 1, along whose gradient the student's lies.
    teacher = linear([4.0, 3.0], [1.0, 2.0], [1.0, 0.0], bias=[0.0, 1.0, 9.0]).requires_grad_(False)
    student = linear([-4.0, -3.0], [2.0, 4.0], [-1.0, 0.0])
    found = look(Slope((), "teacher"), student, teacher, torch.zeros(1, 2), torch.tensor([0]), classes=torch.tensor([True, True, False]))
    assert found.item() == pytest.approx(0.0, abs=1e-6)  # 4, the largest there is, along either of the other two


@pytest.mark.parametrize("output", ["label", "teacher", "maps"])
def test_one_network_has_no_distance_from_itself_and_no_gradient(output: Output) -> None:
    pairs = [Pair("relu1", "relu1"), Pair("relu2", "relu2")] if output == "maps" else []
    term = Slope(pairs, output)
    student, teacher = (tapped(Toy(), term.student_taps, seed=1).eval() for _ in range(2))
    found = look(term, student, teacher.requires_grad_(False), torch.rand(4, *toys.SHAPE), torch.tensor([0, 1, 2, 0]))
    assert found.item() == 0
    gradients = torch.autograd.grad(found, list(student.parameters()), allow_unused=True)
    assert all(gradient is None or gradient.eq(0).all() for gradient in gradients)


def test_both_networks_show_the_labels_logit() -> None:
    # Each network finds another class largest; only along the label's rows do they agree.
    student = linear([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], bias=[9.0, 0.0, 0.0])
    teacher = linear([0.0, -1.0], [-1.0, 0.0], [2.0, 2.0], bias=[0.0, 9.0, 0.0])
    assert matched(student, teacher, [2]).item() == pytest.approx(0, abs=1e-6)
    assert matched(student, teacher, [0]).item() == pytest.approx(2.0)


def test_with_the_teachers_output_both_show_the_logit_that_the_teacher_finds_largest() -> None:
    student = linear([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], bias=[9.0, 0.0, 0.0])
    teacher = linear([5.0, 5.0], [0.0, 3.0], [-1.0, -1.0], bias=[0.0, 9.0, 0.0])
    # Class 1: (0, 1) and (0, 3). The student's own choice would be (1, 0), the label's rows are opposite.
    assert matched(student, teacher, [2], output="teacher").item() == pytest.approx(0, abs=1e-6)
    assert matched(student, teacher, [2], output="label").item() == pytest.approx(4.0)


class Glance(nn.Module):
    """One map of one channel, w * x + b, and a sum of it as the logits."""

    def __init__(self, w: float, b: float) -> None:
        super().__init__()
        self.map = nn.Conv2d(1, 1, 1)
        nn.init.constant_(self.map.weight, w)
        nn.init.constant_(self.map.bias, b)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.map(x)
        return h.flatten(1).sum(1, keepdim=True)


def test_of_maps_both_show_the_place_where_the_teacher_attends_most() -> None:
    # The teacher's energies are 9 and 1; the student's, 0.01 and 3.61, are largest at the other place. At the teacher's place both
    # gradients point the same way, at two places they would be at right angles, and at the student's own they would be opposite.
    student, teacher = Tapped(Glance(1.0, -2.9), taps=["map"]), Tapped(Glance(1.0, 0.0), taps=["map"])
    x = torch.tensor([[[[3.0, 1.0]]]])
    assert look(Slope([Pair("map", "map")], "maps"), student, teacher, x, torch.tensor([0])).item() == pytest.approx(0, abs=1e-6)
    turned = Tapped(Glance(-1.0, 2.0), taps=["map"])  # 2 * (2 - 3) * -1 = 2: the same way
    assert look(Slope([Pair("map", "map")], "maps"), turned, teacher, x, torch.tensor([0])).item() == pytest.approx(0, abs=1e-6)
    against = Tapped(Glance(-1.0, 4.0), taps=["map"])  # 2 * (4 - 3) * -1 = -2: the other way
    assert look(Slope([Pair("map", "map")], "maps"), against, teacher, x, torch.tensor([0])).item() == pytest.approx(4.0)


def test_a_sample_without_a_gradient_costs_the_teachers_length_and_nothing_becomes_infinite() -> None:
    student = Tapped(parse({"family": "mlp", "input": [3], "hidden": [4], "classes": 2}).build())
    with torch.no_grad():
        student.network.get_parameter("linear1.bias").fill_(-100.0)
    teacher = linear([1.0, 0.0, 0.0], [0.0, 2.0, 0.0])
    found = matched(student, teacher, [0, 1], x=torch.rand(2, 3))
    assert found.item() == pytest.approx(1.0)
    gradients = torch.autograd.grad(found, list(student.parameters()), allow_unused=True)
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    assert matched(student, student, [0, 1], x=torch.rand(2, 3)).item() == 0


@pytest.mark.parametrize("output", ["label", "teacher", "maps"])
def test_both_forms_are_one_number_and_one_gradient(output: Output) -> None:
    pairs = [Pair("relu1", "relu1"), Pair("relu2", "relu2")] if output == "maps" else []
    found = []
    for form in ("double_backward", "tangent"):
        term = Slope(pairs, output, form)
        student = tapped(Toy(), term.student_taps, seed=1).double().eval()
        teacher = tapped(Toy(width=6), term.teacher_taps, seed=2).double().eval().requires_grad_(False)
        torch.manual_seed(0)
        loss = look(term, student, teacher, torch.rand(4, *toys.SHAPE).double(), torch.tensor([0, 1, 2, 0]))
        found.append((loss.item(), torch.autograd.grad(loss, list(student.parameters()), allow_unused=True)))
        assert term.facts() == {"form": form}
    (value, gradients), (other, others) = found
    assert other == pytest.approx(value, rel=1e-12)
    assert any(gradient is not None and gradient.abs().max() > 1e-4 for gradient in gradients)
    for one, another in zip(gradients, others, strict=True):
        zero = torch.zeros((), dtype=torch.float64)
        assert torch.allclose(zero if one is None else one, zero if another is None else another, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("output", LOGIT)
def test_samples_do_not_meet_and_every_mode_and_statistic_is_given_back(output: Output) -> None:
    student, teacher = tapped(Toy(dropout=0.5), (), seed=1).train(), tapped(Toy(width=6), (), seed=2).eval().requires_grad_(False)
    student.network.get_submodule("bn2").eval()
    modes = [module.training for module in student.modules()]
    x, y, term = torch.rand(4, *toys.SHAPE), torch.tensor([0, 1, 2, 0]), Slope((), output)
    with torch.random.fork_rng():
        shown = student(x)  # the step's own pass moves the statistics once
    statistics = {name: value.clone() for name, value in student.named_buffers()}
    kept = teacher(x)

    def asked(rows: slice) -> Tensor:
        n = len(x[rows])
        return term(Scene(x[rows], y[rows], torch.arange(n), shown, kept, student, teacher, None, torch.tensor(0), DOMAIN))

    together = asked(slice(0, 4)).item()
    assert together == pytest.approx(sum(asked(slice(k, k + 1)).item() for k in range(4)) / 4, rel=1e-5)
    assert [module.training for module in student.modules()] == modes
    assert all(torch.equal(value, statistics[name]) for name, value in student.named_buffers())


@pytest.mark.parametrize("output", ["label", "teacher", "maps"])
def test_no_gradient_reaches_the_teacher_or_the_input(output: Output) -> None:
    taps = ("relu1",) if output == "maps" else ()
    term = Slope([Pair(tap, tap) for tap in taps], output)
    student, teacher = tapped(Toy(), taps, seed=1), tapped(Toy(), taps, seed=2).requires_grad_(False)
    x = torch.rand(3, *toys.SHAPE)
    look(term, student, teacher, x, torch.tensor([0, 1, 2])).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert x.grad is None
    assert not x.requires_grad
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in student.parameters())


def test_a_teacher_of_other_classes_is_refused_for_logits_and_taken_for_maps() -> None:
    for output in LOGIT:
        with pytest.raises(Refused, match="the teacher has 7 outputs, the student 3") as refused:
            toys.make(spec(Jacobian(output=output)), teacher=Toy(width=6, classes=7))
        assert refused.value.where == "/methods/0/output"
        assert "maps" in refused.value.hint
    toys.play(toys.make(spec(Jacobian(output="maps")), teacher=Toy(width=6, classes=7)), freeze=False)


def test_pairs_belong_to_maps() -> None:
    with pytest.raises(Refused) as refused:
        toys.make(spec(Jacobian(pairs=(Pair("relu1", "relu1"),))))
    assert refused.value.where == "/methods/0/pairs"
    last = Jacobian(output="maps").lesson(measure(Toy(width=6)), measure(Toy())).train["jacobian"].term
    assert (last.teacher_taps, last.student_taps) == (("relu2",), ("relu2",))


def test_by_default_it_is_the_labels_logit_with_weight_one() -> None:
    weighted = Jacobian().lesson(measure(Toy()), measure(Toy())).train["jacobian"]
    assert isinstance(weighted.term, Slope)
    assert (weighted.term.output, weighted.weight, weighted.term.differentiates_input) == ("label", 1.0, True)
