"""A declared network: a graph of allow-listed layers, written as JSON, with residual and branching connections."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from keyword import iskeyword
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from core.errors import Refused
from core.layers import LAYERS, Call, Layer, Misfit, Node, Shape
from core.networks import HEAD, LARGEST, Family

MOST_VALUES = 1 << 28
"""Networks whose pass makes more values of one input are refused: a gigabyte in fp32."""
MOST_FLOPS = 10**12
"""And those that compute more on one input: forty times what the largest ResNet does on a photograph."""
_TAKEN = frozenset({"input", "x", "self"})
"""Words of a forward pass as an export writes it down."""
_MODULE = nn.Module()


class Step(NamedTuple):
    """A layer in its place: what it reads, with the shapes, and the shape that it gives."""

    layer: Layer
    sources: tuple[str, ...]
    given: tuple[Shape, ...]
    shape: Shape


class Network(nn.Module):
    """Modules by name and, for each, the names of what it reads; "input" is x, and what the last gives are the logits."""

    def __init__(self, calls: Mapping[str, tuple[Call, Sequence[str]]]) -> None:
        super().__init__()
        for name, (call, _) in calls.items():
            self.add_module(name, call.build())
        self._sources = {name: tuple(sources) for name, (_, sources) in calls.items()}
        last = {source: name for name, sources in self._sources.items() for source in sources}
        self._done = {name: tuple(source for source in last if last[source] == name) for name in self._sources}

    def forward(self, x: Tensor) -> Tensor:
        values = {"input": x}
        for name, sources in self._sources.items():
            x = self._modules[name](*[values[source] for source in sources])  # type: ignore[misc]
            values[name] = x
            for source in self._done[name]:
                del values[source]  # what nobody reads any more takes no memory
        return x


class Graph(Family):
    """A network declared node by node: each names its layer (`op`), what it reads (`from`) and the layer's settings.

    A node reads those before it, by name, and without `from` the one before; "input" is the network's input. How many channels or features
    come in follows from what is read, so only those that go out are said. Every node is read by another but for the output, which gives
    (classes,). A node's name is the name of its module: `conv1.weight` is a weight, `conv1` and `conv1:in` are taps.
    """

    reference: ClassVar[str] = "whoever declares it"
    network: ClassVar[type[nn.Module]] = Network

    family: Literal["graph"] = "graph"
    nodes: Annotated[
        tuple[Node, ...],
        Field(min_length=1, max_length=2000, description="The layers, in an order in which each reads only those before it."),
    ]

    def check(self, where: str) -> None:
        self.steps(where)

    def steps(self, where: str = "/architecture") -> tuple[Step, ...]:
        """Every node with its shapes, in plain arithmetic: nothing is built. `Refused` under `where` with the node that does not fit."""
        shapes: dict[str, Shape] = {"input": self.input}
        steps = []
        total = _Total()
        for k, layer in enumerate(self.nodes):
            here = f"{where}/nodes/{k}"
            _check_name(layer.name, shapes, f"{here}/name")
            sources = layer.sources or (next(reversed(shapes)),)
            given = tuple(shapes[_found(source, shapes, self.nodes, f"{here}/from/{i}")] for i, source in enumerate(sources))
            step = Step(layer, sources, given, _fitted(layer, sources, given, here))
            total.add(step, here)
            steps.append(step)
            shapes[layer.name] = step.shape
        self._check_ends(steps, total, where)
        return tuple(steps)

    def build(self) -> nn.Module:
        """A fresh network with PyTorch's own initial weights. `Refused` as `steps` is."""
        steps = self.steps()
        return Network({step.layer.name: (step.layer.call(step.given), step.sources) for step in steps})

    def source(self) -> str:
        """This network as a Python file of its own, its forward pass written out, with a function `build()`; needs nothing but torch."""
        steps = self.steps()
        calls = {step.layer.name: step.layer.call(step.given) for step in steps}
        own = dict.fromkeys(call.make for call in calls.values() if not call.make.__module__.startswith("torch."))
        modules = [f"        self.{name} = {call.source()}" for name, call in calls.items()]
        network = [
            "class Network(nn.Module):",
            "    def __init__(self) -> None:",
            "        super().__init__()",
            *modules,
            "",
            "    def forward(self, input: Tensor) -> Tensor:",
            *(f"        {line}" for line in _unrolled(steps)),
        ]
        build = "def build() -> nn.Module:\n    return Network()\n"
        return "\n\n\n".join([HEAD, *(inspect.getsource(make).rstrip() for make in own), "\n".join(network), build])

    def _check_ends(self, steps: Sequence[Step], total: "_Total", where: str) -> None:
        read = {source for step in steps for source in step.sources}
        last = steps[-1]
        for k, step in enumerate(steps[:-1]):
            if step.layer.name not in read:
                reason = f"nothing reads {step.layer.name!r}, and it is not the last node, which gives the logits"
                raise Refused(f"{where}/nodes/{k}", reason, hint="leave it out, or name it in the `from` of a later node")
        if last.shape != (self.classes,):
            reason = f"the last node, {last.layer.name!r}, gives {last.shape}, not ({self.classes},), a value for each class"
            hint = f"a last node of the op linear with {self.classes} features, behind one of the op flatten where there are maps"
            raise Refused(f"{where}/nodes/{len(steps) - 1}", reason, hint=hint)
        if not total.parameters:
            raise Refused(f"{where}/nodes", "no node has weights, so there is nothing to learn", hint="a node of the op conv2d or linear")


class _Total:
    """What the network costs up to a node. `Refused` at the first that makes it too much, with the numbers."""

    def __init__(self) -> None:
        self.parameters = self.flops = self.values = 0

    def add(self, step: Step, here: str) -> None:
        self.parameters += step.layer.parameters(step.given)
        self.flops += step.layer.flops(step.given)
        self.values += step.layer.values(step.given)
        for count, most, what in (
            (self.parameters, LARGEST, "parameters"),
            (self.values, MOST_VALUES, "values of one input"),
            (self.flops, MOST_FLOPS, "floating-point operations on one input"),
        ):
            if count > most:
                reason = f"with {step.layer.name!r}, which gives {step.shape}, it has {_number(count)} {what}, more than the {most:,} taken"
                raise Refused(here, reason, hint="fewer channels or features, or smaller maps: a stride or a pooling earlier")


def _check_name(name: str, taken: Mapping[str, Shape], where: str) -> None:
    if name in _TAKEN or iskeyword(name) or hasattr(_MODULE, name):
        raise Refused(where, f"{name!r} means something else to Python or PyTorch", hint=f"such as {name}_1")
    if name in taken:
        raise Refused(where, f"two nodes are called {name!r}", hint="each node has a name of its own")


def _found(source: str, shapes: Mapping[str, Shape], nodes: Sequence[Layer], where: str) -> str:
    if source in shapes:
        return source
    if any(node.name == source for node in nodes):
        raise Refused(where, f"{source!r} comes later: a node reads only those before it", hint="put it further up")
    raise Refused(where, f"there is no node {source!r}", hint=_nearest(source, list(shapes)))


def _fitted(layer: Layer, sources: Sequence[str], given: Sequence[Shape], here: str) -> Shape:
    """The shape that a layer gives. `Refused` with what it is given where it cannot take that."""
    if layer.joins != (len(sources) > 1):
        many = "two nodes or more" if layer.joins else "one node"
        several = [op for op, each in LAYERS.items() if each.joins]
        hint = "name them in `from`" if layer.joins else f"{', '.join(several)} bring several together"
        raise Refused(f"{here}/from", f"{layer.op} reads {many}, and here it reads {', '.join(sources)}", hint=hint)
    try:
        return layer.shape(given)
    except Misfit as misfit:
        told = ", ".join(f"{source} gives {shape}" for source, shape in dict(zip(sources, given, strict=True)).items())
        at = misfit.at if layer.sources or misfit.at[0] != "from" else ()
        raise Refused("/".join((here, *map(str, at))), f"{layer.op}: {told}: {misfit.reason}", hint=misfit.hint) from None


def _unrolled(steps: Sequence[Step]) -> list[str]:
    """The lines of a forward pass. A value that only the next node reads is called x, any other by its node's name."""
    readers: dict[str, set[str]] = {}
    for step in steps:
        for source in step.sources:
            readers.setdefault(source, set()).add(step.layer.name)
    names, lines = {"input": "input"}, []
    for step, following in zip(steps, (*steps[1:], None), strict=True):
        name = step.layer.name
        names[name] = "x" if following is None or readers[name] == {following.layer.name} else name
        lines.append(f"{names[name]} = self.{name}({', '.join(names[source] for source in step.sources)})")
    return [*lines, "return x"]


def _nearest(word: str, words: list[str]) -> str:
    near = difflib.get_close_matches(word, words, n=3)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"the last before it are {', '.join(words[-5:])}"


def _number(count: int) -> str:
    return f"{count:,}" if count < 10**18 else f"over {10**18:,}"
