"""Watch one forward pass: every call of every module, in order, and every operation by name."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from core.networks import Shape
from core.taps import Site, Tap

BATCH = 3
"""The batch that is sent through a watched network: not 1, which is too many other things."""


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the names of the operations; `relu_` and `relu` are one."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__.removesuffix("_"))
        return func(*args, **(kwargs or {}))


class Kept(saved_tensors_hooks):
    """Counts the bytes that autograd saves for a backward pass, each memory once, without the network's own weights and buffers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(self._save, lambda saved: saved)
        self._own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
        self._saved: dict[int, UntypedStorage] = {}  # held, because the addresses of the dead are given away again

    @property
    def bytes(self) -> int:
        """What is saved until now."""
        return sum(storage.nbytes() for storage in self._saved.values())

    def _save(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:
            self._saved[storage._cdata] = storage
        return tensor


@dataclass(slots=True)
class Call:
    """One call of one module: when it began and ended, and the tensors it took and gave, where those are a batch."""

    site: Site
    module: nn.Module
    begin: int
    taken: Tensor | None
    end: int = 0
    given: Tensor | None = None

    @property
    def whole(self) -> bool:
        """Whether this is a container, and not one layer."""
        return next(self.module.children(), None) is not None


class Watch:
    """Sees every call of every module of a network in one forward pass."""

    def __init__(self, network: nn.Module) -> None:
        self.calls: list[Call] = []
        self.counts: dict[str, int] = {}
        self._open: list[Call] = []
        self._seen: list[tuple[Tap, Tensor, int]] = []
        for name, module in network.named_modules():
            if name:
                module.register_forward_pre_hook(partial(self._enter, name))
                module.register_forward_hook(self._leave)

    @property
    def here(self) -> str:
        """The name of the innermost module whose call is under way, empty for the network itself."""
        return self._open[-1].site.module if self._open else ""

    def taps(self) -> dict[Tap, Shape]:
        """The shapes in the order of execution; a tensor that a later operation overwrote shows something else, so it is no tap."""
        return {tap: tuple(tensor.shape[1:]) for tap, tensor, version in self._seen if tensor._version == version}

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        call = Call(Site(name, self.counts[name], False), module, len(self._seen), self._see(Site(name, self.counts[name], True), args[:1]))
        self.calls.append(call)
        self._open.append(call)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        call = self._open.pop()
        call.end = len(self._seen)
        call.given = self._see(call.site, (output,))

    def _see(self, site: Site, values: tuple[Any, ...]) -> Tensor | None:
        for value in values:
            if isinstance(value, Tensor) and value.ndim >= 2 and value.shape[0] == BATCH:
                self._seen.append((site.tap, value, value._version))
                return value
        return None
