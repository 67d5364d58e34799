"""Which channels of a network are one: what a sum, a batch norm or a concatenation ties together must be widened together.

A *unit* is a channel from where a layer makes it to where layers read it. A convolution or a linear layer makes new ones; what acts entry
by entry hands them on; a sum makes its operands' units one; a concatenation, a flattening or a padding with channels moves them about.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from core.graph import Node
from core.networks import Shape

Units = NDArray[np.int64]
"""The unit of each entry of a tensor's second axis, or of a weight's axis."""

ACTIVATIONS = frozenset(
    {"celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "relu", "relu6", "selu", "sigmoid", "silu"}
    | {"softplus", "tanh"}
)
POOLS = frozenset({"adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d"})
DROPOUTS = frozenset({"alpha_dropout", "dropout", "dropout2d", "feature_dropout"})
SHAPINGS = frozenset({"flatten", "reshape", "view"})
_SUMS = frozenset({"add", "mul", "sub"})


@dataclass(frozen=True, slots=True)
class Channels:
    """The units of every tensor (by number) and of every axis of a weight that has them; others are not listed.

    `fixed` are tensors whose channels are bound to their places, with the layer that binds them: a normalisation over channels, a grouped
    convolution, a function that is not known here.
    """

    tensors: Mapping[int, Units]
    weights: Mapping[str, tuple[Units, ...]]
    fixed: Mapping[int, str]


def channels(graph: Sequence[Node], entrance: Shape, weights: Mapping[str, Shape]) -> Channels:
    """Follow the channels of an input of this shape, without the batch, through a network whose weights have these shapes."""
    flow = _Flow(weights)
    flow.tensors[0], flow.shapes[0] = flow.new(entrance[0]), entrance
    flow.fixed[0] = "the input"
    for node in graph:
        flow.follow(node)
    roots = flow.roots()
    return Channels(
        {number: roots[units] for number, units in flow.tensors.items()},
        {name: tuple(roots[units] for units in axes) for name, axes in flow.weights.items()},
        flow.fixed,
    )


@dataclass(slots=True)
class _Flow:
    extents: Mapping[str, Shape]
    tensors: dict[int, Units] = field(default_factory=dict)
    shapes: dict[int, Shape] = field(default_factory=dict)
    weights: dict[str, tuple[Units, ...]] = field(default_factory=dict)
    fixed: dict[int, str] = field(default_factory=dict)
    parents: list[int] = field(default_factory=list)

    def new(self, count: int) -> Units:
        begin = len(self.parents)
        self.parents.extend(range(begin, begin + count))
        return np.arange(begin, begin + count)

    def root(self, unit: int) -> int:
        while self.parents[unit] != unit:
            self.parents[unit] = self.parents[self.parents[unit]]
            unit = self.parents[unit]
        return unit

    def roots(self) -> Units:
        return np.array([self.root(unit) for unit in range(len(self.parents))], dtype=np.int64)

    def tie(self, one: Units, other: Units) -> Units:
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            first, second = sorted((self.root(a), self.root(b)))
            self.parents[second] = first
        return one

    def follow(self, node: Node) -> None:
        made = self._made(node)
        if made is None:
            # Whatever it does, it does to channels in their places.
            made = [self.new(shape[0] if shape else 1) for shape in node.shapes]
            self.fixed |= dict.fromkeys((*node.reads, *node.gives), node.layer)
        for number, shape, units in zip(node.gives, node.shapes, made, strict=True):
            self.tensors[number], self.shapes[number] = units, shape

    def _made(self, node: Node) -> list[Units] | None:
        """The units of what a call gives; None for a function of which they are not known."""
        reads, shape = [self.tensors[number] for number in node.reads], node.shapes[0]
        x, taken = reads[0], self.shapes[node.reads[0]]
        if "?" in node.settings:
            return None
        if node.weights:
            return self._layer(node, x, taken) if len(reads) == 1 else None
        if node.function in _SUMS and len(reads) == 2 and all(len(units) == len(x) == shape[0] for units in reads):
            return [self.tie(x, reads[1])]
        if node.function == "cat" and taken[1:] == shape[1:] and sum(map(len, reads)) == shape[0]:
            return [np.concatenate(reads)]
        if len(reads) > 1 or not taken or not shape:
            return None
        return self._routed(node, x, taken)

    def _layer(self, node: Node, x: Units, taken: Shape) -> list[Units] | None:
        name, extent = node.weights[0], self.extents[node.weights[0]]
        out = x
        if node.function == "batch_norm":
            self._axes(node.weights, x)
            return [x]
        if (node.function == "linear" and len(taken) == 1) or (node.function == "conv2d" and extent[1] == len(x)):
            out = self.new(extent[0])
            self._axes([name], out, x)
        elif node.function == "conv2d" and extent[:2] == (len(x), 1):
            self._axes([name], x)  # depthwise: each channel by itself
        else:
            return None
        self._axes(node.weights[1:], out)
        return [out]

    def _axes(self, names: Sequence[str], *axes: Units) -> None:
        for name in names:
            for one, other in zip(axes, self.weights.get(name, ()), strict=False):
                self.tie(one, other)
            self.weights[name] = axes

    def _routed(self, node: Node, x: Units, taken: Shape) -> list[Units] | None:
        """Calls that change no channel, and move it at most."""
        shape, alike = node.shapes[0], node.shapes[0][0] == taken[0]
        if alike and (node.function in ACTIVATIONS | POOLS | DROPOUTS or (node.function in _SUMS and shape == taken)):
            return [x]
        if node.function in SHAPINGS and shape == (prod(taken),):
            return [x.repeat(prod(taken[1:]))]
        if node.function == "chunk" and all(each[1:] == taken[1:] for each in node.shapes):
            return np.split(x, np.cumsum([each[0] for each in node.shapes])[:-1])
        if node.function == "channel_shuffle":
            return [x.reshape(int(node.settings.split(", ")[1]), -1).T.ravel()]
        if node.function == "pad" and len(taken) == 3 and "'constant'" in node.settings:
            before, after = paddings(node)[1]
            return [np.concatenate((self.new(before), x, self.new(after)))] if min(before, after) >= 0 else None
        return None


def paddings(node: Node) -> tuple[tuple[int, ...], tuple[int, int]]:
    """What a call of `pad` adds to maps (C, H, W): around them, and channels before and behind."""
    found = re.search(r"\(([-\d, ]+)\)", node.settings)
    extents = [int(number) for number in found[1].split(",") if number.strip()] if found else []
    extents += [0] * (6 - len(extents))
    return tuple(extents[:4]), (extents[4], extents[5])
