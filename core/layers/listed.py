"""Every layer that a declared network may be made of, by its op."""

from collections.abc import Mapping
from typing import Annotated, get_args

from pydantic import Field

from core.layers.attention import Attention, ClassToken, MeanToken, Position, TakeToken, Tokens
from core.layers.joins import Add, Concat, Multiply
from core.layers.layer import Layer
from core.layers.maps import AdaptiveAvgPool, AvgPool, Conv2d, MaxPool, Upsample
from core.layers.plain import Activation, BatchNorm, Dropout, Flatten, GroupNorm, LayerNorm, LeakyRelu, Linear

Node = Annotated[
    Conv2d | Linear
    | BatchNorm | GroupNorm | LayerNorm
    | Activation | LeakyRelu
    | MaxPool | AvgPool | AdaptiveAvgPool | Upsample
    | Add | Multiply | Concat
    | Flatten | Dropout
    | Tokens | ClassToken | Position | Attention | TakeToken | MeanToken,
    Field(discriminator="op"),
]  # fmt: skip

LAYERS: Mapping[str, type[Layer]] = {
    op: layer for layer in get_args(get_args(Node)[0]) for op in get_args(layer.model_fields["op"].annotation)
}
"""The allow-list: what is not here cannot be declared."""
