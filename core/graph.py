"""What one pass of a network computes, call by call: which tensors each function reads, with which weights, and what it gives."""

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from core.networks import Shape


class Node(BaseModel):
    """One call of a function on tensors that depend on the input.

    Those tensors are numbered: 0 is the input, and every call gives new numbers, also where it works in place. `at` is the innermost
    module under way, `weights` are the parameters and buffers read, in the order of the arguments, `shapes` are what is given, without
    the batch. `settings` spell all arguments out, "x" for a numbered tensor, "w" for a weight and "?" for any other tensor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    function: str
    at: str
    reads: tuple[int, ...]
    weights: tuple[str, ...]
    gives: tuple[int, ...]
    shapes: tuple[Shape, ...]
    settings: str

    @property
    def layer(self) -> str:
        """The module that owns the weights, or, where there are none, the one under way: what a person is told."""
        return self.weights[0].rpartition(".")[0] if self.weights else self.at


class Record(TorchFunctionMode):
    """Notes every call of a pass in `nodes`; `here` tells the innermost module under way. Works on the meta device."""

    def __init__(self, network: nn.Module, x: Tensor, here: Callable[[], str]) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self._names = {id(tensor): name for name, tensor in (*network.named_parameters(), *network.named_buffers())}
        self._here = here
        self._numbers: dict[int, int] = {}
        self._alive: list[Tensor] = []  # ids of the dead are given away again
        self._number(x)

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        named = kwargs or {}
        taken = list(_tensors((args, named)))
        reads = tuple(self._numbers[id(tensor)] for tensor in taken if id(tensor) in self._numbers)
        settings = ", ".join(
            [*map(self._word, args), *(f"{name}={self._word(value)}" for name, value in named.items() if name != "inplace")]
        )
        out = function(*args, **named)
        given = list(_tensors(out))
        if reads and given:
            self.nodes.append(
                Node(
                    function=_IN_PLACE.get(function.__name__, function.__name__),
                    at=self._here(),
                    reads=reads,
                    weights=tuple(self._names[id(tensor)] for tensor in taken if id(tensor) in self._names),
                    gives=tuple(map(self._number, given)),
                    shapes=tuple(tuple(tensor.shape[1:]) for tensor in given),
                    settings=settings,
                )
            )
        return out

    def _number(self, tensor: Tensor) -> int:
        self._alive.append(tensor)
        self._numbers[id(tensor)] = len(self._alive) - 1
        return self._numbers[id(tensor)]

    def _word(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return "x" if id(value) in self._numbers else "w" if id(value) in self._names else "?"
        if isinstance(value, (tuple, list)):
            return f"({', '.join(map(self._word, value))})"
        return repr(value)


_IN_PLACE = {f"{before}{name}{after}": name for name in ("add", "sub", "mul", "relu") for before, after in (("__i", "__"), ("", "_"))}
"""What works in place, and the function that it is for whoever looks at values."""


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
