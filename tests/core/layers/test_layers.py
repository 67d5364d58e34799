"""The layers of declared networks: their fields are bounded and told, and what PyTorch has not computes what it says."""

import itertools
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from core.layers import LAYERS, Call, Layer, Misfit, Node
from core.layers.modules import Attention, ClassToken, Concat, MeanToken, Multiply, Position, TakeToken, Tokens
from tests.core.declared import node

every_layer = pytest.mark.parametrize("layer", list(dict.fromkeys(LAYERS.values())))


@every_layer
def test_every_field_is_told_and_every_number_bounded(layer: type[Layer]) -> None:
    schema = layer.model_json_schema()
    assert schema["description"]
    for name, field in schema["properties"].items():
        if name == "op":
            continue
        assert field["description"], name
        for number in numbers(field):
            assert {"minimum", "maximum"} <= number.keys(), name


def numbers(schema: dict[str, Any]) -> list[dict[str, Any]]:
    if schema.get("type") in {"integer", "number"}:
        return [schema]
    parts = [*schema.get("anyOf", ()), *schema.get("prefixItems", ())]
    return [found for part in parts for found in numbers(part)]


def test_the_published_schema_tells_the_ops_apart_by_their_name() -> None:
    schema = TypeAdapter(Node).json_schema()
    assert schema["discriminator"]["propertyName"] == "op"
    assert schema["discriminator"]["mapping"].keys() == LAYERS.keys()


@pytest.mark.parametrize("op", ["relu", "relu6", "gelu", "silu", "hardswish", "sigmoid", "tanh"])
def test_an_activation_is_the_function_of_its_name(op: str) -> None:
    x = torch.linspace(-8, 8, 33)
    expected = {
        "relu": x.clamp_min(0),
        "relu6": x.clamp(0, 6),
        "gelu": x * torch.special.ndtr(x),
        "silu": x / (1 + (-x).exp()),
        "hardswish": x * (x + 3).clamp(0, 6) / 6,
        "sigmoid": 1 / (1 + (-x).exp()),
        "tanh": (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    }[op]
    torch.testing.assert_close(LAYERS[op].model_validate(node("a", op)).call([(33,)]).build()(x), expected)


def test_a_window_has_as_many_places_as_pytorch_finds() -> None:
    """Every small case, padded and unpadded, rounded up and down; where PyTorch refuses, so does the layer."""
    seen = set()
    for n, k, s, p, d, ceil in itertools.product(range(1, 8), range(1, 5), range(1, 4), range(3), range(1, 3), (False, True)):
        x = torch.empty(1, 1, n, n, device="meta")
        if not ceil:
            check(node("a", "conv2d", channels=1, kernel=k, stride=s, padding=p, dilation=d), x)
        if d == 1:
            seen.add(check(node("a", "max_pool", kernel=k, stride=s, padding=p, ceil=ceil), x))
            seen.add(check(node("a", "avg_pool", kernel=k, stride=s, padding=p, ceil=ceil), x))
    assert {None, 1, 2, 7} <= seen


def check(described: dict[str, Any], x: Tensor) -> int | None:
    layer, shape = LAYERS[described["op"]].model_validate(described), tuple(x.shape[1:])
    with torch.device("meta"):
        module = layer.call([shape]).build()
    try:
        found = tuple(module(x).shape[1:])
    except RuntimeError:
        with pytest.raises(Misfit):
            layer.shape([shape])
        return None
    assert layer.shape([shape]) == found, described
    return int(found[1])


@pytest.mark.parametrize(
    ("described", "told"),
    [
        (node("a", "batch_norm", eps=0.1, momentum=0.3), nn.BatchNorm2d(4, eps=0.1, momentum=0.3)),
        (node("a", "group_norm", groups=2, eps=0.1), nn.GroupNorm(2, 4, eps=0.1)),
        (node("a", "conv2d", channels=2, kernel=3), nn.Conv2d(4, 2, 3)),
        (node("a", "avg_pool", kernel=[2, 1], stride=1), nn.AvgPool2d((2, 1), stride=1)),
        (node("a", "adaptive_avg_pool", size=[2, 3]), nn.AdaptiveAvgPool2d((2, 3))),
        (node("a", "upsample", factor=3, mode="bilinear"), nn.Upsample(scale_factor=3, mode="bilinear")),
        (node("a", "dropout", p=0.2), nn.Dropout(0.2)),
        (node("a", "leaky_relu", slope=0.3), nn.LeakyReLU(0.3)),
    ],
)
def test_what_is_told_reaches_the_module(described: dict[str, Any], told: nn.Module) -> None:
    assert repr(LAYERS[described["op"]].model_validate(described).call([(4, 6, 6)]).build()) == repr(told)


def test_attention_is_that_of_pytorch_with_the_same_weights() -> None:
    ours, theirs = Attention(6, 2).double(), nn.MultiheadAttention(6, 2, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.rand(2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


def test_tokens_are_pixels_row_by_row() -> None:
    maps = torch.arange(12.0).view(1, 2, 2, 3)
    assert Tokens()(maps).tolist() == [[[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11]]]


def test_a_class_token_stands_first_and_a_position_is_added() -> None:
    x = torch.rand(2, 3, 4)
    first, placed = ClassToken(4), Position(3, 4)
    assert torch.equal(first(x)[:, 1:], x)
    assert torch.equal(first(x)[:, 0], first.token[0].expand(2, 4))
    assert torch.equal(placed(x), x + placed.position)


def test_a_token_is_taken_or_the_mean_of_all() -> None:
    x = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])
    assert TakeToken(1)(x).tolist() == [[3, 6]]
    assert MeanToken()(x).tolist() == [[2, 4]]


def test_a_gate_of_one_pixel_counts_for_every_pixel() -> None:
    maps, gate = torch.ones(1, 2, 1, 2), torch.tensor([2.0, 3.0]).view(1, 2, 1, 1)
    assert Multiply()(maps, gate).flatten().tolist() == [2, 2, 3, 3]
    multiply = LAYERS["multiply"].model_validate(node("a", "multiply", "b", "c"))
    assert multiply.shape([(2, 4, 4), (2, 1, 1)]) == (2, 4, 4)
    with pytest.raises(Misfit) as misfit:
        multiply.shape([(2, 4, 4), (2, 4, 4), (2, 2, 1)])
    assert misfit.value.at == ("from", 2)


@pytest.mark.parametrize("shapes", [[(2, 4, 4), (3, 4, 4)], [(5,), (2,)], [(4, 6), (1, 6)]])
def test_a_concatenation_adds_up_what_may_differ(shapes: list[tuple[int, ...]]) -> None:
    parts: list[Tensor] = [torch.rand(2, *shape) for shape in shapes]
    concat = LAYERS["concat"].model_validate(node("a", "concat", "b", "c"))
    assert Concat()(*parts).shape[1:] == concat.shape(shapes)
    with pytest.raises(Misfit):
        concat.shape([(2, 4, 4), (2, 4, 3)])


def test_a_call_is_written_as_it_is_made() -> None:
    call = Call(nn.Conv2d, (3, 8, (3, 1)), {"stride": 2, "bias": False})
    assert call.source() == "nn.Conv2d(3, 8, (3, 1), stride=2, bias=False)"
    assert repr(eval(call.source())) == repr(call.build())
    assert Call(Attention, (6, 2)).source() == "Attention(6, 2)"
