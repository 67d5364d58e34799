"""A network's measurements: enough to plan a job without the network, and to choose which of its places to compare."""

import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, field_serializer, field_validator
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from core.errors import Refused
from core.graph import Node, Record
from core.networks import Family, Shape
from core.taps import Pair, Tap, Tapped, site_of
from core.watch import BATCH, Call, Operations, Watch

LARGEST = 1_000_000_000
"""Networks with more parameters, and terms that bring more, are refused: four gigabytes of weights, three times that to train them."""
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


class Anatomy(BaseModel):
    """What can be known of a network without its weights. Shapes are without the batch.

    `parameters` counts what learns; `flops` is one forward pass of one input, a multiplication and its addition being two;
    `taps` stand in execution order, inputs (":in") too; `calls` says how often one forward pass calls a module; `ops` are the
    ATen operations by name, without the underscore of the in-place ones; `weights` are the names and shapes of the state dict,
    buffers included. `mean` and `std` are the network's own normalisation in data units, None where it has none. `graph` is the pass in
    eval mode, call by call; it is empty in a report that was stored before there was one. `frozen` is a network that can only be asked for
    its logits: nothing in it can be tapped, it gives no gradient, and its `flops` are 0, for nobody counted them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    input: Shape
    classes: int
    parameters: int
    flops: int
    taps: Mapping[Tap, Shape]
    calls: Mapping[str, int]
    ops: frozenset[str]
    weights: Mapping[str, Shape]
    stages: tuple[Stage, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    graph: tuple[Node, ...] = ()
    frozen: bool = False

    @field_validator("taps", mode="before")
    @classmethod
    def _taps_from_pairs(cls, value: object) -> object:
        return dict(value) if isinstance(value, (list, tuple)) else value

    @field_serializer("taps")
    def _taps_as_pairs(self, taps: Mapping[Tap, Shape]) -> list[tuple[Tap, Shape]]:
        # A list, because a database may sort the keys of an object and their order means something.
        return list(taps.items())

    @field_serializer("ops")
    def _ops_sorted(self, ops: frozenset[str]) -> list[str]:
        return sorted(ops)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `Anatomy.model_validate` reads them back."""
        return self.model_dump(mode="json")

    @property
    def fixed(self) -> frozenset[Tap]:
        """The taps that come before the first weight: what passes there is decided by the input alone, and no training moves it."""
        owners = {name.rpartition(".")[0] for name in self.weights}
        return frozenset(itertools.takewhile(lambda tap: tap.endswith(":in") or site_of(tap).module not in owners, self.taps))

    def require(self, tap: Tap, where: str = "/methods") -> Shape:
        """The shape at a tap; `Refused` at `where` for a tap the network does not have, naming the nearest."""
        if tap in self.taps:
            return self.taps[tap]
        try:
            site = site_of(tap)
        except ValueError as wrong:
            raise Refused(where, str(wrong)) from None
        if site.module in self.calls and site.call > self.calls[site.module]:
            times = self.calls[site.module]
            raise Refused(where, f"there is no tap {tap!r}: one forward pass calls {site.module!r} {times} time{'s'[: times > 1]}")
        near = difflib.get_close_matches(tap, self.taps, n=3, cutoff=0.4)
        hint = f"the nearest are {', '.join(near)}" if near else "GET /v1/teachers/{id}/taps and GET /v1/architectures/{id}/taps list them"
        raise Refused(where, f"there is no tap {tap!r} in this {self.family or 'network'}", hint=hint)


def measure(family: Family, *, normalization: Mapping[str, Sequence[float]] | None = None) -> Anatomy:
    """The anatomy of a network of this family, taken on the meta device: no weights, no arithmetic.

    `normalization` is {"mean": [...], "std": [...]}, per channel (per feature for flat inputs) or one value for all. `Refused`
    at /normalization where it does not fit the input, at /architecture for a network of absurd size.
    """
    mean, std = normalized(normalization, family.input)
    with torch.device("meta"):
        # A fresh network, out-of-place: in-place activations would overwrite the inputs that are measured here.
        network = Tapped(family.build()).network.eval()
        x = torch.empty(BATCH, *family.input)
    parameters = sum(p.numel() for p in network.parameters())
    if parameters > LARGEST:
        raise Refused("/architecture", f"{parameters:,} parameters are more than the {LARGEST:,} that are taken")
    watched = Watch(network)
    with (
        torch.no_grad(),
        FlopCounterMode(display=False) as flops,
        Operations() as operations,
        Record(network, x, lambda: watched.here) as record,
    ):
        logits = network(x)
    assert logits.shape == (BATCH, family.classes), f"{family.family} gives {tuple(logits.shape)}"
    return Anatomy(
        family=family.family,
        input=family.input,
        classes=family.classes,
        parameters=parameters,
        flops=flops.get_total_flops() // BATCH,
        taps=watched.taps(),
        calls=watched.counts,
        ops=frozenset(operations.names),
        weights={name: tuple(value.shape) for name, value in network.state_dict().items()},
        stages=_stages(watched.calls, family.input) if len(family.input) == 3 else (),
        mean=mean,
        std=std,
        graph=tuple(record.nodes),
    )


def match(teacher: Anatomy, student: Anatomy, what: Literal["out", "pre"] = "out", *, where: str = "/methods") -> tuple[Pair, ...]:
    """Default pairs: the stages of the two networks whose maps have the same size, in order.

    `what` is "out" for what stages give, "pre" for what enters the activation behind them. `Refused` at `where`, with the
    reason, if there is nothing to pair or a paired stage has no such place.
    """
    hint = "name the pairs yourself: [[teacher tap, student tap], ...]"
    for whose, anatomy in (("teacher", teacher), ("student", student)):
        if not anatomy.stages:
            flat = "a method that needs no maps; or, for one that takes any tap, name the pairs yourself: [[teacher tap, student tap], ...]"
            raise Refused(where, f"the {whose} ({anatomy.family}) has no maps with a height and a width, so no stages to pair", hint=flat)
    theirs = {stage.size: stage for stage in student.stages}
    both = [(stage, theirs[stage.size]) for stage in teacher.stages if stage.size in theirs]
    if not both:
        sizes = " and ".join(", ".join(f"{h}x{w}" for h, w in (s.size for s in a.stages)) for a in (teacher, student))
        raise Refused(where, f"no stage of the teacher has the size of one of the student: {sizes}", hint=hint)
    if what == "out":
        return tuple(Pair(t.out, s.out) for t, s in both)
    pairs = []
    for t, s in both:
        for whose, stage in (("teacher", t), ("student", s)):
            if stage.pre is None:
                height, width = stage.size
                reason = f"the {whose}'s stage {stage.out!r} at {height}x{width} is followed by no activation module to tap"
                raise Refused(where, reason, hint=hint)
        assert t.pre is not None
        assert s.pre is not None
        pairs.append(Pair(t.pre, s.pre))
    return tuple(pairs)


class Joint(NamedTuple):
    """A pair with the shapes, without the batch, that the two networks have there."""

    pair: Pair
    teacher: Shape
    student: Shape


def join(
    pairs: Sequence[Pair], teacher: Anatomy | None, student: Anatomy, what: Literal["out", "pre"], *, maps: bool, same_size: bool
) -> tuple[Joint, ...]:
    """A method's `pairs`, or those that `match` finds where it has none, with the shapes of both ends.

    `Refused` under /pairs for a tap that does not exist, for one of the student that no training moves, for one without height and width
    where `maps` are needed, and, with `same_size`, for ends whose maps differ in height or width.
    """
    assert teacher is not None, "plan refuses a method that needs a teacher where there is none"
    found = []
    for k, pair in enumerate(pairs or match(teacher, student, what, where="/pairs")):
        joint = Joint(pair, teacher.require(pair.teacher, f"/pairs/{k}/0"), student.require(pair.student, f"/pairs/{k}/1"))
        if pair.student in student.fixed:
            reason = f"nothing that the student learns comes before {pair.student!r}"
            raise Refused(f"/pairs/{k}/1", reason, hint="a tap behind the student's first layer")
        for end, (tap, shape) in enumerate(zip(pair, joint[1:], strict=True)):
            if maps and len(shape) != 3:
                raise Refused(f"/pairs/{k}/{end}", f"{tap!r} has the shape {shape}: no height and width", hint="name a tap that shows maps")
        if same_size and joint.teacher[1:] != joint.student[1:]:
            reason = f"the teacher's {pair.teacher!r} has the shape {joint.teacher}, the student's {pair.student!r} {joint.student}"
            raise Refused(f"/pairs/{k}", f"{reason}: height and width must be equal", hint="GET /v1/pairs suggests pairs that fit")
        found.append(joint)
    return tuple(found)


def normalized(
    normalization: Mapping[str, Sequence[float]] | None, shape: Shape
) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """Mean and deviation of a normalization for inputs of this shape, None for none. Raises Refused at /normalization."""
    if normalization is None:
        return None, None
    for name in ("mean", "std"):
        values = normalization.get(name)
        if values is None:
            raise Refused(f"/normalization/{name}", "a normalization has a mean and a std")
        if not isinstance(values, Sequence) or not all(isinstance(value, (int, float)) for value in values):
            raise Refused(f"/normalization/{name}", "a list of numbers, please: one a channel, or one for all")
        if len(values) not in {1, shape[0]}:
            raise Refused(f"/normalization/{name}", f"{len(values)} values for an input with {shape[0]} channels")
        # In float32, where they will be used: a deviation of 1e-300 is a division by zero there.
        numbers = torch.tensor(tuple(map(float, values)), dtype=torch.float32, device="cpu")
        if not bool(torch.isfinite(numbers).all()) or (name == "std" and float(numbers.min()) < torch.finfo(torch.float32).tiny):
            raise Refused(f"/normalization/{name}", "means are finite, and deviations are finite and above zero")
    return tuple(float(v) for v in normalization["mean"]), tuple(float(v) for v in normalization["std"])


def _stages(calls: list[Call], shape: Shape) -> tuple[Stage, ...]:
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
    stages = []
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
        stages.append(_stage(s, end, [call for call in calls if isinstance(call.module, _ACTIVATIONS) and size(call.taken) == s]))
    return tuple(stages)


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
