"""The stages of a network: the stretches whose maps have one size, found by watching one pass."""

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from core.networks import Shape
from core.taps import Tap
from core.watch import Call

_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU,
    nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus, nn.Sigmoid, nn.Tanh,
)  # fmt: skip


class Stage(BaseModel):
    """A stretch of a network whose maps have one size.

    `out` is what the stage gives (`channels` of them); `pre` enters the activation that ends it, or, where a stage ends in a
    raw sum, the next activation of that size (`pre_channels` of them, which may differ). Without such a module `pre` is None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[int, int]
    out: Tap
    channels: int
    pre: Tap | None
    pre_channels: int | None


def stages(calls: list[Call], shape: Shape) -> tuple[Stage, ...]:
    """The stages of a network that was watched.

    A size counts if a convolution gives it and nothing larger comes later (a squeeze-and-excitation shrinks only for a moment).
    A stage ends with the last call before the outermost module that goes from its size to a smaller one begins; the last stage
    ends with its last whole block, because a batch norm and a ReLU before the pooling are not the block's.
    """

    def size(value: Tensor | None) -> tuple[int, int] | None:
        if value is None or value.ndim != 4:
            return None
        height, width = value.shape[2:]
        return (height, width) if abs(height * shape[2] - width * shape[1]) < max(shape[1:]) else None

    finished = sorted((call for call in calls if size(call.given)), key=lambda call: call.end)
    sizes: list[tuple[int, int]] = []
    convolved = set()
    for call in reversed(finished):
        now = size(call.given)
        if now and (not sizes or now[0] * now[1] > sizes[-1][0] * sizes[-1][1]):
            sizes.append(now)
        if now == sizes[-1] and isinstance(call.module, _ConvNd):
            convolved.add(now)
    kept = [s for s in reversed(sizes) if s in convolved]
    found = []
    for s in kept:
        ends = [call for call in finished if size(call.given) == s]
        if s == kept[-1]:
            end = next((call for call in reversed(ends) if call.whole), ends[-1])
        else:
            after = sizes[sizes.index(s) - 1]
            leaving = [call.begin for call in calls if size(call.taken) == s and size(call.given) == after]
            before = [[call for call in ends if call.end <= begin] for begin in leaving]
            if not any(before):
                continue
            end = next(there for there in before if there)[-1]
        found.append(_stage(s, end, [call for call in calls if isinstance(call.module, _ACTIVATIONS) and size(call.taken) == s]))
    return tuple(found)


def _stage(size: tuple[int, int], end: Call, activations: list[Call]) -> Stage:
    """The stage that `end` closes: its activation is the one that made its output, or else the next of that size."""
    own = [call for call in activations if call.given is end.given]
    following = [call for call in activations if call.begin >= end.end]
    pre = next(iter(own + following), None)
    assert end.given is not None
    return Stage(
        size=size,
        out=end.site.tap,
        channels=end.given.shape[1],
        pre=pre.site._replace(enters=True).tap if pre else None,
        pre_channels=pre.taken.shape[1] if pre and pre.taken is not None else None,
    )
