"""See inside a network without touching it: `Tap` names a place, `Tapped` shows what passed there.

A tap is a module's name for what it returns ("layer3.1.bn2"), with ":in" for what it is given ("layer3.1.relu2:in", the
pre-activation), and with "#k" for the k-th call of a module that one forward pass calls more than once ("relu#2:in"). A name
without "#k" is the first call.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Tap = str


class Pair(NamedTuple):
    """A place in the teacher and the place in the student that should become like it."""

    teacher: Tap
    student: Tap


class Site(NamedTuple):
    """A tap taken apart: the module's name, which of its calls (from 1), and whether it is the input that is meant."""

    module: str
    call: int
    enters: bool

    @property
    def tap(self) -> Tap:
        """The one spelling of this place."""
        return self.module + (f"#{self.call}" if self.call > 1 else "") + (":in" if self.enters else "")


def site_of(tap: Tap) -> Site:
    """Take a tap apart; ValueError for one whose call is not a number from 1."""
    name = tap.removesuffix(":in")
    module, _, call = name.partition("#")
    if "#" in name and not (call.isdecimal() and int(call) >= 1):
        raise ValueError(f"{tap!r}: after '#' comes the number of the call, counted from 1")
    return Site(module, int(call or 1), name != tap)


@dataclass(frozen=True, slots=True)
class View:
    """What one network showed for one batch: its logits (B, C), and what passed at each tap. A `Tapped` shows at least fp32."""

    logits: Tensor
    at: Mapping[Tap, Tensor]


@dataclass(slots=True)
class _Store:
    """What the hooks of one network have seen in the forward pass that is under way."""

    calls: dict[str, int] = field(default_factory=dict)
    at: dict[Tap, Tensor] = field(default_factory=dict)

    def clear(self) -> None:
        self.calls.clear()
        self.at.clear()


@dataclass(frozen=True, slots=True)
class _Enter:
    """Counts a call of one module, and keeps its first argument where that is wanted.

    An object and not a closure: `copy.deepcopy` of a `Tapped` then copies the hooks together with the store they write to.
    """

    store: _Store
    module: str
    wanted: Mapping[int, Tap]

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        call = self.store.calls.get(self.module, 0) + 1
        self.store.calls[self.module] = call
        if call in self.wanted:
            self.store.at[self.wanted[call]] = args[0]


@dataclass(frozen=True, slots=True)
class _Leave:
    """Keeps what one module returns where that is wanted."""

    store: _Store
    module: str
    wanted: Mapping[int, Tap]

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        call = self.store.calls[self.module]
        if call in self.wanted:
            self.store.at[self.wanted[call]] = output


class Tapped(nn.Module):
    """A network that normalises its own input and shows its taps.

    Takes x (B, C, H, W) or (B, D) in the dataset's own range and gives a `View`. `mean` and `std` are per channel (or per
    feature, or one for all) in that range; without them x is passed on as it is. The hooks are set here, once, for `taps` and
    nothing else, so compile afterwards. In-place modules are switched to out-of-place: an in-place ReLU would overwrite the
    pre-activation that a tap has just kept. The network's state dict keeps its own keys: `tapped.network.state_dict()`. `outputs` are those
    of the network's outputs that make the logits, in that order; all in their own where left out.

    KeyError at construction for a tap of a module the network does not have, and in `forward` for a call that never came.
    """

    mean: Tensor
    std: Tensor
    outputs: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        *,
        taps: Iterable[Tap] = (),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        outputs: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None):
            raise ValueError("mean and std belong together: give both or neither")
        self.network = network
        self.taps = tuple(dict.fromkeys(taps))
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        self.register_buffer("mean", torch.tensor(tuple(mean or (0.0,)), dtype=torch.float32, device=device), persistent=False)
        self.register_buffer("std", torch.tensor(tuple(std or (1.0,)), dtype=torch.float32, device=device), persistent=False)
        self.register_buffer("outputs", None if outputs is None else torch.tensor(tuple(outputs), device=device), persistent=False)
        self._store = _Store()
        self._set_hooks()
        # `quiet` walks this list: asking an nn.Module for its modules anew at every step costs more than the step of a small network.
        self._modules_once: tuple[nn.Module, ...] = tuple(self.modules())
        for module in self._modules_once:
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]

    def forward(self, x: Tensor) -> View:
        """The logits and every tap, in fp32 where autocast made them narrower: losses are computed on them. The store is emptied
        before and after, so no graph stays alive between calls.
        """
        self._store.clear()
        logits = _wide(self.network(self.normalise(x)))
        if self.outputs is not None:
            logits = logits[:, self.outputs]
        at = {tap: _wide(value) for tap, value in self._store.at.items()}
        self._store.clear()
        if len(at) != len(self.taps):
            raise KeyError(f"never called in this forward pass: {', '.join(tap for tap in self.taps if tap not in at)}")
        return View(logits, at)

    def normalise(self, x: Tensor) -> Tensor:
        """x in the space the network was trained in: (x - mean) / std, channel by channel."""
        shape = (-1,) + (1,) * (x.ndim - 2)
        return (x - self.mean.view(shape)) / self.std.view(shape)

    @contextmanager
    def quiet(self) -> Iterator["Tapped"]:
        """Eval mode for a while; gives back to each module its own flag, so what was frozen stays frozen."""
        flags = [module.training for module in self._modules_once]
        for module in self._modules_once:
            module.training = False
        try:
            yield self
        finally:
            for module, flag in zip(self._modules_once, flags, strict=True):
                module.training = flag

    def _set_hooks(self) -> None:
        modules = dict(self.network.named_modules())
        wanted: dict[str, tuple[dict[int, Tap], dict[int, Tap]]] = {}
        for tap in self.taps:
            site = site_of(tap)
            if not site.module or site.module not in modules:
                raise KeyError(f"{tap!r}: the network has no module of that name")
            enters, leaves = wanted.setdefault(site.module, ({}, {}))
            (enters if site.enters else leaves)[site.call] = tap
        for name, (enters, leaves) in wanted.items():
            modules[name].register_forward_pre_hook(_Enter(self._store, name, enters))
            if leaves:
                modules[name].register_forward_hook(_Leave(self._store, name, leaves))


def _wide(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32)) if value.is_floating_point() else value
