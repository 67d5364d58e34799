"""A network as the linear map that it is near a batch: what its outputs change by along a direction, without a second derivative.

A network of convolutions, batch norms in eval mode, ReLUs and poolings is linear between its kinks. One forward pass is recorded:
where each ReLU was open, which entry each maximum took. The same modules then run on a direction instead of an image, and each call
is replayed by its linear part: a convolution without its bias, a batch norm's scale alone, the recorded openings. The result is an
ordinary graph, so one backward pass gives what double backward gives, and exactly: nothing here is a finite difference.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from core.errors import Refused
from core.taps import Tapped, View

Form = Literal["auto", "double_backward", "tangent"]
Along = Callable[[Tensor], View]
Replay = Callable[..., Any]


class Nonlinear(Exception):
    """A network calls a function of which no tangent is known here; `function` is its name."""

    def __init__(self, function: str) -> None:
        super().__init__(f"no tangent is known of {function!r}")
        self.function = function


def look(network: Tapped, x: Tensor, form: Form) -> tuple[View, Along | None]:
    """What a network shows of x in eval mode, and its `linearise`d map; None where double backward is asked for or, with "auto", where a
    layer has no tangent. With "tangent" such a layer is `Refused`.

    "auto" prefers the tangent: with double backward a step took 1.7 times as long on WRN-16-2 and 1.5 times on a convnet
    (`benchmarks/results/penalty.json`). Only a CPU was measured.
    """
    if form != "double_backward":
        try:
            return linearise(network, x)
        except Nonlinear as unknown:
            if form == "tangent":
                reason = f'the form "tangent" was asked for, and a network calls {unknown.function!r}, whose tangent is not known here'
                raise Refused("/methods", reason, hint='"form": "auto" takes double backward then') from unknown
    with network.quiet():
        return network(x), None


def linearise(network: Tapped, x: Tensor) -> tuple[View, Along]:
    """What a network shows of x (B, ...) in eval mode, and the map from a direction (B, ...) in data units to the derivatives of all
    that it showed along it: logits (B, C) and taps, each sample along its own direction.

    The map is differentiable in the network's parameters, the place where each ReLU is open held fixed. Raises `Nonlinear`.
    """
    record = Record(x)
    with network.quiet(), record:
        shown = network(x)
    calls = tuple(record.calls)
    record.moving.clear()

    def along(direction: Tensor) -> View:
        with network.quiet(), _Replay(calls):
            moved: View = network(direction)
        return moved

    return shown, along


class _Call(NamedTuple):
    """One call of the recorded pass: the function, and what takes its place on a direction; None where it is linear itself."""

    function: str
    replay: Replay | None


class Record(TorchFunctionMode):
    """Runs a pass as it is, and notes for each call how it acts on a direction; `Nonlinear` at the first that is not linear in pieces.

    `moving` holds what depends on the input, by id, and keeps it alive: ids of the dead are given away again.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.moving = {id(x): x}

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        name, named = function.__name__, kwargs or {}
        moved = [id(tensor) in self.moving for tensor in tensors((args, named))]
        if not any(moved):
            self.calls.append(_Call(name, None))
            return function(*args, **named)
        if function is F.max_pool2d and not named.get("return_indices"):  # torch.max_pool2d, of the same name, tells no places
            out, places = function(*args, **{**named, "return_indices": True})
            replay: Replay | None = _picked(places)
        else:
            out = function(*args, **named)
            replay = _replay(function, args, named, out, all_move=all(moved), first_alone=id(args[0]) in self.moving and sum(moved) == 1)
        self.calls.append(_Call(name, replay))
        self.moving |= {id(tensor): tensor for tensor in tensors(out)}
        return out


class _Replay(TorchFunctionMode):
    """Runs the same pass on a direction, each call as it was noted."""

    def __init__(self, calls: Iterable[_Call]) -> None:
        super().__init__()
        self.calls = iter(calls)

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        call = next(self.calls)
        assert call.function == function.__name__, f"the second pass calls {function.__name__!r} where the first called {call.function!r}"
        return (call.replay or function)(*args, **(kwargs or {}))


_READS = frozenset({"__get__", "dim", "is_floating_point", "size"})
"""Questions about a tensor that its values do not answer."""
_LINEAR = frozenset(
    {"__getitem__", "adaptive_avg_pool2d", "add", "avg_pool2d", "cat", "channel_shuffle", "chunk", "flatten", "mean", "permute", "reshape"}
    | {"interpolate", "sub", "to", "transpose", "view"}
)
"""Linear where every tensor in the call moves with the input."""
_SCALES = frozenset({"div", "mul"})
"""Linear in the first operand alone."""


def _replay(function: Any, args: tuple[Any, ...], named: dict[str, Any], out: Any, *, all_move: bool, first_alone: bool) -> Replay | None:
    """How one call acts on a direction. `Nonlinear` for what is not on the list, and for what may not be linear as it was called."""
    name = function.__name__
    given = list(tensors(out))
    if name in _READS and not given:
        return None
    if "rounding_mode" in named or not all(tensor.is_floating_point() for tensor in given):
        raise Nonlinear(name)  # what rounds has steps
    plain = not any(isinstance(value, (int, float)) for value in args[1:2])
    if name in _LINEAR and all_move and (name not in ("add", "sub") or plain):
        return None
    if first_alone:
        if name in _SCALES:
            return None
        if name in ("add", "sub") and out.shape == args[0].shape:
            return lambda u, *_, **__: u  # a constant does not move
        maker = _MAKERS.get(name)
        replay = maker(function, out, *args, **named) if maker else None
        if replay is not None:
            return replay
    raise Nonlinear(name)


def _layer(function: Any, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **named: Any) -> Replay:
    return lambda u, *_, **__: function(u, weight, None, *rest, **named)


def _batch_norm(  # noqa: PLR0917 -- as torch calls it
    function: Any, out: Tensor, x: Tensor, mean: Tensor | None, var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Replay | None:  # fmt: skip
    if training or mean is None:
        return None
    return lambda u, *_, **__: F.batch_norm(u, torch.zeros_like(mean), var, weight, None, False, 0.0, eps)


def _relu(function: Any, out: Tensor, x: Tensor, inplace: bool = False) -> Replay | None:
    # The gradient of a function that acts entry by entry is its tangent too, and a kernel of its own.
    open_ = out.detach()
    return None if inplace else lambda u, *_, **__: torch.ops.aten.threshold_backward(u, open_, 0)


def _leaky_relu(function: Any, out: Tensor, x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Replay | None:
    entered = x.detach()
    return None if inplace else lambda u, *_, **__: torch.ops.aten.leaky_relu_backward(u, entered, negative_slope, False)


def _hardtanh(  # noqa: PLR0917 -- as torch calls it
    function: Any, out: Tensor, x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Replay | None:
    entered = x.detach()
    return None if inplace else lambda u, *_, **__: torch.ops.aten.hardtanh_backward(u, entered, min_val, max_val)


def _relu6(function: Any, out: Tensor, x: Tensor, inplace: bool = False) -> Replay | None:
    return _hardtanh(function, out, x, 0.0, 6.0, inplace)


def _dropout(  # noqa: PLR0917 -- as torch calls it
    function: Any, out: Tensor, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Replay | None:
    return None if training else function


def _pad(  # noqa: PLR0917 -- as torch calls it
    function: Any, out: Tensor, x: Tensor, pad: Any, mode: str = "constant", value: float | None = None
) -> Replay | None:
    return None if value else function


def _picked(places: Tensor) -> Replay:
    return lambda u, *_, **__: u.flatten(2).gather(2, places.flatten(2)).view_as(places)


_MAKERS: dict[str, Callable[..., Replay | None]] = {
    "batch_norm": _batch_norm,
    "conv2d": _layer,
    "dropout": _dropout,
    "hardtanh": _hardtanh,
    "leaky_relu": _leaky_relu,
    "linear": _layer,
    "pad": _pad,
    "relu": _relu,
    "relu6": _relu6,
}


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors among the arguments or results of a call, however they are nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
