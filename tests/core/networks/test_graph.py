"""A declared network: what it computes, what is refused and where, and that plain arithmetic and PyTorch agree on every graph."""

import runpy
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from core.anatomy import match, measure
from core.errors import Refused
from core.networks import Family, parse
from core.networks.graph import MOST_FLOPS, MOST_VALUES, Graph
from core.taps import Tapped
from tests.core.declared import node, residual
from tests.core.layers.graphs import graphs


def declared(*nodes: dict[str, Any], input: tuple[int, ...] = (3, 8, 8), classes: int = 5) -> Graph:
    family = parse({"family": "graph", "input": list(input), "classes": classes, "nodes": list(nodes)})
    assert isinstance(family, Graph)
    return family


def refusal(*nodes: dict[str, Any], input: tuple[int, ...] = (3, 8, 8), classes: int = 5) -> Refused:
    with pytest.raises(Refused) as refused:
        declared(*nodes, input=input, classes=classes)
    return refused.value


class Residual(nn.Module):
    """What `residual` declares, written by hand."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.bn3 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv4, self.bn4 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2)
        self.conv5, self.bn5 = nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = (x + self.bn2(self.conv2(x))).relu()
        x = (self.shortcut(x) + self.bn4(self.conv4(self.bn3(self.conv3(x)).relu()))).relu()
        x = self.bn5(self.conv5(x)).relu()
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits


def test_it_computes_what_the_same_network_written_by_hand_computes() -> None:
    by_hand, network = Residual(5), declared(*residual(5)).build()
    network.load_state_dict(by_hand.state_dict())
    x = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(network(x), by_hand(x))
    torch.testing.assert_close(network.eval()(x), by_hand.eval()(x))


def test_what_is_told_of_a_convolution_reaches_it() -> None:
    """Against torch's own functions, with every setting away from its default."""
    family = declared(
        node("conv", "conv2d", channels=6, kernel=[3, 2], stride=[2, 1], padding=[1, 0], dilation=[1, 2], groups=3, bias=False),
        node("leaky", "leaky_relu", slope=0.2),
        node("pool", "max_pool", kernel=3, stride=2, padding=1, ceil=True),
        node("flat", "flatten"),
        node("fc", "linear", features=5, bias=False),
    )
    network, x, f = family.build(), torch.rand(2, 3, 8, 8), nn.functional
    maps = f.conv2d(x, network.get_parameter("conv.weight"), None, (2, 1), (1, 0), (1, 2), 3)
    pooled = f.max_pool2d(f.leaky_relu(maps, 0.2), 3, 2, 1, ceil_mode=True)
    torch.testing.assert_close(network(x), pooled.flatten(1) @ network.get_parameter("fc.weight").T)


def test_taps_are_the_nodes_with_their_shapes_and_pairs_are_found_by_stages() -> None:
    anatomy = measure(declared(*residual(5)))
    assert {tap: shape for tap, shape in anatomy.taps.items() if not tap.endswith(":in")} == {
        **dict.fromkeys(("conv1", "bn1", "relu1", "conv2", "bn2", "add1", "relu2"), (8, 8, 8)),
        **dict.fromkeys(("conv3", "bn3", "relu3", "conv4", "bn4", "shortcut", "add2", "relu4"), (16, 4, 4)),
        **dict.fromkeys(("conv5", "bn5", "relu5"), (16, 2, 2)),
        "pool": (16, 1, 1),
        "flatten": (16,),
        "fc": (5,),
    }
    assert [(stage.size, stage.out, stage.pre) for stage in anatomy.stages] == [
        ((8, 8), "relu2", "relu2:in"),
        ((4, 4), "relu4", "relu4:in"),
        ((2, 2), "relu5", "relu5:in"),
    ]
    resnet = measure(parse({"family": "resnet", "depth": 8, "input": [3, 8, 8], "classes": 5}))
    assert [tuple(pair) for pair in match(resnet, anatomy, "pre")] == [
        ("layer1.0.relu2:in", "relu2:in"),
        ("layer2.0.relu2:in", "relu4:in"),
        ("layer3.0.relu2:in", "relu5:in"),
    ]


def test_the_taps_of_a_branch_show_what_passed_there() -> None:
    view = Tapped(declared(*residual(5)).build(), taps=["add2", "shortcut", "bn4", "relu4:in"]).eval()(torch.rand(2, 3, 8, 8))
    assert torch.equal(view.at["add2"], view.at["bn4"] + view.at["shortcut"])
    assert torch.equal(view.at["relu4:in"], view.at["add2"])


HEAD = (node("pool", "adaptive_avg_pool"), node("flat", "flatten"), node("fc", "linear", features=5))


@pytest.mark.parametrize(
    ("nodes", "where", "reason"),
    [
        (
            (
                node("a", "conv2d", channels=8, kernel=3, padding=1),
                node("b", "conv2d", "input", channels=4, kernel=1),
                node("sum", "add", "a", "b"),
                *HEAD,
            ),
            "/nodes/2/from/1",
            "add: a gives (8, 8, 8), b gives (4, 8, 8): what is added has one shape",
        ),
        ((node("a", "conv2d", channels=8, kernel=[9, 3]), *HEAD), "/nodes/0/kernel", "a window of 9 does not fit into a map of 8"),
        ((node("a", "conv2d", channels=8, kernel=1, groups=2), *HEAD), "/nodes/0/groups", "2 groups do not divide the 3 channels"),
        ((node("fc", "linear", features=5),), "/nodes/0", "linear: input gives (3, 8, 8): it takes a vector"),
        (
            (node("flat", "flatten"), node("a", "conv2d", "flat", channels=1, kernel=1)),
            "/nodes/1/from/0",
            "flat gives (192,): it takes maps",
        ),
        ((node("a", "relu", "b"), node("b", "relu"), *HEAD), "/nodes/0/from/0", "'b' comes later"),
        ((node("a", "relu", "a"), *HEAD), "/nodes/0/from/0", "'a' comes later"),
        ((node("a", "relu"), node("b", "relu", "inptu"), *HEAD), "/nodes/1/from/0", "there is no node 'inptu'"),
        ((node("a", "relu"), node("b", "relu", "input"), *HEAD), "/nodes/0", "nothing reads 'a'"),
        ((node("a", "relu"), node("a", "relu"), *HEAD), "/nodes/1/name", "two nodes are called 'a'"),
        ((node("train", "relu"), *HEAD), "/nodes/0/name", "'train' means something else"),
        ((node("lambda", "relu"), *HEAD), "/nodes/0/name", "'lambda' means something else"),
        ((node("input", "relu"), *HEAD), "/nodes/0/name", "'input' means something else"),
        ((node("A.b", "relu"), *HEAD), "/nodes/0/name", "match pattern"),
        ((node("a", "add"), *HEAD), "/nodes/0/from", "add reads two nodes or more, and here it reads input"),
        ((node("a", "relu", "input", "input"), *HEAD), "/nodes/0/from", "relu reads one node"),
        ((*HEAD[:2], node("fc", "linear", features=4)), "/nodes/2", "the last node, 'fc', gives (4,), not (5,)"),
        ((node("a", "max_pool", kernel=2, padding=2), *HEAD), "/nodes/0/padding", "more than half of the kernel"),
        ((node("a", "conv3d"), *HEAD), "/nodes/0/op", "there is no op 'conv3d'"),
        (({"name": "a"}, *HEAD), "/nodes/0/op", "does not say its op"),
        ((node("a", "conv2d", kernel=3), *HEAD), "/nodes/0/channels", "it is missing"),
        ((node("a", "conv2d", channels=1, kernel=[3, 65]), *HEAD), "/nodes/0/kernel/1", "less than or equal to 64"),
        ((node("a", "conv2d", channels=1, kernel=65), *HEAD), "/nodes/0/kernel", "less than or equal to 64"),
        ((node("a", "conv2d", channels=1, kernal=1), *HEAD), "/nodes/0/kernal", "conv2d has no field 'kernal'"),
        ((node("a", "relu", inplace=True), *HEAD), "/nodes/0/inplace", "has no field 'inplace'"),
        ((3, *HEAD), "/nodes/0", "an object is wanted"),
    ],
)
def test_the_node_that_does_not_fit_is_named(nodes: tuple[dict[str, Any], ...], where: str, reason: str) -> None:
    refused = refusal(*nodes)
    assert refused.where == f"/architecture{where}"
    assert reason in refused.reason
    assert "Traceback" not in refused.hint


def test_hints_name_the_nearest_node_op_and_field() -> None:
    assert "'conv1'" in refusal(node("conv1", "relu"), node("b", "relu", "cnov1"), *HEAD).hint
    assert "'conv2d'" in refusal(node("a", "conv2"), *HEAD).hint
    assert "'kernel'" in refusal(node("a", "conv2d", channels=1, kernal=1), *HEAD).hint


def test_a_network_without_weights_is_refused() -> None:
    assert "nothing to learn" in refusal(node("flat", "flatten"), input=(1, 1, 5)).reason


WIDE = [node(f"c{k}", "concat", *[f"c{k - 1}" if k else "input"] * 64) for k in range(1999)]
DEEP = [node(f"u{k}", "upsample", factor=64) for k in range(1999)]


@pytest.mark.parametrize(
    ("nodes", "where", "reason"),
    [
        ([*WIDE, node("fc", "linear", features=5)], "/nodes/3", f"values of one input, more than the {MOST_VALUES:,}"),
        ([*DEEP, node("fc", "linear", features=5)], "/nodes/1", f"values of one input, more than the {MOST_VALUES:,}"),
        ([node(f"c{k}", "conv2d", channels=8192, kernel=64, padding=32) for k in range(2000)], "/nodes/1", "more than the 1,000,000,000"),
        (
            [node("up", "upsample", factor=64), *(node(f"c{k}", "conv2d", channels=64, kernel=64, padding=32) for k in range(9))],
            "/nodes/2",
            f"floating-point operations on one input, more than the {MOST_FLOPS:,}",
        ),
        ([node(f"r{k}", "relu") for k in range(2001)], "/nodes", "at most 2000"),
    ],
)
def test_a_bomb_is_refused_with_its_numbers_in_little_memory(nodes: list[dict[str, Any]], where: str, reason: str) -> None:
    tracemalloc.start()
    try:
        refused = refusal(*nodes)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.where == f"/architecture{where}"
    assert reason in refused.reason
    assert most < 64 << 20


def test_a_network_as_deep_as_may_be_is_measured_and_trains() -> None:
    chain = [node(f"r{k}", "tanh") for k in range(1998)]
    family = declared(*chain, node("flat", "flatten"), node("fc", "linear", features=2), input=(1, 2, 2), classes=2)
    assert len(measure(family).calls) == 2000
    family.build()(torch.rand(2, 1, 2, 2)).sum().backward()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_plain_arithmetic_and_pytorch_agree(architecture: dict[str, Any]) -> None:
    family = parse(architecture)
    assert isinstance(family, Graph)
    anatomy, steps = measure(family), family.steps()
    shapes = {step.layer.name: step.shape for step in steps}
    assert {tap: shape for tap, shape in anatomy.taps.items() if tap in shapes} == shapes
    assert anatomy.parameters == sum(step.layer.parameters(step.given) for step in steps)
    assert anatomy.flops == sum(step.layer.flops(step.given) for step in steps)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_the_source_is_the_same_network(tmp_path_factory: pytest.TempPathFactory, architecture: dict[str, Any]) -> None:
    family = parse(architecture)
    path = tmp_path_factory.mktemp("source") / "network.py"
    same(family, path)


def same(family: Family, path: Path) -> None:
    path.write_text(family.source())
    network, stranger = family.build(), runpy.run_path(str(path))["build"]()
    assert list(stranger.state_dict()) == list(network.state_dict())
    stranger.load_state_dict(network.state_dict())
    x = torch.rand(2, *family.input)
    with FlopCounterMode(display=False) as flops:
        expected = network.eval()(x)
    torch.testing.assert_close(stranger.eval()(x), expected, rtol=0, atol=0)
    assert flops.get_total_flops() == 2 * measure(family).flops
