"""Layers that take vectors, tokens or maps alike: linear, normalisations, activations, flatten, dropout."""

from collections.abc import Sequence
from math import prod
from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from core.layers.layer import Call, Layer, Misfit, Shape, changed


class Linear(Layer):
    """A linear layer on the last axis: of a vector, or of each token."""

    op: Literal["linear"]
    features: int = Field(ge=1, le=100_000, description="How many it gives.")
    bias: bool = Field(True, description="A number added to each feature.")

    def shape(self, given: Sequence[Shape]) -> Shape:
        if len(given[0]) == 3:
            raise Misfit("it takes a vector (features,) or tokens (count, features)", "a node of the op flatten before it")
        return (*given[0][:-1], self.features)

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(nn.Linear, (given[0][-1], self.features), changed(bias=(self.bias, True)))

    def parameters(self, given: Sequence[Shape]) -> int:
        return self.features * (given[0][-1] + self.bias)

    def flops(self, given: Sequence[Shape]) -> int:
        return 2 * prod(given[0]) * self.features


class _Norm(Layer):
    eps: float = Field(1e-5, ge=1e-12, le=1, description="Added to the variance.")

    def shape(self, given: Sequence[Shape]) -> Shape:
        return given[0]


class BatchNorm(_Norm):
    """Each channel, or feature, by its statistics over the batch; it learns a scale and a shift."""

    op: Literal["batch_norm"]
    momentum: float = Field(0.1, ge=0, le=1, description="How much the newest batch counts in the running statistics.")

    def shape(self, given: Sequence[Shape]) -> Shape:
        if len(given[0]) == 2:
            raise Misfit("it takes maps or a vector, not tokens", "a node of the op layer_norm")
        return given[0]

    def call(self, given: Sequence[Shape]) -> Call:
        make = nn.BatchNorm2d if len(given[0]) == 3 else nn.BatchNorm1d
        return Call(make, (given[0][0],), changed(eps=(self.eps, 1e-5), momentum=(self.momentum, 0.1)))

    def parameters(self, given: Sequence[Shape]) -> int:
        return 2 * given[0][0]


class GroupNorm(_Norm):
    """Each group of channels of one input by its own statistics; 1 group takes them all."""

    op: Literal["group_norm"]
    groups: int = Field(ge=1, le=8192, description="Divides the channels.")

    def shape(self, given: Sequence[Shape]) -> Shape:
        if len(given[0]) == 2:
            raise Misfit("it takes maps or a vector, not tokens", "a node of the op layer_norm")
        if given[0][0] % self.groups:
            raise Misfit(f"{self.groups} groups do not divide the {given[0][0]} channels that it is given", at=("groups",))
        return given[0]

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(nn.GroupNorm, (self.groups, given[0][0]), changed(eps=(self.eps, 1e-5)))

    def parameters(self, given: Sequence[Shape]) -> int:
        return 2 * given[0][0]


class LayerNorm(_Norm):
    """A vector, or each token, by its own statistics."""

    op: Literal["layer_norm"]

    def shape(self, given: Sequence[Shape]) -> Shape:
        if len(given[0]) == 3:
            raise Misfit("it takes a vector or tokens, not maps", "a node of the op group_norm with 1 group")
        return given[0]

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(nn.LayerNorm, (given[0][-1],), changed(eps=(self.eps, 1e-5)))

    def parameters(self, given: Sequence[Shape]) -> int:
        return 2 * given[0][-1]


class Activation(Layer):
    """A function of each value by itself."""

    modules: ClassVar[dict[str, type[nn.Module]]] = {
        "relu": nn.ReLU,
        "relu6": nn.ReLU6,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "hardswish": nn.Hardswish,
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
    }

    op: Literal["relu", "relu6", "gelu", "silu", "hardswish", "sigmoid", "tanh"]

    def shape(self, given: Sequence[Shape]) -> Shape:
        return given[0]

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(self.modules[self.op])


class LeakyRelu(Layer):
    """x above 0, and a part of it below."""

    op: Literal["leaky_relu"]
    slope: float = Field(0.01, ge=0, le=1, description="The part that is left below 0.")

    def shape(self, given: Sequence[Shape]) -> Shape:
        return given[0]

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(nn.LeakyReLU, (), changed(negative_slope=(self.slope, 0.01)))


class Dropout(Layer):
    """Some values set to 0 while training, the others enlarged."""

    op: Literal["dropout"]
    p: float = Field(0.5, ge=0, le=0.95, description="The share that is set to 0.")

    def shape(self, given: Sequence[Shape]) -> Shape:
        return given[0]

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(nn.Dropout, (), changed(p=(self.p, 0.5)))


class Flatten(Layer):
    """Maps or tokens laid flat: a vector."""

    op: Literal["flatten"]

    def shape(self, given: Sequence[Shape]) -> Shape:
        return (prod(given[0]),)

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(nn.Flatten)
