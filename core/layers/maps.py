"""Layers on maps (channels, height, width): convolution, pooling, enlarging."""

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

from pydantic import Field
from torch import nn

from core.layers.layer import Call, Layer, Margins, Misfit, Shape, Sizes, changed, maps, plain


class Conv2d(Layer):
    """A convolution. Its input channels are those that it is given."""

    op: Literal["conv2d"]
    channels: int = Field(ge=1, le=8192, description="The channels that it gives.")
    kernel: Sizes = Field(description="Height and width of the kernel, or one number for both.")
    stride: Sizes = Field((1, 1), description="How far the kernel moves; 2 halves the map.")
    padding: Margins = Field((0, 0), description="Zeros around the map: above and below, left and right, or one number for both.")
    dilation: Sizes = Field((1, 1), description="The distance between two entries of the kernel.")
    groups: int = Field(1, ge=1, le=8192, description="Divides both numbers of channels; as many as there are channels is a depthwise one.")
    bias: bool = Field(True, description="A number added to each channel; of no use before a batch_norm.")

    def shape(self, given: Sequence[Shape]) -> Shape:
        channels, *size = maps(given)
        for whose, count in (("it is given", channels), ("it gives", self.channels)):
            if count % self.groups:
                raise Misfit(f"{self.groups} groups do not divide the {count} channels that {whose}", at=("groups",))
        return (self.channels, *_slid(size, self.kernel, self.stride, self.padding, self.dilation))

    def call(self, given: Sequence[Shape]) -> Call:
        options = changed(
            stride=(self.stride, (1, 1)),
            padding=(self.padding, (0, 0)),
            dilation=(self.dilation, (1, 1)),
            groups=(self.groups, 1),
            bias=(self.bias, True),
        )
        return Call(nn.Conv2d, (given[0][0], self.channels, plain(self.kernel)), options)

    def parameters(self, given: Sequence[Shape]) -> int:
        return self.channels * (given[0][0] // self.groups * prod(self.kernel) + self.bias)

    def flops(self, given: Sequence[Shape]) -> int:
        return 2 * prod(self.shape(given)) * (given[0][0] // self.groups) * prod(self.kernel)


class _Pool(Layer):
    kernel: Sizes = Field(description="Height and width of the window, or one number for both.")
    stride: Sizes | None = Field(None, description="Left out: the kernel.")
    padding: Margins = Field((0, 0), description="At most half of the kernel.")
    ceil: bool = Field(False, description="Whether a window that only begins inside the map counts: 5 halves to 3, and 1 stays 1.")

    def shape(self, given: Sequence[Shape]) -> Shape:
        channels, *size = maps(given)
        for margin, extent in zip(self.padding, self.kernel, strict=True):
            if 2 * margin > extent:
                raise Misfit(f"a padding of {margin} is more than half of the kernel, {extent}", at=("padding",))
        return (channels, *_slid(size, self.kernel, self.stride or self.kernel, self.padding, (1, 1), ceil=self.ceil))

    def options(self) -> dict[str, Any]:
        """What the constructor is told beside the kernel."""
        return changed(stride=(self.stride or self.kernel, self.kernel), padding=(self.padding, (0, 0)), ceil_mode=(self.ceil, False))


class MaxPool(_Pool):
    """The largest value of each window."""

    op: Literal["max_pool"]

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(nn.MaxPool2d, (plain(self.kernel),), self.options())


class AvgPool(_Pool):
    """The mean of each window; the zeros of the padding count."""

    op: Literal["avg_pool"]

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(nn.AvgPool2d, (plain(self.kernel),), self.options())


class AdaptiveAvgPool(Layer):
    """The mean of as many windows as are asked for; 1, the default, is the global average."""

    op: Literal["adaptive_avg_pool"]
    size: Sizes = Field((1, 1), description="Height and width that it gives, or one number for both.")

    def shape(self, given: Sequence[Shape]) -> Shape:
        return (maps(given)[0], *self.size)

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(nn.AdaptiveAvgPool2d, (plain(self.size),))


class Upsample(Layer):
    """Maps enlarged by a whole factor."""

    op: Literal["upsample"]
    factor: int = Field(2, ge=1, le=64, description="Of height and width.")
    mode: Literal["nearest", "bilinear"] = Field("nearest", description="Where new pixels come from.")

    def shape(self, given: Sequence[Shape]) -> Shape:
        channels, height, width = maps(given)
        return channels, height * self.factor, width * self.factor

    def call(self, given: Sequence[Shape]) -> Call:
        return Call(nn.Upsample, (), {"scale_factor": self.factor, "mode": self.mode})


def _slid(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *,
    ceil: bool = False,
) -> tuple[int, ...]:
    """How many places a window has in each direction, as PyTorch's documentation gives it. Raises `Misfit` where there is none."""
    places = []
    for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        reach = d * (k - 1) + 1
        room = n + 2 * p - reach
        count = (-(-room // s) if ceil else room // s) + 1
        if ceil and (count - 1) * s >= n + p:
            count -= 1  # a window begins inside the map, or in the padding before it
        if count < 1:
            hint = "a smaller kernel, more padding, or fewer strides before"
            raise Misfit(f"a window of {reach} does not fit into a map of {n} with a padding of {p}", hint, at=("kernel",))
        places.append(count)
    return tuple(places)
