"""Layers on tokens (count, features): a small vision transformer is made of them."""

from collections.abc import Sequence
from math import prod
from typing import Literal

from pydantic import Field

from core.layers import modules
from core.layers.layer import Call, Layer, Misfit, Shape, maps, tokens


class Tokens(Layer):
    """Maps as tokens, one a pixel, row by row: behind a conv2d whose stride is its kernel, one a patch."""

    op: Literal["tokens"]

    def shape(self, given: Sequence[Shape]) -> Shape:
        channels, height, width = maps(given)
        return height * width, channels

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(modules.Tokens)


class ClassToken(Layer):
    """One more token before the others, which learns."""

    op: Literal["class_token"]

    def shape(self, given: Sequence[Shape]) -> Shape:
        count, features = tokens(given)
        return count + 1, features

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(modules.ClassToken, (given[0][1],))

    def parameters(self, given: Sequence[Shape]) -> int:
        return given[0][1]


class Position(Layer):
    """A vector that learns is added to each token."""

    op: Literal["position"]

    def shape(self, given: Sequence[Shape]) -> Shape:
        return tokens(given)

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(modules.Position, given[0])

    def parameters(self, given: Sequence[Shape]) -> int:
        return prod(given[0])


class Attention(Layer):
    """Self-attention with several heads; its linear layers are `qkv` and `out`."""

    op: Literal["attention"]
    heads: int = Field(ge=1, le=256, description="Divides the features.")

    def shape(self, given: Sequence[Shape]) -> Shape:
        count, features = tokens(given)
        if features % self.heads:
            raise Misfit(f"{self.heads} heads do not divide the {features} features that it is given", at=("heads",))
        return count, features

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(modules.Attention, (given[0][1], self.heads))

    def parameters(self, given: Sequence[Shape]) -> int:
        return 4 * given[0][1] * (given[0][1] + 1)

    def flops(self, given: Sequence[Shape]) -> int:
        count, features = given[0]
        return 2 * count * features * 4 * features + 4 * count * count * features

    def values(self, given: Sequence[Shape]) -> int:
        count, features = given[0]
        return 5 * count * features + 2 * self.heads * count * count


class TakeToken(Layer):
    """One token: a vector."""

    op: Literal["take_token"]
    index: int = Field(0, ge=0, le=100_000, description="Counted from 0, where class_token puts its own.")

    def shape(self, given: Sequence[Shape]) -> Shape:
        count, features = tokens(given)
        if self.index >= count:
            raise Misfit(f"there is no token {self.index} among {count}", at=("index",))
        return (features,)

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(modules.TakeToken, (self.index,))


class MeanToken(Layer):
    """The mean of the tokens: a vector."""

    op: Literal["mean_token"]

    def shape(self, given: Sequence[Shape]) -> Shape:
        return (tokens(given)[1],)

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(modules.MeanToken)
