"""A folded network is the same function in eval mode, and is made anew when what it was made of changes."""

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from core.fold import folded
from core.networks import parse
from core.taps import Tapped
from tests.core.toys import SHAPE, Toy, tapped


def lived(network: nn.Module) -> None:
    """Give every batch norm statistics and weights that do something."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low in ((module.running_mean, -1.0), (module.running_var, 0.5), (module.weight, 0.5), (module.bias, -1.0)):
                    assert tensor is not None
                    tensor.uniform_(low, low + 2)


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("architecture", "left"),
    [
        ({"family": "resnet", "depth": 8}, 0),
        ({"family": "resnet", "depth": 8, "shortcut": "project"}, 0),
        ({"family": "wrn", "depth": 10, "widen": 1}, 4),  # where the norm comes before the convolution it stays
        ({"family": "mobilenetv2", "width": 0.5}, 0),
    ],
)
def test_it_gives_the_same_logits_and_input_gradients(architecture: dict[str, object], left: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = parse({**architecture, "input": [3, 32, 32], "classes": 5}).build()
        x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    lived(network)
    plain = Tapped(network, mean=[0.4] * 3, std=[0.2] * 3).double().eval()
    whole = folded(plain)
    assert norms(whole) == left < norms(plain)
    found = []
    for one in (plain, whole):
        leaf = x.clone().requires_grad_()
        logits = one(leaf).logits
        found.append((logits, torch.autograd.grad(logits[:, 0].sum(), leaf)[0]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert all(parameter.requires_grad for parameter in plain.parameters())
    assert not any(parameter.requires_grad for parameter in whole.parameters())


def test_the_networks_own_modes_taps_and_weights_are_left_alone() -> None:
    network = tapped(Toy(), ("conv1", "bn1", "relu1:in"), seed=0).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    whole, x = folded(network), torch.rand(2, *SHAPE)
    assert set(whole(x).at) == set()
    assert set(network(x).at) == {"conv1", "bn1", "relu1:in"}
    assert all(module.training for module in network.modules())
    assert not any(module.training for module in whole.modules())
    assert before.keys() == network.state_dict().keys()
    assert all(
        torch.equal(value, before[name]) for name, value in network.state_dict().items() if "running" not in name and "num" not in name
    )


def test_it_is_made_once_and_anew_when_a_weight_or_a_statistic_changes() -> None:
    network, x = tapped(Toy(), (), seed=0).eval(), torch.rand(2, *SHAPE)
    first = folded(network)
    assert folded(network) is first
    lived(network)
    second = folded(network)
    assert second is not first
    torch.testing.assert_close(second(x).logits, network(x).logits)
    network.train()(x)
    network.eval()
    torch.testing.assert_close(folded(network)(x).logits, network(x).logits)
    with torch.no_grad():
        network.network.get_parameter("conv2.weight").mul_(2)
    torch.testing.assert_close(folded(network)(x).logits, network(x).logits)
    network.network.load_state_dict(tapped(Toy(), (), seed=9).network.state_dict())
    torch.testing.assert_close(folded(network)(x).logits, network(x).logits)


def test_nothing_is_kept_of_a_network_that_is_gone() -> None:
    network = tapped(Toy(), (), seed=0)
    gone = weakref.ref(folded(network))
    del network
    gc.collect()
    gc.collect()  # what the memo held is free only now
    assert gone() is None


class Branching(nn.Module):
    """Its course depends on the values that it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Twice(nn.Module):
    """One convolution before two batch norms, and one whose result is wanted beside the norm's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(2), nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.other(self.bn2(self.conv(self.bn1(self.conv(x)))))
        return torch.flatten(y + self.bn3(y), 1)


def test_what_cannot_be_traced_or_folded_is_left_as_it_is() -> None:
    branching = Tapped(Branching())
    assert folded(branching) is branching
    twice, x = Tapped(Twice()).eval(), torch.rand(2, 2, 3, 3)
    lived(twice)
    torch.testing.assert_close(folded(twice)(x).logits, twice(x).logits)
    assert norms(folded(twice)) == 3
