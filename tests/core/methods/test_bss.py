"""Oracles of boundary supporting samples: teachers whose boundary is a plane, the published step in its own space, who is attacked."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from core.anatomy import measure
from core.data import Domain
from core.errors import Refused
from core.method import Clock, Scene
from core.methods.bss import BSS, disagreement
from core.networks import parse
from core.random import uniforms
from core.taps import Tapped, View
from tests.core import toys
from tests.core.toys import DOMAIN, Toy, spec, tapped

UNIT = Domain(-100.0, 100.0, (0.0,), (1.0,))
"""Of data whose official step has eta = 0.3, and whose range is out of the way."""


def linear(*rows: Sequence[float], bias: Sequence[float] | None = None) -> Tapped:
    """A linear classifier with these weights."""
    network = parse({"family": "mlp", "input": [len(rows[0])], "hidden": [], "classes": len(rows)}).build()
    network.load_state_dict({"fc.weight": torch.tensor(rows), "fc.bias": torch.tensor(bias or [0.0] * len(rows))})
    return Tapped(network)


@dataclass
class Told:
    """What a term said of a batch, what it noted, and the boundary samples that it showed the student, none if it did not."""

    loss: Tensor
    notes: dict[str, float]
    x: Tensor


def tell(
    teacher: Tapped,
    x: Tensor,
    y: Sequence[int] | Tensor,
    *,
    student: Tapped | None = None,
    domain: Domain = UNIT,
    classes: Tensor | None = None,
    index: Tensor | None = None,
    key: int = 0,
    shown: Tensor | None = None,
    **parameters: Any,
) -> Told:
    """The term on a batch. The student is a copy of the teacher unless there is another; `shown` are logits in place of its own."""
    student = copy.deepcopy(teacher) if student is None else student
    ours = View(student(x).logits if shown is None else shown, {})
    asked: list[Tensor] = []
    probe = student.register_forward_pre_hook(lambda _, args: asked.append(args[0]))
    term = BSS.model_validate(parameters).lesson(measure(Toy()), measure(Toy())).train["bss"].term
    rows = torch.arange(len(x)) if index is None else index
    with torch.no_grad():
        theirs = term.target(teacher(x))
    scene = Scene(x, torch.as_tensor(y), rows, ours, theirs, student, teacher, classes, torch.tensor(key), domain)
    loss = term(scene)
    probe.remove()
    return Told(loss, {name: value.item() for name, value in scene.notes.items()}, asked[0] if asked else torch.empty(0))


def test_the_score_is_the_squared_difference_over_the_wrong_classes() -> None:
    student, teacher = torch.tensor([[0.5, 0.2, 0.3]]).log(), torch.tensor([[0.7, 0.2, 0.1]]).log()
    assert disagreement(student, teacher, torch.tensor([0])).item() == pytest.approx(0.04)
    assert disagreement(student, teacher, torch.tensor([2])).item() == pytest.approx(0.04)
    assert disagreement(student, teacher, torch.tensor([1])).item() == pytest.approx(0.08)


@pytest.mark.parametrize(("variant", "gap"), [("official", -3.50015), ("corrected", -1e-4)])
def test_on_a_plane_the_official_step_jumps_over_and_newtons_lands(variant: str, gap: float) -> None:
    # The first logit less the second is 3 a + 4 b, 7 at (1, 1). Official: 7 - 0.3 * 5 * 7.0001. It has crossed, so nine steps are left.
    told = tell(linear([3.0, 4.0], [0.0, 0.0]), torch.ones(1, 2), [0], variant=variant)
    assert (told.x @ torch.tensor([3.0, 4.0])).item() == pytest.approx(gap, abs=1e-5)
    assert told.notes == {"bss.usable": 1.0, "bss.iterations": 1.0, "bss.hit_rate": 1.0}
    assert (told.x[0, 0] - 1).item() / 3 == pytest.approx((told.x[0, 1] - 1).item() / 4)  # along the gradient


def test_where_the_official_step_is_short_the_gap_shrinks_by_the_same_factor_each_time() -> None:
    told = tell(linear([1.0, 0.0], [0.0, 0.0]), torch.tensor([[2.0, 0.5]]), [0], variant="official", iterations=4)
    expected = 2.0
    for _ in range(4):
        expected -= 0.3 * (expected + 1e-4)
    assert told.x.tolist() == [[pytest.approx(expected), 0.5]]
    assert told.notes == {"bss.usable": 1.0, "bss.iterations": 4.0, "bss.hit_rate": 0.0}
    assert not len(tell(linear([1.0, 0.0], [0.0, 0.0]), torch.tensor([[2.0, 0.5]]), [0], variant="official", require_hit=True).x)


def batch(n: int, *, seed: int = 0) -> tuple[Tapped, Tensor, Tensor]:
    """A teacher of three classes with a hidden layer, n samples, and what it says of them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        teacher = Tapped(parse({"family": "mlp", "input": [4], "hidden": [16], "classes": 3}).build())
        x = 2 * torch.randn(n, 4)
    return teacher, x, teacher(x).logits.argmax(1)


@pytest.mark.parametrize("variant", ["official", "corrected"])
def test_a_sample_ends_where_it_ends_alone_so_one_that_has_crossed_moves_no_more(variant: str) -> None:
    teacher, x, y = batch(12)
    together = tell(teacher, x, y, variant=variant, require_hit=False)
    for k in range(12):
        one = tell(teacher, x[k : k + 1], y[k : k + 1], index=torch.tensor([k]), variant=variant, require_hit=False)
        torch.testing.assert_close(one.x, together.x[k : k + 1])
    assert 1 < together.notes["bss.iterations"] < 10  # or there is nothing that ends early


def test_the_order_of_the_batch_does_not_matter_and_the_key_does() -> None:
    teacher, x, y = batch(40)
    student = batch(40, seed=1)[0]
    order = torch.arange(39, -1, -1)
    told = [tell(teacher, x[o], y[o], student=student, index=o, samples=5).loss.item() for o in (torch.arange(40), order)]
    assert told[0] == pytest.approx(told[1], rel=1e-5)
    others = {tell(teacher, x, y, student=student, samples=5, key=key).loss.item() for key in range(5)}
    assert len(others) > 1


def normalised_step(teacher: Tapped, x: Tensor, base: Tensor, target: Tensor, std: Tensor) -> Tensor:
    """One published step in the space of (x - 0.5) / std: the way that it takes there."""
    space = ((x - 0.5) / std).requires_grad_()
    logits = teacher.network(space)
    gap = logits.gather(1, base[:, None]) - logits.gather(1, target[:, None])
    (g,) = torch.autograd.grad(-gap.sum(), space)
    length = g.square().sum((1, 2, 3), keepdim=True).sqrt()
    moved: Tensor = (space + 0.3 * (gap[:, :, None, None] + 1e-4) * g / length).clamp(-2.5, 2.5)
    return (moved - space).detach()


@pytest.mark.parametrize(("std", "near"), [((0.2, 0.2, 0.2), 1e-4), ((0.2023, 0.1994, 0.2010), 0.015)])
def test_one_official_step_in_data_units_is_the_published_one_in_normalised_space(std: tuple[float, ...], near: float) -> None:
    # With one deviation for all channels it is the same; with CIFAR-10's three it is within 1.5 % of the way.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Toy(input=(3, 8, 8), classes=2).build().eval()
        x = torch.rand(6, 3, 8, 8)
    teacher, domain = Tapped(network, mean=[0.5] * 3, std=std), Domain(0.0, 1.0, (0.5,) * 3, std)
    base = teacher(x).logits.argmax(1)
    told = tell(teacher, x, base, variant="official", iterations=1, domain=domain)
    wide = torch.tensor(std)[:, None, None]
    expected = normalised_step(teacher, x, base, 1 - base, wide)
    gap = ((told.x - x) / wide - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert gap.max() < near
    assert expected.flatten(1).norm(dim=1).min() > 1e-3
    assert (gap.max() > 1e-3) == (near > 1e-3)


def test_the_official_clip_is_at_two_and_a_half_deviations_and_the_other_at_the_range_of_the_data() -> None:
    teacher, domain = linear([1.0, 1.0], [0.0, 0.0], bias=[9.0, 0.0]), Domain(-1.0, 0.75, (0.25, 0.0), (0.4, 0.2))
    official = tell(teacher, torch.zeros(1, 2), [0], variant="official", domain=domain, iterations=100)
    corrected = tell(teacher, torch.zeros(1, 2), [0], require_hit=False, domain=domain)
    assert official.x.tolist() == [[pytest.approx(0.25 - 1.0), pytest.approx(-0.5)]]
    assert corrected.x.tolist() == [[-1.0, -1.0]]


def test_a_sample_without_a_gradient_stays_where_it_is_and_nothing_becomes_infinite() -> None:
    flat = linear([0.0, 0.0], [0.0, 0.0], bias=[1.0, 0.0])
    for variant in ("official", "corrected"):
        told = tell(flat, torch.ones(3, 2), [0, 0, 0], variant=variant, require_hit=False)
        assert told.x.tolist() == [[1.0, 1.0]] * 3
        assert told.loss.item() == pytest.approx(0, abs=1e-6)


def test_who_is_attacked_is_classified_right_by_both() -> None:
    teacher, student = linear([1.0, 0.0], [0.0, 1.0]), linear([1.0, 0.0], [0.0, 1.0], bias=[0.0, 4.0])
    # Right by both; the teacher errs; the student errs; both err.
    x, y = torch.tensor([[1.0, 9.0], [9.0, 1.0], [3.0, 1.0], [9.0, 1.0]]), [1, 1, 0, 1]
    told = tell(teacher, x, y, student=student)
    assert told.x.tolist() == [[pytest.approx(5, abs=1e-3)] * 2]
    assert told.notes["bss.usable"] == 0.25


def test_where_there_are_too_many_those_stay_that_the_networks_disagree_on_most() -> None:
    teacher, student = linear([2.0, 0.0], [0.0, 0.0], bias=[0.0, 0.0]), linear([1.0, 0.0], [0.0, 0.0])
    # (q_t - q_s)^2 of the wrong class: largest where 2a and a give the most different probabilities, near a = 1.3.
    x = torch.tensor([[0.1, 1.0], [1.3, 2.0], [1.5, 3.0], [6.0, 4.0]])
    told = tell(teacher, x, [0] * 4, student=student, samples=2)
    assert sorted(told.x[:, 1].tolist()) == [2.0, 3.0]
    assert told.notes["bss.usable"] == 1.0


def test_a_sample_that_ends_in_a_third_class_counts_only_where_no_hit_is_required() -> None:
    # From 0 to the boundary of the third class at 2 one comes through the second, which begins at 1.
    teacher, n = linear([0.0], [1.0], [2.0], bias=[0.0, -1.0, -4.0]), 200
    # p of the second class is e^-1 / (e^-1 + e^-4); whoever draws it ends in it.
    hits = int((uniforms(torch.tensor(0), torch.arange(n))[:, 0] < 1 / (1 + math.exp(-3))).sum())
    assert 0 < hits < n
    for require, count in ((None, hits), (True, hits), (False, n)):
        told = tell(teacher, torch.zeros(n, 1), [0] * n, samples=n, require_hit=require)
        assert len(told.x) == count
        assert told.notes["bss.hit_rate"] == pytest.approx(hits / n)


def test_classes_without_data_are_neither_a_target_nor_an_answer() -> None:
    # The teacher finds the third class likeliest everywhere, but there is none of it.
    teacher = linear([1.0, 0.0], [0.0, 1.0], [0.0, 0.0], bias=[0.0, 0.0, 50.0])
    told = tell(teacher, torch.tensor([[3.0, 1.0]]), [0], classes=torch.tensor([True, True, False]))
    assert told.notes == {"bss.usable": 1.0, "bss.iterations": 1.0, "bss.hit_rate": 1.0}
    assert told.x.tolist() == [[pytest.approx(2, abs=1e-3)] * 2]
    assert told.loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("broken", [0.0, math.nan, math.inf])
def test_without_a_boundary_sample_the_loss_is_zero_with_a_path_to_the_student(broken: float) -> None:
    teacher = linear([1.0, 0.0], [0.0, 1.0])
    student_logits = torch.tensor([[0.0, 1.0], [broken, 1.0]], requires_grad=True)
    told = tell(teacher, torch.tensor([[3.0, 1.0], [5.0, 1.0]]), [0, 1], shown=student_logits)
    assert not len(told.x)
    assert told.notes == {"bss.usable": 0.0}
    assert told.loss.item() == 0
    (gradient,) = torch.autograd.grad(told.loss, student_logits)
    assert gradient.eq(0).all()


def test_boundary_samples_enter_the_students_statistics_but_a_lone_one_does_not() -> None:
    teacher = tapped(Toy(), (), seed=2).eval()
    x = torch.rand(6, *toys.SHAPE)
    y = teacher(x).logits.argmax(1)
    for n in (1, 2):
        student = copy.deepcopy(teacher).train()
        shown = teacher(x[:n]).logits
        before = student.network.get_buffer("bn1.running_mean").clone()
        told = tell(teacher, x[:n], y[:n], student=student, shown=shown, require_hit=False, domain=DOMAIN)
        assert len(told.x) == n
        told.loss.backward()  # type: ignore[no-untyped-call]
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in student.parameters())
        assert torch.equal(before, student.network.get_buffer("bn1.running_mean")) == (n == 1)
        assert all(module.training for module in student.modules())


def test_the_teacher_is_left_as_it_was_and_the_input_too() -> None:
    teacher, x = tapped(Toy(), (), seed=2).eval(), torch.rand(6, *toys.SHAPE)
    before, kept = x.clone(), {name: value.clone() for name, value in teacher.network.state_dict().items()}
    tell(teacher, x, teacher(x).logits.argmax(1), require_hit=False).loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in teacher.network.state_dict().items())
    assert torch.equal(x, before)
    assert not x.requires_grad


def test_its_weight_falls_from_two_to_nothing_at_three_quarters_as_published() -> None:
    weighted = BSS().lesson(measure(Toy()), measure(Toy())).train["bss"]
    for epoch in range(1, 81):
        published = max(2 * (1 - 4 / 3 * epoch / 80), 0)
        assert weighted.at(Clock(epoch - 1, 80, 0, 1)) == pytest.approx(published, abs=1e-12)
    assert weighted.at(Clock(59, 80, 0, 1)) == 0


def test_a_teacher_of_other_classes_is_refused() -> None:
    with pytest.raises(Refused, match="the teacher has 7 outputs, the student 3") as refused:
        toys.make(spec(BSS()), teacher=Toy(width=6, classes=7))
    assert refused.value.where == "/methods/0/name"


def test_training_brings_the_answers_at_given_boundary_samples_together() -> None:
    # Whom a step attacks changes as the student learns, so the term's own curve says little: hold the samples and measure again.
    teacher, x, y = batch(64)
    student = batch(64, seed=1)[0]
    first = tell(teacher, x, y, student=student)

    def apart() -> float:
        logp, logq = ((network(first.x).logits / 3).log_softmax(1) for network in (teacher, student))
        return float((logp.exp() * (logp - logq)).sum(1).mean().detach())

    before = apart()
    assert before == pytest.approx(first.loss.item(), rel=1e-4)
    optimiser = torch.optim.SGD(student.parameters(), lr=0.5)
    for _ in range(30):
        optimiser.zero_grad()
        tell(teacher, x, y, student=student).loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert apart() < before / 2
