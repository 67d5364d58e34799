"""Oracles of activation boundaries: the hinge by hand, the connectors and weights as published, and what the transfer moves."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.anatomy import measure
from core.bench import Bench
from core.errors import Refused
from core.events import Evaluated, Phase
from core.fit import fit
from core.methods.ab import AB, Boundaries, boundary
from core.methods.kd import KD
from core.run import run
from core.source import Live, Sources
from core.taps import Pair, Tapped
from tests.core import toys
from tests.core.methods.scenes import joint, loss, moved, state_of, transfer
from tests.core.toys import Job, Toy, ToyNet, spec, squares

LOW = (Pair("relu1:in", "relu1:in"),)


def planned(method: AB, *, width: int = 4) -> Any:
    """The one transfer fit of a method for a teacher of width 6."""
    (only,) = method.lesson(measure(Toy(width=6)), measure(Toy(width=width))).transfer
    return only


def test_the_hinge_and_its_gradient_by_hand() -> None:
    student = torch.tensor([[0.5, 2.0, -0.5, -3.0]], requires_grad=True)
    found = loss(
        Boundaries([joint((4,), (4,))], [1.0], 1.0), student={"s1": student}, teacher={"t1": torch.tensor([[1.0, 1.0, -1.0, -1.0]])}
    )
    assert found.item() == 0.5
    assert torch.autograd.grad(found, student)[0].tolist() == [[-1.0, 0.0, 1.0, 0.0]]


def test_it_is_zero_exactly_where_every_sign_agrees_beyond_the_margin() -> None:
    active = torch.tensor([[True, False]])
    for values, margin in [([1.0, -1.0], 1.0), ([7.0, -1.5], 1.0), ([0.5, -0.5], 0.5)]:
        assert boundary(torch.tensor([values]), active, margin).item() == 0
    for values, margin in [([0.99, -1.0], 1.0), ([1.0, -0.99], 1.0), ([-7.0, -7.0], 1.0), ([0.5, -0.5], 0.6)]:
        assert boundary(torch.tensor([values]), active, margin).item() > 0


def test_only_the_signs_of_the_teacher_count_and_zero_is_inactive() -> None:
    made = Boundaries([joint((3, 2, 2), (3, 2, 2))], [1.0], 1.0)
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    found = loss(made, student={"s1": student}, teacher={"t1": teacher})
    assert loss(made, student={"s1": student}, teacher={"t1": 100 * teacher}) == found
    zeros, ones = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    assert loss(made, student={"s1": -ones}, teacher={"t1": zeros}).item() == 0
    assert loss(made, student={"s1": ones}, teacher={"t1": zeros}).item() == 12 * 2**2


def test_it_is_the_papers_form_with_two_relus() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3, 4, 4, dtype=torch.float64) * 2, torch.randn(5, 3, 4, 4)
    rho = (teacher > 0).double()
    paper = (rho * F.relu(1.5 - student) + (1 - rho) * F.relu(1.5 + student)).square().sum() / 5
    assert boundary(student, teacher > 0, 1.5).item() == pytest.approx(paper.item(), rel=1e-14)


def test_a_connector_is_the_published_one_and_absent_where_the_widths_are_equal() -> None:
    torch.manual_seed(0)
    same, other = Boundaries([joint((64, 2, 2), (64, 2, 2)), joint((256, 2, 2), (64, 2, 2), k=2)], [1.0, 1.0], 1.0).connectors
    assert isinstance(same, nn.Identity)
    convolution, norm = other.children()
    assert isinstance(convolution, nn.Conv2d)
    assert (tuple(convolution.weight.shape), convolution.bias) == ((256, 64, 1, 1), None)
    assert convolution.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.weight.eq(1).all()
    assert norm.bias.eq(0).all()
    assert list(Boundaries([joint((4, 2, 2), (4, 2, 2))], [1.0], 1.0).parameters()) == []


def test_the_deepest_layer_weighs_one_and_each_before_it_half_as_much() -> None:
    joints = [joint((1,), (1,), k=k) for k in (1, 2, 3)]
    student = {f"s{k}": torch.zeros(2, 1) for k in (1, 2, 3)}  # a hinge of 1 for each sample and layer
    teacher = {f"t{k}": torch.ones(2, 1) for k in (1, 2, 3)}
    three = (Pair("conv1", "conv1"), Pair("bn1", "bn1"), Pair("relu1:in", "relu1:in"))
    only = planned(AB(pairs=three), width=6)
    assert only.terms["ab"].term.weights == (0.25, 0.5, 1.0)
    assert only.terms["ab"].weight == 3 / 1000
    assert loss(Boundaries(joints, only.terms["ab"].term.weights, 1.0), student=student, teacher=teacher).item() == 1.75
    assert planned(AB(layer_weights=(3.0, 0.0))).terms["ab"].term.weights == (3.0, 0.0)


@pytest.mark.parametrize("weights", [(), (1.0,), (1.0, 1.0, 1.0)])
def test_a_wrong_number_of_layer_weights_is_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(Refused, match=f"{len(weights)} weights for 2 pairs") as refused:
        toys.make(spec(AB(layer_weights=weights)))
    assert refused.value.where == "/methods/0/layer_weights"


def test_layer_weights_of_zeros_alone_are_refused() -> None:
    with pytest.raises(Refused, match="nothing to learn") as refused:
        toys.make(spec(AB(layer_weights=(0.0, 0.0))))
    assert refused.value.where == "/methods/0/layer_weights"


class Functional(nn.Module):
    """Two sizes, and ReLUs that are no modules."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3)))
        return logits


class FunctionalToy(Toy):
    network: ClassVar[type[nn.Module]] = Functional


def test_a_network_without_activation_modules_is_refused_by_name() -> None:
    with pytest.raises(Refused, match=r"the student's stage 'conv1' at 8x8 is followed by no activation module") as refused:
        toys.make(spec(AB()), student=FunctionalToy())
    assert refused.value.where == "/methods/0/pairs"


def test_maps_of_unequal_sizes_are_refused_at_their_pair() -> None:
    with pytest.raises(Refused, match=r"\(6, 8, 8\).*\(8, 4, 4\)") as refused:
        toys.make(spec(AB(pairs=(*LOW, Pair("relu1:in", "relu2:in")))))
    assert refused.value.where == "/methods/0/pairs/1"


def statistics(network: Tapped | None) -> dict[str, Tensor]:
    assert network is not None
    return {name: value for name, value in state_of(network).items() if "running" in name or "tracked" in name}


@pytest.mark.parametrize("variant", ["corrected", "official"])
def test_only_the_official_transfer_moves_the_teachers_statistics(variant: str) -> None:
    job = toys.make(spec(AB.model_validate({"epochs": 1, "variant": variant}), KD()))
    assert job.teacher is not None
    before = state_of(job.teacher)
    transfer(job)
    drifted = set(statistics(job.teacher)) if variant == "official" else set()
    assert moved(before, state_of(job.teacher)) == drifted


def test_after_the_official_transfer_the_teacher_is_in_eval_mode_again() -> None:
    job = toys.make(spec(AB(epochs=1, variant="official"), KD()))
    transfer(job)
    assert job.teacher is not None
    assert not any(module.training for module in job.teacher.modules())
    before = state_of(job.teacher)
    bench = Bench(job.plan.fits, job.plan.per_epoch, job.student, job.teacher, seed=0)
    bench.enter(1)
    for _ in fit(bench, Live(job.sources.fits[1], job.teacher), None):
        pass
    assert moved(before, state_of(job.teacher)) == set()


def test_the_official_transfer_empties_the_momentum_at_three_quarters_and_keeps_the_rate() -> None:
    recipe = planned(AB(epochs=20, variant="official", lr=0.1)).recipe
    assert [step for step in range(400) if recipe.restarts(step, 400)] == [300]
    assert len({recipe.rate(step, 400) for step in range(400)}) == 1
    corrected = planned(AB(epochs=20)).recipe
    assert not any(corrected.restarts(step, 400) for step in range(400))


def test_the_transfer_never_touches_the_classifier() -> None:
    job = toys.make(spec(AB(epochs=2)))
    before = state_of(job.student)
    transfer(job)
    after = moved(before, state_of(job.student))
    assert {name for name in after if name.startswith("fc")} == set()
    assert {"conv1.weight", "bn1.weight", "conv2.weight", "bn2.running_mean"} <= after


def test_after_each_epoch_of_the_transfer_the_similarity_of_held_out_data_is_told_as_a_plain_count_finds_it() -> None:
    job = toys.make(spec(AB(epochs=2)))
    # More samples than one evaluation batch of 512 holds: two batches of unequal size.
    held = squares(600, first=100, seed=5)
    job = Job(job.plan, job.teacher, job.student, Sources(job.sources.fits, held, job.sources.test))
    assert job.teacher is not None
    term: Any = job.plan.fits[0].terms["ab"].term
    epochs = []
    for event in run(job.plan, job.teacher, job.student, job.sources, keep=lambda _: None):
        if isinstance(event, Evaluated):
            assert event.split == "validation"
            epochs.append(event.epoch)
            theirs, ours = activations(job.teacher, 6), activations(job.student, 4)
            for k, connector in enumerate(term.connectors):
                convolution, norm = connector
                s = F.conv2d(ours[k], convolution.weight)
                s = normed(s, norm) > 0
                same = np.equal(s.detach().numpy(), theirs[k].detach().numpy() > 0).mean()
                assert event.values[f"ab.similarity{k + 1}"] == pytest.approx(same, abs=2e-5)
            assert "ab.similarity3" not in event.values
        elif isinstance(event, Phase) and event.phase == "train":
            break
    assert epochs == [0, 1]


def activations(network: Tapped, width: int) -> list[Tensor]:
    """The pre-activations of 600 squares, with nothing but torch's own functions and running statistics."""
    rows, plain = squares(600, first=100, seed=5), ToyNet(into=2, width=width, dropout=0.0, classes=3)
    plain.load_state_dict(network.network.state_dict())
    x = (torch.from_numpy(np.array(rows.bank)).permute(0, 3, 1, 2).float() / 255 - 0.3) / 0.2
    first = normed(F.conv2d(x, plain.conv1.weight, padding=1), plain.bn1)
    return [first, normed(F.conv2d(first.relu(), plain.conv2.weight, stride=2, padding=1), plain.bn2)]


def normed(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps)
