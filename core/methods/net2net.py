"""Net2Net: the student begins as the teacher's own function, in a wider and deeper network.

Wider. A layer of m channels becomes one of m' >= m: channel j repeats the teacher's channel g(j), which is j for j <= m and drawn for the
others. Whoever reads a channel divides it among its copies, with shares s that add up to 1 over the copies of one original:

    W'[i, j] = W[g_out(i), g_in(j)] * s[i, j]        b'[i] = b[g_out(i)]

for linear layers and convolutions; scale, shift and running statistics of batch norms are repeated as b is. What a sum, a concatenation, a
depthwise convolution or a flattening ties together has one g: that is read off the network itself. Deeper. A layer that the teacher lacks
is the identity: I, or a kernel of odd size with 1 at its centre, and a batch norm that undoes itself: its statistics are those of the first
batch, in train mode. Behind it phi(phi(z)) = phi(z) must hold: ReLU and ReLU6. A residual block that the teacher lacks begins as zero: its
last layer, or that one's scale, is 0 and learns at once; the rest of the block is as drawn.

Both are exact in eval mode and, without dropout, in train mode; with a new batch norm, in train mode on that first batch alone. Equal
copies would get equal gradients for ever, so the shares differ at random, in every row (`split`): copies part at the first step, under
Adam too, and the function stays. The paper moves the copies instead: `noise`, which changes the function by about as much.

Use it to grow a trained teacher, for a student of its family that is nowhere narrower and has all of its layers, by name. What does not
fit is refused by name: other classes or another normalisation, a pooling that the teacher lacks (a `convnet` deepens where its maps have
one pixel), a wider layer norm or group norm, a WRN of `widen` 1 made wider (its first shortcut has no weights, the student's would).

Cost: one pass of the student over one batch, before the training.

A channel with two copies is read in parts that make a whole:

>>> import torch
>>> shares(torch.tensor([0, 1, 0]), rows=1, split=0.0, generator=torch.Generator()).tolist()
[[0.5, 1.0, 0.5]]

Reference: T. Chen, I. Goodfellow, J. Shlens, Net2Net: Accelerating Learning via Knowledge Transfer, ICLR 2016.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from core.anatomy import Anatomy
from core.errors import Refused
from core.growth import Growth, calibrate, grow
from core.method import Lesson, Method, Surgery
from core.taps import Tapped


def shares(copies: Tensor, rows: int, split: float, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """(rows, m'): how each reader divides a channel among its copies; `copies` (m',) tells the original of each.

    1/n where there are n, times 1 + split * u; u is in (-1, 1), drawn for each, and 0 in the mean over the copies of one original.
    """
    count = torch.bincount(copies)[copies]
    if split == 0 or int(count.max()) == 1:
        return (1 / count.to(dtype)).expand(rows, -1)
    index = copies.expand(rows, -1)
    draws = torch.rand(rows, len(copies), generator=generator, dtype=dtype)
    mean = torch.zeros(rows, int(copies.max()) + 1, dtype=dtype).scatter_add_(1, index, draws).gather(1, index) / count
    return (1 + split * (draws - mean)) / count


class Net2Net(Method):
    """Begin as the teacher's function, widened and deepened."""

    reference: ClassVar[str] = "Chen, Goodfellow & Shlens, Net2Net: Accelerating Learning via Knowledge Transfer, ICLR 2016"
    examples = ({}, {"split": 0, "noise": 0.01})

    name: Literal["net2net"] = "net2net"
    split: float = Field(
        0.5, ge=0, lt=1, description="How far the shares of copies differ: 0 is equal shares, 0.5 from half to one and a half. Exact. Ours."
    )
    noise: float = Field(
        0.0,
        ge=0,
        le=10,
        description="The deviation of what is added to the incoming weights of the copies, over that of the layer's weights.",
    )

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        """One surgery."""
        assert teacher is not None
        growth = grow(teacher, student)
        (theirs,), (ours,) = teacher.graph[-1].shapes, student.graph[-1].shapes
        if theirs != ours:
            reason = f"the layer {student.graph[-1].layer!r} has {ours[0]} outputs in the student and {theirs[0]} in the teacher"
            raise Refused("/methods", reason, hint="the method padding takes more classes, and transfer a new head")
        lonely = self.split == self.noise == 0 and any(len(wide) > len(narrow) for wide, narrow in growth.groups)
        warning = "net2net without split and noise: the copies of a unit get equal gradients and stay copies; 'split': 0.5 parts them"
        return Lesson(initialise=(_surgery(self, growth),), warnings=(warning,) if lonely else (), keeps_outputs=True)


def _surgery(method: Net2Net, growth: Growth) -> Surgery:
    def operate(teacher: Tapped | None, student: Tapped, x: Tensor, generator: torch.Generator) -> None:
        assert teacher is not None
        chosen = growth.repeat(generator)
        theirs, ours = teacher.network.state_dict(), student.network.state_dict()
        with torch.no_grad():
            for name in growth.copied:
                value, places = theirs[name].cpu(), growth.places(name, chosen)
                deviation = value.float().std(correction=0)
                for axis, place in enumerate(places):
                    value = value.index_select(axis, place)
                if len(places) == 2:
                    rows = _copies(places[0])
                    noise = torch.randn((len(rows), *value.shape[1:]), generator=generator) if method.noise else torch.zeros(())
                    value[rows] += (method.noise * deviation * noise).to(value)
                    share = shares(places[1], len(value), method.split, generator, value.dtype)
                    value *= share.reshape(*share.shape, *(1,) * (value.ndim - 2))
                ours[name].copy_(value)
            for node in growth.vanishing:
                for name in node.weights[-2:] if node.function == "batch_norm" else node.weights:
                    ours[name].zero_()
            for node in growth.passing:
                if node.function != "batch_norm":
                    out, into = growth.handed(node, chosen)
                    for name in node.weights:
                        ours[name].zero_()
                    weight = ours[node.weights[0]]
                    centre = weight[(slice(None), slice(None), *(size // 2 for size in weight.shape[2:]))]
                    centre.copy_((out[:, None] == into) * shares(into, len(out), method.split, generator, weight.dtype))
            calibrate(student, [node.layer for node in growth.passing if node.function == "batch_norm"], x)

    return operate


def _copies(places: Tensor) -> list[int]:
    """The rows that repeat one that came before."""
    rows = list(enumerate(places.tolist()))
    first = {place: row for row, place in reversed(rows)}
    return [row for row, place in rows if first[place] < row]
