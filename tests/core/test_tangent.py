"""A network's tangent against autograd's own derivatives, over every family; and what has none is told apart."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import Refused
from core.networks import families, parse
from core.tangent import Nonlinear, linearise, look
from core.taps import Tapped
from tests.core.declared import node, required

SMALL: dict[str, dict[str, Any]] = {
    "convnet": {"channels": [3, 5, 4]},
    "graph": required("graph", 4),
    "mlp": {"hidden": [7, 6]},
    "mobilenetv2": {"width": 0.25},
    "resnet": {"depth": 8, "shortcut": "project"},
    "shufflenetv2": {"size": 0.5},
    "vgg": {"depth": 8},
    "wrn": {"depth": 10},
}
"""Of each family a network small enough for a test; a new family must be added here."""


BRANCHES = [
    node("conv1", "conv2d", channels=3, kernel=3, stride=2, padding=1),
    node("relu1", "relu"),
    node("up", "upsample", mode="bilinear"),
    node("conv2", "conv2d", "input", channels=3, kernel=2, padding=1),
    node("leaky", "leaky_relu"),
    node("both", "concat", "leaky", "up"),
    node("pool", "max_pool", kernel=3, stride=2, ceil=True),
    node("flatten", "flatten"),
    node("fc", "linear", features=4),
]


def network(family: str, **more: Any) -> Tapped:
    """A float64 network of this family with statistics and weights of no special value, normalising its input."""
    torch.manual_seed(0)
    made = parse({"family": family, "input": [2, 9, 9], "classes": 4, **SMALL[family], **more}).build().double()
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name or "weight" in name else 0.3 * torch.randn_like(tensor))
    return Tapped(made, mean=[0.4, 0.5], std=[0.2, 0.3]).double()


def test_every_family_has_a_network_here() -> None:
    assert set(SMALL) == {name for name, family in families().items() if not family.needs}


def test_a_network_of_timm_adds_in_place_so_its_penalty_is_differentiated_twice() -> None:
    tapped = Tapped(parse({"family": "timm", "input": [2, 9, 9], "classes": 4, **required("timm", 4)}).build())
    x = torch.rand(2, 2, 9, 9)
    with pytest.raises(Nonlinear) as unknown:
        linearise(tapped, x)
    assert unknown.value.function == "add_"
    assert look(tapped, x, "auto")[1] is None


@pytest.mark.parametrize(
    ("family", "more"),
    [*((name, {}) for name in SMALL), ("resnet", {"shortcut": "pad"}), ("wrn", {"dropout": 0.5}), ("graph", {"nodes": BRANCHES})],
)
def test_along_a_direction_outputs_and_parameters_have_autograds_derivatives(family: str, more: dict[str, Any]) -> None:
    tapped = network(family, **more).train()
    x, u, c = torch.rand(3, 2, 9, 9).double().requires_grad_(), torch.randn(3, 2, 9, 9).double(), torch.randn(3, 4).double()
    shown, along = linearise(tapped, x)
    moved = along(u).logits
    with tapped.quiet():
        plain = tapped(x).logits
    assert torch.equal(shown.logits, plain)
    # Twice backward: first to the image with a graph, then along u.
    (gradient,) = torch.autograd.grad(plain, x, c, create_graph=True)
    expected = (gradient * u).sum((1, 2, 3))
    assert ((c * moved).sum(1) - expected).abs().max() <= 1e-10 * expected.abs().max()
    parameters = [parameter for parameter in tapped.parameters() if parameter.requires_grad]
    ours = torch.autograd.grad((c * moved).sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad(expected.sum(), parameters, allow_unused=True)
    # The gradients of a deep network with small weights are small: what counts is how they compare with the largest.
    largest = max(gradient.abs().max() for gradient in theirs if gradient is not None)
    assert largest > 0
    for one, other in zip(ours, theirs, strict=True):
        zero = torch.zeros((), dtype=torch.float64)
        assert ((zero if one is None else one) - (zero if other is None else other)).abs().max() <= 1e-10 * largest
    assert tapped.training


def test_taps_move_along_as_the_outputs_do() -> None:
    tapped = Tapped(network("convnet").network, taps=["block1", "block2.relu:in"]).double()
    x, u, h = torch.rand(2, 2, 9, 9).double(), torch.randn(2, 2, 9, 9).double(), 1e-6
    _, along = linearise(tapped, x)
    moved = along(u).at
    with torch.no_grad(), tapped.quiet():
        ahead, behind = tapped(x + h * u).at, tapped(x - h * u).at
    for tap in tapped.taps:
        # Between kinks the difference quotient is exact; the few entries where it crosses one are left out.
        quotient = (ahead[tap] - behind[tap]) / (2 * h)
        assert ((quotient - moved[tap]).abs() < 1e-6).double().mean() > 0.99


class Plain(nn.Module):
    """A network that calls one function, then sums."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.fc(self.function(x))
        return h


LINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "a constant more": lambda x: x + 3.0,
    "a constant less": lambda x: x - torch.ones(4),
    "scaled": lambda x: x * 2.0,
    "divided": lambda x: x / torch.tensor([1.0, 2.0, 3.0, 4.0]),
    "kept": lambda x: F.dropout(x, 0.5, training=False),
    "padded": lambda x: F.pad(x[:, :2], (1, 1)),
    "joined": lambda x: torch.cat([x[:, 2:], x[:, :2]], 1),
    "cut off": lambda x: F.relu6(x * 4.0),
    "bent": lambda x: F.leaky_relu(x, 0.3),
}


@pytest.mark.parametrize("name", LINEAR)
def test_what_is_linear_between_kinks_is_replayed(name: str) -> None:
    torch.manual_seed(0)
    tapped = Tapped(Plain(LINEAR[name])).double()
    x, u = torch.randn(5, 4).double().requires_grad_(), torch.randn(5, 4).double()
    _, along = linearise(tapped, x)
    _, expected = torch.autograd.functional.jvp(lambda z: tapped(z).logits, x, u)  # type: ignore[no-untyped-call]
    assert torch.allclose(along(u).logits, expected, rtol=1e-12, atol=1e-12)


BENT: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "mul": lambda x: x * x,
    "softmax": lambda x: F.softmax(x, 1),
    "abs": torch.abs,
    "gelu": F.gelu,
    "pad": lambda x: F.pad(x[:, :3], (0, 1), value=2.0),
    "div": lambda x: x / x.mean(1, keepdim=True),
    "max_pool2d": lambda x: torch.max_pool2d(x[:, None, None], (1, 1)).flatten(1),
    "to": lambda x: (4 * x).to(torch.int64).to(torch.float32),
}


def test_a_division_that_rounds_has_no_tangent() -> None:
    with pytest.raises(Nonlinear, match="div"):
        linearise(Tapped(Plain(lambda x: torch.div(x, 0.3, rounding_mode="floor"))), torch.rand(2, 4))


@pytest.mark.parametrize("name", BENT)
def test_what_has_no_tangent_here_is_named_and_auto_does_without(name: str) -> None:
    tapped, x = Tapped(Plain(BENT[name])), torch.rand(2, 4)
    with pytest.raises(Nonlinear) as unknown:
        linearise(tapped, x)
    assert unknown.value.function == name
    shown, along = look(tapped, x, "auto")
    assert along is None
    assert torch.equal(shown.logits, tapped(x).logits)
    with pytest.raises(Refused, match=f"'{name}'") as refused:
        look(tapped, x, "tangent")
    assert "double backward" in refused.value.hint


def test_double_backward_is_had_by_asking() -> None:
    x = torch.rand(2, 2, 9, 9).double()
    assert look(network("convnet"), x, "double_backward")[1] is None
    assert look(network("convnet"), x, "auto")[1] is not None
