"""Which tensors of a larger network's pass are those of a smaller one: the two are held against each other, call by call.

A layer of the same name corresponds. A layer that only the student has lies in a chain of such layers. Where the chain ends in a sum
with what it began from, it is a residual branch, and a last layer of zeros makes it vanish; elsewhere it must hand on what it is
given. In the end the student shows the teacher's logits, or it is refused.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.anatomy import Anatomy
from core.channels import ACTIVATIONS, DROPOUTS, POOLS, SHAPINGS, paddings
from core.errors import Refused
from core.graph import Node

_RELU = ("relu", "x")
_BOUNDS = frozenset({"relu", "relu6", "hardtanh"})
"""Activations that cut off what is beyond their bounds, and leave the rest as it is: twice is once."""


@dataclass(frozen=True, slots=True)
class Counterparts:
    """`tensors` of the student, by number, that are one of the teacher's; the calls of new layers that must hand on what they are given
    (`passing`), and of those that must give zero (`vanishing`). New layers inside a residual branch are in neither.
    """

    tensors: Mapping[int, int]
    passing: tuple[Node, ...]
    vanishing: tuple[Node, ...]


def counterparts(teacher: Anatomy, student: Anatomy) -> Counterparts:
    """Hold the student's pass against the teacher's. `Refused` at the first layer where the student cannot do as the teacher does."""
    walk = _Walk(teacher, student)
    walk.through()
    tensors = {number: twin for number, twin in walk.values.items() if isinstance(twin, int)}
    return Counterparts(tensors, tuple(walk.passing.values()), tuple(walk.vanishing.values()))


def differs(reason: str) -> Refused:
    """That the student cannot hold the teacher, and why."""
    return Refused("/methods", reason, hint="a student of the teacher's own family, nowhere narrower, and as deep or deeper")


@dataclass(frozen=True, slots=True)
class _Chain:
    """What new layers have made of a tensor of the teacher's (`base`): the calls since, and whether they hand it on is still open."""

    base: int
    calls: tuple[Node, ...]


@dataclass(slots=True)
class _Walk:
    """The student's pass held against the teacher's."""

    teacher: Anatomy
    student: Anatomy
    values: dict[int, int | _Chain] = field(default_factory=lambda: {0: 0})
    passing: dict[str, Node] = field(default_factory=dict)
    vanishing: dict[str, Node] = field(default_factory=dict)
    _alias: dict[int, int] = field(default_factory=lambda: {0: 0})
    _plain: dict[tuple[Any, ...], tuple[int, ...]] = field(default_factory=dict)
    _layers: dict[str, Node] = field(default_factory=dict)
    _settled: dict[int, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    _extents: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def through(self) -> None:
        """Follow the whole pass. `Refused` at the first layer where the student cannot do as the teacher does."""
        self._learn()
        ours = {node.weights[0] for node in self.student.graph if node.weights}
        for first, layer in self._layers.items():
            if first not in ours:
                raise differs(f"the student lacks the teacher's layer {layer.layer!r}")
        self._extents[0] = self.student.input
        for node in self.student.graph:
            self._extents |= dict(zip(node.gives, node.shapes, strict=True))
            self._follow(node)
        if self._known(self.student.graph[-1].gives[0]) != self._alias[self.teacher.graph[-1].gives[0]]:
            raise differs("the student ends where the teacher goes on")

    def _learn(self) -> None:
        """What the teacher computes from what."""
        for node in self.teacher.graph:
            reads = tuple(self._alias[number] for number in node.reads)
            self._alias |= {number: number for number in node.gives}
            if node.function in DROPOUTS:
                self._alias[node.gives[0]] = reads[0]
            elif node.weights:
                self._layers[node.weights[0]] = node
            else:
                first = self._plain.setdefault(_key(node, reads), node.gives)
                self._alias |= dict(zip(node.gives, first, strict=True))
                self._settle(node, reads)

    def _settle(self, node: Node, reads: Sequence[int]) -> None:
        """Which activations would leave what this call gives as it is."""
        kept = set.intersection(*(self._settled[number] for number in reads))
        if node.function in _BOUNDS:
            positive = node.function != "hardtanh" or "min_val=0.0" in node.settings
            kept = {(node.function, node.settings), *([_RELU] if positive else [])}
        elif node.function == "add" and len(reads) == 2:
            kept = kept & {_RELU}
        elif node.function not in POOLS | SHAPINGS | {"cat", "channel_shuffle", "chunk", "pad"}:
            kept = set()
        for number in node.gives:
            self._settled[number] = kept

    def _follow(self, node: Node) -> None:
        values = [self.values[number] for number in node.reads]
        chains = [value for value in values if isinstance(value, _Chain)]
        (first, *_), value = node.gives, values[0]
        if node.function in DROPOUTS:
            self.values[first] = value
        elif node.weights and node.weights[0] in self._layers:
            self.values[first] = self._layer(node, self._layers[node.weights[0]])
        elif node.weights:
            if node.function not in ("batch_norm", "conv2d", "linear") or len(values) > 1:
                raise differs(f"the layer {node.layer!r} is new, and no identity is known of {node.function!r}")
            self.values[first] = _Chain(value.base, (*value.calls, node)) if isinstance(value, _Chain) else _Chain(value, (node,))
        elif isinstance(value, _Chain) and node.function in ACTIVATIONS:
            self.values[first] = _Chain(value.base, (*value.calls, node))
        elif node.function == "add" and len(values) == 2 and len(chains) == 1 and chains[0].calls[-1].weights:
            last = chains[0].calls[-1]
            if any(call.layer in self.passing for call in chains[0].calls):
                raise differs(f"what the new layer {last.layer!r} gives is added, and read elsewhere too")
            (known,) = (other for other in values if not isinstance(other, _Chain))
            if known != chains[0].base:
                raise differs(f"the new layer {last.layer!r} is added to something else than it begins from, which the teacher does not do")
            self.vanishing[last.layer] = last
            self.values[first] = known
        else:
            for number, given in zip(node.gives, self._call(node, tuple(map(self._known, node.reads))), strict=True):
                self.values[number] = given

    def _layer(self, node: Node, theirs: Node) -> int:
        """The teacher's tensor that a layer of both gives."""
        given = tuple(map(self._known, node.reads))
        if given != tuple(self._alias[number] for number in theirs.reads):
            raise differs(f"the layer {node.layer!r} is given something else in the teacher")
        if (node.function, node.weights) != (theirs.function, theirs.weights) or _settings(self.student, node) != _settings(
            self.teacher, theirs
        ):
            raise differs(f"the layer {node.layer!r} has another kernel, or other settings, in the teacher")
        return theirs.gives[0]

    def _call(self, node: Node, given: tuple[int, ...]) -> tuple[int, ...]:
        """The teacher's tensors that a call without weights gives."""
        there = self._plain.get(_key(node, given)) if "?" not in node.settings else None
        if there is not None:
            return there
        if (node.function, node.settings) in self._settled[given[0]]:
            return given
        unpadded = node.function.startswith("adaptive") or (node.function == "max_pool2d" and "padding=0" in node.settings)
        if node.function in POOLS and unpadded and self._extents[node.reads[0]][1:] == node.shapes[0][1:] == (1, 1):
            return given  # a pooling of one pixel gives that pixel
        raise differs(f"{node.function!r} at {node.at!r} is not in the teacher, and changes what it is given")

    def _known(self, number: int) -> int:
        """The teacher's tensor that a tensor of the student is; a chain of new layers that leads there hands it on from now."""
        value = self.values[number]
        if not isinstance(value, _Chain):
            return value
        here = value.base
        for call in value.calls:
            if call.weights:
                if call.layer in self.vanishing:
                    raise differs(f"what the new layer {call.layer!r} gives is added, and read elsewhere too")
                if not self._can_pass(call):
                    raise differs(f"the new layer {call.layer!r} cannot hand on what it is given")
                self.passing[call.layer] = call
            else:
                (here,) = self._call(call, (here,))
            self.values[call.gives[0]] = here
        return here

    def _can_pass(self, node: Node) -> bool:
        extent, shape = self.student.weights[node.weights[0]], node.shapes[0]
        if node.function == "batch_norm":
            return len(node.weights) == 4
        if node.function == "linear":
            return len(shape) == 1
        if self._extents[node.reads[0]][1:] != shape[1:] or any(size % 2 == 0 for size in extent[2:]):
            return False
        around = tuple(size // 2 for size in extent[2:])
        return f", (1, 1), {around}, (1, 1), " in node.settings and (extent[1] == self._extents[node.reads[0]][0])


def _key(node: Node, reads: tuple[int, ...]) -> tuple[Any, ...]:
    """Two calls of one key give the same. What a call is told about widths is left out: how channels are moved is looked at apart."""
    if node.function in SHAPINGS and len(node.shapes[0]) == 1:
        return ("flatten", reads)
    if node.function == "pad":
        return ("pad", reads, paddings(node)[0], node.settings.partition("mode=")[2])
    if node.function in ("add", "mul") and len(reads) == 2:
        return (node.function, tuple(sorted(reads)))
    return (node.function, reads, node.settings)


def _settings(anatomy: Anatomy, node: Node) -> tuple[object, ...]:
    """What a layer is told, and its kernel; without the number of groups where each channel is its own."""
    extents = [anatomy.weights[name] for name in node.weights]
    said, _, last = node.settings.rpartition(", ")
    depthwise = node.function == "conv2d" and extents[0][1] == 1 and last == str(extents[0][0])
    return (said if depthwise else node.settings, depthwise, *(extent[2:] for extent in extents))
