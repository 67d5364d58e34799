"""The trace against the whole Hessian, entry by entry: value and gradient, where it is exact and where it is estimated."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from core.errors import Refused
from core.method import Scene
from core.random import key_of
from core.taps import Tapped
from core.trace import Curvature, Form, NotAffine, closed_form, hutchinson, trace
from tests.core.toys import DOMAIN

Y = torch.tensor([0, 2, 2])
FEWER = torch.tensor([True, False, True])


def learning(network: Tapped) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def whole(network: Tapped, x: Tensor, classes: Tensor | None = None, y: Tensor = Y) -> tuple[Tensor, Tensor]:
    """The trace of the whole Hessian, each entry a second derivative, and the gradient of the trace."""
    weights = learning(network)
    sizes = [weight.numel() for weight in weights.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = {name: part.view_as(weights[name]) for name, part in zip(weights, torch.split(flat, sizes), strict=True)}
        logits = functional_call(network, parts, (x,)).logits
        return F.cross_entropy(logits if classes is None else logits.masked_fill(~classes, -torch.inf), y)

    flat = torch.cat([weight.detach().flatten() for weight in weights.values()]).requires_grad_()
    found = torch.autograd.functional.hessian(loss, flat, create_graph=True).trace()  # type: ignore[no-untyped-call]
    (gradient,) = torch.autograd.grad(found, flat)
    return found.detach(), gradient


def gradient_of(found: Tensor, network: Tapped) -> Tensor:
    gradients = torch.autograd.grad(found, list(learning(network).values()), materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


class Residual(nn.Module):
    """Convolutions of every kind, a sum around one of them, a batch norm, poolings, three activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.depthwise = nn.Conv2d(4, 4, 2, stride=2, groups=4)
        self.small = nn.Conv2d(4, 3, 3, padding=1)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = F.relu(self.norm(self.first(x)))
        h = F.max_pool2d(h + F.relu6(self.grouped(h)), 2)
        h = F.leaky_relu(self.depthwise(h), 0.2)
        return self.head(self.small(h).flatten(1))  # type: ignore[no-any-return]


class Rows(nn.Module):
    """A linear layer that is called on each row of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.head = nn.Linear(8, 2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.rows(x)).mean(2).flatten(1))  # type: ignore[no-any-return]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "a perceptron": lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 2), nn.ReLU(), nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)),
    "a convnet": lambda: nn.Sequential(
        nn.Conv2d(2, 2, 3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(2, 3, 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 3),
    ),
    "a residual network": Residual,
    "rows": lambda: nn.Sequential(Rows()),
    "normalised features": lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 3)),
}


def made(build: Callable[[], nn.Module], *, frozen: str | None = None) -> Tapped:
    """A network in float64 that normalises its input, with statistics of no special value."""
    torch.manual_seed(0)
    network = Tapped(build(), mean=[0.3], std=[0.2]).double().train()
    for name, buffer in network.network.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) + (0.5 if "var" in name else 0.0))
    if frozen:
        network.network.get_submodule(frozen).requires_grad_(False)
    return network


def images() -> Tensor:
    return torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(1)).double()


def scene(network: Tapped, x: Tensor, *, classes: Tensor | None = None, y: Tensor = Y, index: int = 0) -> Scene:
    rows = torch.arange(len(x)) + index
    with network.quiet():
        shown = network(x)
    return Scene(x, y, rows, shown, None, network, None, classes, key_of("trace"), domain=DOMAIN)


@pytest.mark.parametrize("classes", [None, FEWER], ids=["all classes", "two of three"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_closed_form_is_the_trace_of_the_whole_hessian(name: str, classes: Tensor | None) -> None:
    network, x = made(NETWORKS[name]), images()
    found = closed_form(network, x, classes)
    gradient = gradient_of(found, network)
    value, expected = whole(network.eval(), x, classes)
    assert value > 0.1
    assert found.item() == pytest.approx(value.item(), rel=1e-9)
    assert (gradient - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_weights_that_do_not_learn_do_not_count() -> None:
    x = images()
    for frozen in ("first", "norm"):
        network = made(Residual, frozen=frozen)
        found = closed_form(network, x)
        gradient = gradient_of(found, network)
        value, expected = whole(network.eval(), x)
        assert found.item() == pytest.approx(value.item(), rel=1e-9)
        assert (gradient - expected).abs().max() <= 1e-9 * expected.abs().max()


class Twice(nn.Module):
    """A layer called twice, or one whose weight is a function of another's."""

    def __init__(self, second: str) -> None:
        super().__init__()
        self.second, self.fc, self.other = second, nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = F.relu(self.fc(x))
        match self.second:
            case "called twice":
                return self.fc(h)  # type: ignore[no-any-return]
            case "tied":
                return F.linear(h, self.fc.weight)
            case "made of a weight":
                return F.linear(h, self.other.weight * 2)
            case "a scale":
                return h * self.scale
        return F.gelu(self.other(h))


NOT_AFFINE = {
    "called twice": "used twice",
    "tied": "used twice",
    "made of a weight": "'mul'",
    "a scale": "'mul'",
    "smooth": "'gelu'",
}


@pytest.mark.parametrize("name", NOT_AFFINE)
def test_where_the_closed_form_would_be_wrong_auto_estimates_and_asking_for_it_is_refused(name: str) -> None:
    torch.manual_seed(0)
    network, x = Tapped(Twice(name)).double(), torch.rand(3, 4).double()
    with pytest.raises(NotAffine, match=NOT_AFFINE[name]):
        closed_form(network, x)
    shown = scene(network, x)
    assert trace(shown, "auto", 2).form == "hutchinson"
    with pytest.raises(Refused, match=NOT_AFFINE[name]) as refused:
        trace(shown, "closed_form", 2)
    assert "auto" in (refused.value.hint or "")


def test_what_mixes_the_samples_and_padding_by_a_word_have_no_closed_form() -> None:
    coupled = nn.Sequential(nn.Conv2d(2, 3, 8), nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten())
    with pytest.raises(NotAffine, match="batch_norm"):
        closed_form(Tapped(coupled).double(), images())
    with pytest.raises(NotAffine, match="'same'"):
        closed_form(Tapped(nn.Sequential(nn.Conv2d(2, 3, 3, padding="same"), nn.Flatten())).double(), images())

    folded = nn.Sequential(nn.Flatten(0, 1), nn.Flatten(), nn.Linear(64, 3))  # takes the channels of a sample for samples
    with pytest.raises(NotAffine, match="'linear'"):
        closed_form(Tapped(folded).double(), images())


def test_samples_do_not_meet_and_every_mode_and_statistic_is_given_back() -> None:
    network, x = made(Residual), images()
    network.network.get_submodule("head").eval()
    modes, statistics = [module.training for module in network.modules()], [buffer.clone() for buffer in network.buffers()]
    together = closed_form(network, x).item()
    assert together == pytest.approx(sum(closed_form(network, x[k : k + 1]).item() for k in range(3)) / 3, rel=1e-12)
    trace(scene(network, x), "hutchinson", 2)
    assert [module.training for module in network.modules()] == modes
    assert all(map(torch.equal, network.buffers(), statistics))


def signs(n: int) -> list[Tensor]:
    """Every vector of n signs."""
    return [torch.tensor(one, dtype=torch.float64) for one in itertools.product((-1.0, 1.0), repeat=n)]


def test_of_a_quadratic_all_signs_together_give_the_exact_trace_and_the_variance_by_formula() -> None:
    torch.manual_seed(0)
    square = torch.randn(4, 4).double()
    matrix = square + square.T
    theta = torch.randn(4).double().requires_grad_()
    found = hutchinson(0.5 * theta @ matrix @ theta, [theta], signs(4))
    assert found.mean().item() == pytest.approx(matrix.trace().item(), rel=1e-12)
    variance = 2 * (matrix.square().sum() - matrix.diagonal().square().sum())
    assert found.var(correction=0).item() == pytest.approx(variance.item(), rel=1e-12)


def test_one_probe_is_exact_for_a_diagonal_hessian_and_has_the_gradient_of_the_trace() -> None:
    # Of sum a t^4 the trace is 12 sum a t^2, its gradient 24 a t; over two tensors, one of them a matrix.
    t, u = torch.tensor([[1.0, 2.0]]).double().requires_grad_(), torch.tensor([3.0]).double().requires_grad_()
    loss = (torch.tensor([[0.5, 1.0]]) * t**4).sum() + (2.0 * u**4).sum()
    for probe in signs(3):
        (found,) = hutchinson(loss, [t, u], [probe])
        assert found.item() == pytest.approx(12 * (0.5 + 4 + 18))
        to_t, to_u = torch.autograd.grad(found, (t, u), retain_graph=True)
        assert (to_t.tolist(), to_u.tolist()) == ([[12.0, 48.0]], [144.0])


@pytest.mark.parametrize("classes", [None, FEWER], ids=["all classes", "two of three"])
def test_an_estimate_is_right_in_the_mean_and_its_standard_error_is_that_of_its_probes(classes: Tensor | None) -> None:
    network, probes = made(lambda: nn.Sequential(nn.Linear(3, 2), nn.GELU(), nn.Linear(2, 3))), 600
    x = images()[:, 0, 0, :3]
    found = trace(scene(network, x, classes=classes), "auto", probes)
    gradient = gradient_of(found.value, network)
    value, expected = whole(network.eval(), x, classes)
    assert found.form == "hutchinson"
    assert found.error is not None
    assert abs(found.value.item() - value.item()) < 4 * found.error.item()
    assert found.error.item() < 0.15 * value.item()
    assert F.cosine_similarity(gradient, expected, dim=0) > 0.95
    several = torch.stack([trace(scene(network, x, classes=classes, index=k), "auto", 20).value.detach() for k in range(60)])
    assert several.std().item() == pytest.approx(found.error.item() * (probes / 20) ** 0.5, rel=0.35)


def test_the_probes_are_drawn_by_the_key_and_the_first_sample() -> None:
    network, x = made(Residual), images()

    def estimate(index: int) -> float:
        return trace(scene(network, x, index=index), "hutchinson", 2).value.item()

    assert estimate(0) == estimate(0)
    assert len({estimate(index) for index in range(4)}) == 4


class Square(nn.Module):
    """Logits (z^2, 0), whose Hessian at z = 0 is (p - onehot) 2 x^2: with the first label -x^2, with the second x^2."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        z = self.fc(x)
        return torch.cat([z * z, torch.zeros_like(z)], 1)


@pytest.mark.parametrize(("label", "value", "estimate"), [(0, 0.0, -9.0), (1, 9.0, 9.0)])
def test_below_zero_there_is_nothing_to_lower(label: int, value: float, estimate: float) -> None:
    shown = scene(Tapped(Square()), torch.tensor([[3.0]]), y=torch.tensor([label]))
    found = Curvature("auto", 2)(shown)
    assert found.item() == pytest.approx(value)
    assert found.requires_grad
    assert shown.notes["trace.estimate"].item() == pytest.approx(estimate)
    assert shown.notes["trace.error"].item() == 0  # of one weight every probe is exact


@pytest.mark.parametrize(("form", "said"), [("auto", "closed_form"), ("closed_form", "closed_form"), ("hutchinson", "hutchinson")])
def test_the_term_says_which_form_ran_and_a_checkpoint_keeps_it(form: Form, said: str) -> None:
    term = Curvature(form, 2)
    assert term.facts() == {}
    shown = scene(made(Residual), images())
    term(shown)
    assert term.facts() == {"form": said}
    assert ("trace.error" in shown.notes) == (said == "hutchinson")
    again = Curvature(form, 2)
    again.load_state_dict(term.state_dict())
    assert again.facts() == {"form": said}
