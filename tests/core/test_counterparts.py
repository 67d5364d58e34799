"""Which tensors two networks have in common, and what the layers between must do."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from core.anatomy import measure
from core.counterparts import Counterparts, counterparts
from core.errors import Refused
from core.networks import Family
from tests.core.growing import family, zoo


def found(teacher: Family, student: Family) -> Counterparts:
    return counterparts(measure(teacher), measure(student))


def test_a_network_and_itself_have_every_tensor_in_common() -> None:
    network = zoo("resnet", depth=14)
    held = found(network, network)
    assert held.tensors == {number: number for number in range(len(measure(network).graph) + 1)}
    assert (held.passing, held.vanishing) == ((), ())


def test_new_layers_in_a_chain_hand_on_what_they_are_given() -> None:
    held = found(zoo("vgg", depth=8), zoo("vgg", depth=11))
    new = [f"block{k}.1.{layer}" for k in (3, 4, 5) for layer in ("conv", "bn")]
    assert [node.layer for node in held.passing] == new
    assert held.vanishing == ()


@pytest.mark.parametrize(
    ("teacher", "student", "last"),
    [
        (zoo("resnet", depth=8), zoo("resnet", depth=20), "layer{}.{}.bn2"),
        (zoo("wrn", depth=10), zoo("wrn", depth=22, dropout=0.3), "block{}.{}.conv2"),
    ],
)
def test_a_new_residual_branch_vanishes_at_its_last_layer(teacher: Family, student: Family, last: str) -> None:
    held = found(teacher, student)
    assert [node.layer for node in held.vanishing] == [last.format(k, n) for k in (1, 2, 3) for n in (1, 2)]
    assert held.passing == ()


class Branched(nn.Module):
    """A perceptron with a branch of one layer, that may begin and end in several ways."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.fc = nn.Linear(4, 4), nn.Linear(4, 3)
        if kind:
            self.new = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        match self.kind:
            case "closed":  # the ReLU's gradient at 0 is 0: a branch of zeros could never learn
                h = h + self.new(h).relu()
            case "read twice":
                g = self.new(h)
                h = (h + g) * g
            case "doubled":
                h = h + h
            case "elsewhere":
                h = h + self.new(x)
            case "scaled":
                h = h * torch.full((4,), 2.0, device=x.device)
        logits: Tensor = self.fc(h)
        return logits


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("closed", "'add' at '' is not in the teacher"),
        ("read twice", "what the new layer 'new' gives is added, and read elsewhere too"),
        ("doubled", "'add' at ''"),
        ("elsewhere", "the new layer 'new' is added to something else than it begins from"),
        ("scaled", "'mul' at ''"),
    ],
)
def test_what_would_change_the_function_is_refused(kind: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        found(family(partial(Branched, ""), (4,)), family(partial(Branched, kind), (4,)))


class Kernels(nn.Module):
    def __init__(self, *new: nn.Module) -> None:
        super().__init__()
        self.first, self.new = nn.Conv2d(2, 4, 3), nn.Sequential(*new)
        self.pool, self.flatten, self.fc = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.flatten(self.pool(self.new(self.first(x)))))
        return logits


@pytest.mark.parametrize(
    ("new", "passes"),
    [
        (partial(nn.Conv2d, 4, 4, 3, padding=1), True),
        (partial(nn.Conv2d, 4, 4, 1), True),
        (partial(nn.Conv2d, 4, 4, (1, 5), padding=(0, 2)), True),
        (partial(nn.Conv2d, 4, 4, 2), False),
        (partial(nn.Conv2d, 4, 4, 3), False),
        (partial(nn.Conv2d, 4, 4, 3, padding=1, groups=2), False),
        (partial(nn.Conv2d, 4, 4, 3, padding=1, padding_mode="reflect"), False),
        (partial(nn.BatchNorm2d, 4), True),
        (partial(nn.BatchNorm2d, 4, affine=False), False),
        (partial(nn.GroupNorm, 2, 4), False),
        (partial(nn.MaxPool2d, 3, 1, 1), False),
    ],
)
def test_which_layers_can_hand_on_what_they_are_given(new: partial[nn.Module], passes: bool) -> None:
    teacher, student = family(Kernels), family(lambda: Kernels(new()))
    if passes:
        assert [node.layer for node in found(teacher, student).passing] == ["new.0"]
    else:
        with pytest.raises(Refused, match=r"new\.0|'pad'|'max_pool2d'"):
            found(teacher, student)


def test_a_pooling_of_one_pixel_changes_nothing_unless_it_averages_with_zeros_around() -> None:
    once, twice = family(Kernels), family(lambda: Kernels(nn.AdaptiveAvgPool2d(1), nn.MaxPool2d(2, ceil_mode=True)))
    assert found(once, twice).passing == ()
    padded = family(lambda: Kernels(nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(3, 1, 1)))
    with pytest.raises(Refused, match=r"'avg_pool2d' at 'new\.1'"):
        found(once, padded)
