"""Measurements of networks, and the default pairs that follow from them."""

import json
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.anatomy import Anatomy, match, measure
from core.errors import Refused
from core.networks import Family, parse


def of(**architecture: Any) -> Anatomy:
    return measure(parse({"input": [3, 32, 32], "classes": 10, **architecture}))


class Toy(Family):
    """A network for one test."""

    reference: ClassVar[str] = "this file"
    family: Literal["toy"] = "toy"

    def arguments(self) -> dict[str, Any]:
        return {}


def toy(module: type[nn.Module], shape: tuple[int, ...] = (3, 32, 32)) -> Anatomy:
    class Made(Toy):
        network: ClassVar[type[nn.Module]] = module

    return measure(Made(input=shape, classes=4))


class Inverted(nn.Module):
    """An expansion 1x1, a depthwise 3x3 and a linear projection, as MobileNetV2 has them."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        wide = 6 * into
        self.expand = nn.Sequential(nn.Conv2d(into, wide, 1), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True))
        self.depthwise = nn.Sequential(nn.Conv2d(wide, wide, 3, stride, 1, groups=wide), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True))
        self.project = nn.Sequential(nn.Conv2d(wide, out, 1), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.project(self.depthwise(self.expand(x)))
        return h


class Mobile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), Inverted(8, 16, 1), Inverted(16, 24, 2))
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


def test_a_stage_of_linear_bottlenecks_ends_before_the_block_that_shrinks_and_its_pre_activation_is_the_next_expansion() -> None:
    first, last = toy(Mobile).stages
    assert (first.size, first.out, first.channels) == ((32, 32), "features.2", 16)
    assert (first.pre, first.pre_channels) == ("features.3.expand.2:in", 96)
    assert (last.size, last.out, last.channels, last.pre) == ((16, 16), "features", 24, None)


class Squeezed(nn.Module):
    """A residual block with a squeeze-and-excitation, which convolves at one pixel for a moment; and functional ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.squeeze = nn.Conv2d(4, 4, 1)
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        h = F.relu(h * self.squeeze(h.mean((2, 3), keepdim=True)).sigmoid())
        logits: Tensor = self.fc(self.pool(F.relu(self.down(h))).flatten(1))
        return logits


def test_a_momentary_shrinking_is_no_stage_and_neither_is_the_pooling() -> None:
    anatomy = toy(Squeezed)
    assert [stage.size for stage in anatomy.stages] == [(32, 32), (16, 16)]


def test_functional_relus_leave_no_pre_activation_and_pairing_them_says_so() -> None:
    anatomy = toy(Squeezed)
    assert [stage.pre for stage in anatomy.stages] == [None, None]
    assert len(match(anatomy, anatomy)) == 2
    with pytest.raises(Refused, match="no activation module") as refused:
        match(anatomy, anatomy, "pre", where="/methods/1/pairs")
    assert refused.value.where == "/methods/1/pairs"
    assert "name the pairs yourself" in refused.value.hint


class Imagenet(nn.Module):
    """A stem that shrinks twice before the first block, blocks in one Sequential, a shared in-place ReLU, an in-place sum."""

    class Basic(nn.Module):
        def __init__(self, into: int, out: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out)
            self.relu = nn.ReLU(inplace=True)
            self.downsample = nn.Conv2d(into, out, 1, stride) if into != out else None

        def forward(self, x: Tensor) -> Tensor:
            h = self.bn2(self.conv2(self.relu(self.conv1(x))))
            h += x if self.downsample is None else self.downsample(x)
            out: Tensor = self.relu(h)
            return out

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(self.Basic(8, 8, 1), self.Basic(8, 8, 1))
        self.layer2 = nn.Sequential(self.Basic(8, 16, 2), self.Basic(16, 16, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.maxpool(self.relu(self.conv1(x)))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def test_an_imagenet_stem_is_a_stage_of_its_own_size() -> None:
    stages = toy(Imagenet, (3, 64, 64)).stages
    assert [(stage.size, stage.out, stage.pre) for stage in stages] == [
        ((32, 32), "relu", "relu:in"),
        ((16, 16), "layer1", "layer1.1.relu#2:in"),
        ((8, 8), "layer2", "layer2.1.relu#2:in"),
    ]


def test_the_second_call_of_a_shared_relu_is_measured_apart() -> None:
    anatomy = toy(Imagenet, (3, 64, 64))
    assert anatomy.calls["layer2.0.relu"] == 2
    assert {"layer2.0.relu", "layer2.0.relu:in", "layer2.0.relu#2", "layer2.0.relu#2:in"} <= anatomy.taps.keys()


def test_what_a_later_sum_overwrites_is_no_tap() -> None:
    anatomy = toy(Imagenet, (3, 64, 64))
    assert "layer1.0.bn2" not in anatomy.taps
    assert "layer1.0.conv2" in anatomy.taps


def test_the_operations_of_an_in_place_network_carry_no_underscore() -> None:
    ops = toy(Imagenet, (3, 64, 64)).ops
    assert {"relu", "add", "convolution", "native_batch_norm"} <= ops
    assert not any(name.endswith("_") for name in ops)


def test_measuring_draws_nothing_and_builds_nothing() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    anatomy = of(family="wrn", depth=40, widen=10)
    assert anatomy.parameters > 50_000_000
    assert torch.equal(torch.get_rng_state(), before)


def test_a_report_from_before_activations_were_measured_is_read() -> None:
    stored = {name: value for name, value in of(family="mlp", input=[64]).to_json().items() if name != "activations"}
    assert Anatomy.model_validate(stored).activations == 0


def test_a_network_of_absurd_size_is_refused() -> None:
    with pytest.raises(Refused, match="parameters are more than") as refused:
        of(family="mlp", input=[4096, 4096, 64], hidden=[16_384])
    assert refused.value.where == "/architecture"


def test_an_anatomy_travels_as_json_and_keeps_the_order_of_its_taps() -> None:
    anatomy = measure(
        parse({"family": "resnet", "depth": 8, "input": [1, 8, 8], "classes": 10}), normalization={"mean": [0.3], "std": [0.25]}
    )
    # A database may sort the keys of every object that it stores.
    back = Anatomy.model_validate(json.loads(json.dumps(anatomy.to_json(), sort_keys=True)))
    assert back == anatomy
    assert list(back.taps) == list(anatomy.taps)
    assert (back.mean, back.std) == ((0.3,), (0.25,))


@pytest.mark.parametrize(
    ("normalization", "where"),
    [
        ({"mean": [0.5, 0.5], "std": [1.0, 1.0, 1.0]}, "/normalization/mean"),
        ({"mean": [0.5], "std": [0.0]}, "/normalization/std"),
        ({"mean": [0.5], "std": [float("nan")]}, "/normalization/std"),
        ({"mean": [float("inf")], "std": [1.0]}, "/normalization/mean"),
        ({"mean": [0.5]}, "/normalization/std"),
    ],
)
def test_a_normalization_that_does_not_fit_is_refused_by_name(normalization: dict[str, list[float]], where: str) -> None:
    with pytest.raises(Refused) as refused:
        measure(parse({"family": "convnet", "input": [3, 8, 8], "classes": 10}), normalization=normalization)
    assert refused.value.where == where


def test_a_tap_that_is_there_has_its_shape() -> None:
    anatomy = of(family="resnet", depth=8)
    assert anatomy.require("layer2", "/methods/0/pairs/0/0") == (32, 16, 16)
    assert anatomy.require("layer2:in") == (16, 32, 32)


def test_a_wrong_tap_is_refused_by_name_with_the_nearest() -> None:
    with pytest.raises(Refused, match=r"'layer2\.0\.relu3'") as refused:
        of(family="resnet", depth=8).require("layer2.0.relu3", "/methods/0/pairs/0/1")
    assert refused.value.where == "/methods/0/pairs/0/1"
    assert "layer2.0.relu2" in refused.value.hint


def test_a_call_too_many_is_refused_with_the_number_of_calls() -> None:
    with pytest.raises(Refused, match=r"calls 'layer1\.0\.relu1' 1 time$"):
        of(family="resnet", depth=8).require("layer1.0.relu1#2")


def test_a_tap_with_no_resemblance_and_one_that_is_no_tap_are_refused() -> None:
    with pytest.raises(Refused, match="no tap 'ζζζ'"):
        of(family="resnet", depth=8).require("ζζζ")
    with pytest.raises(Refused, match="counted from 1"):
        of(family="resnet", depth=8).require("relu#x")


def test_networks_of_one_family_pair_stage_by_stage() -> None:
    pairs = match(of(family="resnet", depth=26), of(family="resnet", depth=8))
    assert pairs == (("layer1", "layer1"), ("layer2", "layer2"), ("layer3", "layer3"))


def test_networks_of_two_families_pair_by_size() -> None:
    pairs = match(of(family="wrn", depth=16, widen=4), of(family="resnet", depth=8), "pre")
    assert pairs == (
        ("block2.0.relu1:in", "layer1.0.relu2:in"),
        ("block3.0.relu1:in", "layer2.0.relu2:in"),
        ("relu:in", "layer3.0.relu2:in"),
    )


def test_only_stages_of_the_same_size_are_paired() -> None:
    pairs = match(of(family="wrn", depth=10), of(family="wrn", depth=10, stem_stride=2))
    assert pairs == (("block2", "block1"), ("block3", "block2"))


def test_networks_without_a_common_size_are_refused_with_both_lists() -> None:
    with pytest.raises(Refused, match="32x32, 16x16, 8x8 and 7x7, 4x4, 2x2"):
        match(of(family="resnet", depth=8), of(family="resnet", depth=8, input=[3, 7, 7]))


def test_a_network_without_maps_is_refused_by_whose_it_is() -> None:
    maps, flat = of(family="resnet", depth=8), of(family="mlp")
    with pytest.raises(Refused, match="the student \\(mlp\\)"):
        match(maps, flat)
    with pytest.raises(Refused, match="the teacher \\(mlp\\)"):
        match(flat, maps)


@pytest.mark.parametrize("std", [[1e-300], [1e300], ["1"], 1, "1"])
def test_a_normalization_that_float32_cannot_divide_by_is_refused(std: object) -> None:
    with pytest.raises(Refused) as refused:
        measure(parse({"family": "mlp", "input": [4], "classes": 2}), normalization={"mean": [0.0], "std": std})  # type: ignore[dict-item]
    assert refused.value.where == "/normalization/std"


def test_what_comes_before_the_first_weight_is_fixed_by_the_input() -> None:
    assert of(family="mlp", hidden=[4]).fixed == {"flatten:in", "flatten", "linear1:in"}
    assert of(family="convnet").fixed == {"block1:in", "block1.conv:in"}
    assert of(family="wrn", depth=10).fixed == {"conv1:in"}
