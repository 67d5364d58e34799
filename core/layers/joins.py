"""Layers that bring branches together: residual sums, gates, concatenations."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from core.layers import modules
from core.layers.layer import Call, Layer, Misfit, Shape

_PROJECT = "a conv2d of kernel 1 in the shortcut changes its channels, and with a stride its size"


class Add(Layer):
    """A sum, as at the end of a residual block. All shapes are equal."""

    joins: ClassVar[bool] = True
    op: Literal["add"]

    def shape(self, given: Sequence[Shape]) -> Shape:
        for k, shape in enumerate(given):
            if shape != given[0]:
                raise Misfit("what is added has one shape", _PROJECT, at=("from", k))
        return given[0]

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(modules.Add)


class Multiply(Layer):
    """A product, entry by entry, as of maps and their gates. Shapes are equal, or the later ones (channels, 1, 1): one gate a channel."""

    joins: ClassVar[bool] = True
    op: Literal["multiply"]

    def shape(self, given: Sequence[Shape]) -> Shape:
        for k, shape in enumerate(given):
            if shape not in (given[0], (given[0][0], 1, 1) if len(given[0]) == 3 else given[0]):
                raise Misfit("what is multiplied has the shape of the first, or is (channels, 1, 1) for maps", at=("from", k))
        return given[0]

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(modules.Multiply)


class Concat(Layer):
    """Channels (or tokens, or features) one behind the other. Height and width, or the tokens' features, are equal."""

    joins: ClassVar[bool] = True
    op: Literal["concat"]

    def shape(self, given: Sequence[Shape]) -> Shape:
        for k, shape in enumerate(given):
            if shape[1:] != given[0][1:]:
                raise Misfit("only the first number, the channels, may differ", at=("from", k))
        return (sum(shape[0] for shape in given), *given[0][1:])

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(modules.Concat)
