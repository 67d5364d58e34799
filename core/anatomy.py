"""A network's measurements: enough to plan a job without the network, and to choose which of its places to compare."""

import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, field_serializer, field_validator
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from core.errors import NoTap, Refusals, Refused
from core.graph import Node, Record
from core.networks import LARGEST, Family, Shape
from core.stages import Stage, stages
from core.taps import Pair, Tap, Tapped, site_of
from core.watch import BATCH, Kept, Operations, Watch

_TRAINED = 64
"""The batch of the training pass: so large that what is kept once, as the statistics of a batch norm, counts little for one input."""


class Anatomy(BaseModel):
    """What can be known of a network without its weights. Shapes are without the batch.

    `parameters` counts what learns; `flops` is one forward pass of one input, a multiplication and its addition being two;
    `activations` are the bytes that a training pass in fp32 keeps for the backward pass, for one input of a batch of 64: what autograd
    saves, the input too, without weights and buffers. They are 0 in a report that was stored before they were measured.
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
    activations: int = 0
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
        """The shape at a tap; `NoTap` at `where` for a tap the network does not have, naming the nearest."""
        if tap in self.taps:
            return self.taps[tap]
        try:
            site = site_of(tap)
        except ValueError as wrong:
            raise NoTap(where, str(wrong)) from None
        if site.module in self.calls and site.call > self.calls[site.module]:
            times = self.calls[site.module]
            raise NoTap(where, f"there is no tap {tap!r}: one forward pass calls {site.module!r} {times} time{'s'[: times > 1]}")
        near = difflib.get_close_matches(tap, self.taps, n=3, cutoff=0.4)
        hint = f"the nearest are {', '.join(near)}" if near else "GET /v1/teachers/{id}/taps and GET /v1/architectures/{id}/taps list them"
        raise NoTap(where, f"there is no tap {tap!r} in this {self.family or 'network'}", hint=hint)


def measure(family: Family, *, normalization: Mapping[str, Sequence[float]] | None = None) -> Anatomy:
    """The anatomy of a network of this family, taken on the meta device: no weights, no arithmetic.

    `normalization` is {"mean": [...], "std": [...]}, per channel (per feature for flat inputs) or one value for all. `Refused`
    at /normalization where it does not fit the input, at /architecture for a network of absurd size or one that another library refuses.
    """
    mean, std = normalized(normalization, family.input)
    with torch.device("meta"):
        # A fresh network, out-of-place: in-place activations would overwrite the inputs that are measured here.
        network = Tapped(family.build()).network
        x = torch.empty(BATCH, *family.input)
    parameters = sum(p.numel() for p in network.parameters())
    if parameters > LARGEST:
        raise Refused("/architecture", f"{parameters:,} parameters are more than the {LARGEST:,} that are taken")
    kept = Kept(network)
    with kept:
        _try(family, network.train(), torch.empty(_TRAINED, *family.input, device="meta"))
    watched = Watch(network.eval().requires_grad_(False))
    with (
        torch.no_grad(),
        FlopCounterMode(display=False) as flops,
        Operations() as operations,
        Record(network, x, lambda: watched.here) as record,
    ):
        _try(family, network, x)
    return Anatomy(
        family=family.family,
        input=family.input,
        classes=family.classes,
        parameters=parameters,
        flops=flops.get_total_flops() // BATCH,
        activations=kept.bytes // _TRAINED,
        taps=watched.taps(),
        calls=watched.counts,
        ops=frozenset(operations.names),
        weights={name: tuple(value.shape) for name, value in network.state_dict().items()},
        stages=stages(watched.calls, family.input) if len(family.input) == 3 else (),
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
    found, wrong = [], Refusals()
    for k, pair in enumerate(pairs or match(teacher, student, what, where="/pairs")):
        with wrong.gather():
            found.append(_joint(pair, teacher, student, f"/pairs/{k}", maps=maps, same_size=same_size))
    wrong.check()
    return tuple(found)


def _joint(pair: Pair, teacher: Anatomy, student: Anatomy, where: str, *, maps: bool, same_size: bool) -> Joint:
    """One pair with its shapes, for `join`."""
    wrong, shapes = Refusals(), list[Shape]()
    for end, anatomy in enumerate((teacher, student)):
        with wrong.gather():
            shapes.append(anatomy.require(pair[end], f"{where}/{end}"))
    wrong.check()
    joint = Joint(pair, *shapes)
    if pair.student in student.fixed:
        reason = f"nothing that the student learns comes before {pair.student!r}"
        raise Refused(f"{where}/1", reason, hint="a tap behind the student's first layer")
    for end, (tap, shape) in enumerate(zip(pair, shapes, strict=True)):
        if maps and len(shape) != 3:
            raise Refused(f"{where}/{end}", f"{tap!r} has the shape {shape}: no height and width", hint="name a tap that shows maps")
    if same_size and joint.teacher[1:] != joint.student[1:]:
        reason = f"the teacher's {pair.teacher!r} has the shape {joint.teacher}, the student's {pair.student!r} {joint.student}"
        raise Refused(where, f"{reason}: height and width must be equal", hint="GET /v1/pairs suggests pairs that fit")
    return joint


def _try(family: Family, network: nn.Module, x: Tensor) -> None:
    """One pass of a batch. `Refused` at /architecture/input where a network that another library made does not take it."""
    try:
        shape = tuple(network(x).shape)
        assert shape == (len(x), family.classes), f"for {len(x)} inputs it gives {shape} and not {family.classes} values for each"
    except Exception as wrong:
        if not family.needs:
            raise
        raise Refused("/architecture/input", f"the network does not take inputs of the shape {family.input}: {wrong}") from wrong


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
        try:
            numbers = torch.tensor(tuple(map(float, values)), dtype=torch.float32, device="cpu")
        except OverflowError:  # a whole number of hundreds of digits
            numbers = torch.tensor([torch.inf])
        if not bool(torch.isfinite(numbers).all()) or (name == "std" and float(numbers.min()) < torch.finfo(torch.float32).tiny):
            raise Refused(f"/normalization/{name}", "means are finite, and deviations are finite and above zero")
    return tuple(float(v) for v in normalization["mean"]), tuple(float(v) for v in normalization["std"])
