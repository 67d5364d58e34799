"""Seeing inside a network without touching it."""

import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from core.taps import Site, Tapped, site_of


class Shared(nn.Module):
    """One in-place ReLU that is called twice in a forward pass, as in many published residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(2, 2, bias=False)
        self.two = nn.Linear(2, 2, bias=False)
        self.relu = nn.ReLU(inplace=True)
        nn.init.eye_(self.one.weight)
        with torch.no_grad():
            self.two.weight.copy_(-torch.eye(2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.one(x))
        out: Tensor = self.relu(self.two(h) + 1)
        return out


X = torch.tensor([[-1.0, 0.25]])


def test_a_name_shows_what_a_module_returns_and_in_shows_what_it_is_given() -> None:
    view = Tapped(Shared(), taps=["one", "relu", "relu:in"])(X)
    assert view.at["one"].tolist() == [[-1.0, 0.25]]
    assert view.at["relu:in"].tolist() == [[-1.0, 0.25]], "an in-place ReLU would have overwritten its input"
    assert view.at["relu"].tolist() == [[0.0, 0.25]]
    assert view.logits.tolist() == [[1.0, 0.75]]


def test_the_second_call_of_a_shared_module_has_a_name_of_its_own() -> None:
    view = Tapped(Shared(), taps=["relu#2:in", "relu", "relu#2"])(X)
    assert view.at["relu"].tolist() == [[0.0, 0.25]]
    assert view.at["relu#2:in"].tolist() == [[1.0, 0.75]]
    assert view.at["relu#2"] is view.logits


def test_nothing_but_what_was_asked_for_is_shown() -> None:
    assert Tapped(Shared())(X).at == {}
    assert set(Tapped(Shared(), taps=["two:in"])(X).at) == {"two:in"}


def test_asking_twice_for_a_tap_is_asking_once() -> None:
    assert set(Tapped(Shared(), taps=["one", "one"])(X).at) == {"one"}


@pytest.mark.parametrize("tap", ["three", "relu.in", "", ":in", "one.weight"])
def test_a_module_that_is_not_there_is_named_at_construction(tap: str) -> None:
    with pytest.raises(KeyError, match="no module of that name"):
        Tapped(Shared(), taps=[tap])


def test_a_call_that_never_came_is_named() -> None:
    with pytest.raises(KeyError, match="relu#3"):
        Tapped(Shared(), taps=["relu#3", "one"])(X)


@pytest.mark.parametrize("tap", ["relu#", "relu#0", "relu#two", "relu#-1"])
def test_a_call_that_is_no_number_from_one_is_refused(tap: str) -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        site_of(tap)


@pytest.mark.parametrize("site", [Site("a.b", 1, False), Site("a.b", 1, True), Site("relu", 2, True), Site("relu", 13, False)])
def test_a_tap_taken_apart_and_put_together_is_itself(site: Site) -> None:
    assert site_of(site.tap) == site


def test_the_network_sees_the_input_in_its_own_space() -> None:
    network = nn.Flatten()
    x = torch.tensor([[[[0.5, 1.0]], [[0.0, 0.2]]]])
    tapped = Tapped(network, mean=[0.5, 0.1], std=[0.5, 0.1])
    assert torch.allclose(tapped(x).logits, torch.tensor([[0.0, 1.0, -1.0, 1.0]]))
    assert torch.equal(Tapped(nn.Flatten())(x).logits, x.flatten(1))


def test_flat_inputs_are_normalised_by_feature_or_by_one_value_for_all() -> None:
    x = torch.tensor([[1.0, 3.0]])
    assert Tapped(nn.Identity(), mean=[1.0, 2.0], std=[2.0, 0.5])(x).logits.tolist() == [[0.0, 2.0]]
    assert Tapped(nn.Identity(), mean=[1.0], std=[2.0])(x).logits.tolist() == [[0.0, 1.0]]


def test_a_mean_without_a_deviation_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="both or neither"):
        Tapped(nn.Identity(), mean=[0.5])


def test_the_networks_state_dict_keeps_its_own_keys() -> None:
    plain = set(Shared().state_dict())
    tapped = Tapped(Shared(), taps=["relu:in"], mean=[0.5], std=[0.5])
    assert set(tapped.network.state_dict()) == plain
    assert set(tapped.state_dict()) == {f"network.{key}" for key in plain}


def test_the_gradient_flows_through_a_tap() -> None:
    network = Shared()
    Tapped(network, taps=["relu"])(torch.tensor([[2.0, -1.0]])).at["relu"].sum().backward()
    assert network.one.weight.grad is not None
    assert network.one.weight.grad.tolist() == [[2.0, -1.0], [0.0, 0.0]]
    assert network.two.weight.grad is None


def test_without_gradients_the_taps_carry_none() -> None:
    with torch.no_grad():
        view = Tapped(Shared(), taps=["one"])(X)
    assert not view.at["one"].requires_grad
    assert not view.logits.requires_grad


def test_a_penalty_on_a_taps_gradient_can_be_differentiated_again() -> None:
    # f = (w x)^3 at x = 2, w = 3: df/dx = 3 w^3 x^2 = 324, and d(df/dx)/dw = 9 w^2 x^2 = 324
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 3.0)
    x = torch.tensor([[2.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(Tapped(nn.Sequential(layer), taps=["0"])(x).at["0"].pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), layer.weight)
    assert (slope.item(), second.item()) == (324.0, 324.0)


def test_no_graph_stays_alive_between_calls() -> None:
    tapped = Tapped(Shared(), taps=["one", "relu#2:in"])
    view = tapped(X)
    seen = weakref.ref(view.at["relu#2:in"])
    del view
    gc.collect()
    assert seen() is None


def test_a_forward_pass_that_failed_leaves_nothing_behind_for_the_next() -> None:
    tapped = Tapped(Shared(), taps=["one", "relu"])
    with pytest.raises(RuntimeError):
        tapped(torch.zeros(1, 3))
    assert tapped(X).at["relu"].tolist() == [[0.0, 0.25]]


def test_quiet_gives_back_each_modules_own_mode() -> None:
    tapped = Tapped(nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5)))).train()
    tapped.network.get_submodule("1.0").eval()
    before = {name: module.training for name, module in tapped.named_modules()}
    assert set(before.values()) == {True, False}
    with tapped.quiet() as quiet:
        assert not any(module.training for module in quiet.modules())
        quiet(torch.rand(4, 2))
    assert {name: module.training for name, module in tapped.named_modules()} == before
    assert tapped.network.get_submodule("0").num_batches_tracked == 0, "eval mode does not move the statistics"


def test_quiet_gives_the_modes_back_after_an_error() -> None:
    tapped = Tapped(Shared()).train()
    with pytest.raises(ZeroDivisionError), tapped.quiet():
        _ = 1 / 0
    assert all(module.training for module in tapped.modules())


def test_a_copy_is_quiet_and_shows_its_own_taps() -> None:
    tapped = Tapped(Shared(), taps=["one"]).train()
    twin = copy.deepcopy(tapped)
    twin.network.load_state_dict({name: torch.zeros_like(value) for name, value in twin.network.state_dict().items()})
    assert twin(X).at["one"].tolist() == [[0.0, 0.0]]
    assert tapped(X).at["one"].tolist() == [[-1.0, 0.25]]
    with twin.quiet():
        assert not twin.network.training
        assert tapped.network.training


def test_a_compiled_network_shows_the_same_in_one_graph() -> None:
    taps = ["one", "relu", "relu#2:in"]
    tapped = Tapped(Shared(), taps=taps, mean=[0.1], std=[2.0])
    compiled = torch.compile(tapped, backend="eager", fullgraph=True)
    for _ in range(2):
        expected, got = tapped(X), compiled(X)
        assert torch.equal(got.logits, expected.logits)
        assert list(got.at) == taps
        assert all(torch.equal(got.at[tap], expected.at[tap]) for tap in taps)
