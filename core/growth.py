"""How a larger network may hold a smaller one: which of the teacher's channels each of the student's repeats.

`core.counterparts` tells which tensors the two have in common, `core.channels` which channels of a network are one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from core.anatomy import Anatomy
from core.channels import Channels, Units, channels
from core.counterparts import counterparts, differs
from core.errors import Refused
from core.graph import Node
from core.taps import Tapped


@dataclass(frozen=True, slots=True)
class Growth:
    """A student that can hold its teacher.

    `copied` are the weights that both have. `passing` are the new layers that must hand on what they are given, `vanishing` those that must
    give zero; new layers inside a residual branch are in neither. `groups` are (units of the student, units of the teacher) that
    stand for each other, the student's never fewer.
    """

    copied: tuple[str, ...]
    passing: tuple[Node, ...]
    vanishing: tuple[Node, ...]
    groups: tuple[tuple[Units, Units], ...]
    teacher: Channels
    student: Channels
    twins: Mapping[int, int]

    @property
    def inserted(self) -> tuple[str, ...]:
        """The layers that only the student has, in order."""
        new = (name.rpartition(".")[0] for name in self.student.weights if name not in self.teacher.weights)
        return tuple(dict.fromkeys(new))

    def repeat(self, generator: torch.Generator | None) -> dict[int, int]:
        """The teacher's unit for each of the student's: the first ones in order, the others drawn; without a generator others have none."""
        chosen: dict[int, int] = {}
        for ours, theirs in self.groups:
            chosen |= dict(zip(ours.tolist(), theirs.tolist(), strict=False))
            more = ours[len(theirs) :].tolist()
            if generator is not None and more:
                drawn = torch.randint(len(theirs), (len(more),), generator=generator).tolist()
                chosen |= {unit: int(theirs[k]) for unit, k in zip(more, drawn, strict=True)}
        return chosen

    def places(self, name: str, chosen: Mapping[int, int]) -> tuple[Tensor, ...]:
        """For each axis of a copied weight, which entry of the teacher's each of the student's repeats; -1 for none."""
        ours, theirs = self.student.weights.get(name, ()), self.teacher.weights.get(name, ())
        return tuple(places(one, other, chosen) for one, other in zip(ours, theirs, strict=True))

    def handed(self, node: Node, chosen: Mapping[int, int]) -> tuple[Tensor, Tensor]:
        """For a passing layer, which channel of the teacher's tensor each channel that it gives, and that it takes, repeats."""
        theirs = self.teacher.tensors[self.twins[node.reads[0]]]
        out, into = (places(self.student.tensors[number], theirs, chosen) for number in (node.gives[0], node.reads[0]))
        return out, into


def places(ours: Units, theirs: Units, chosen: Mapping[int, int]) -> Tensor:
    """Where in `theirs` each unit of `ours` finds its own; the second time it occurs, where that occurs the second time. -1 for none."""
    known = {occurrence: place for place, occurrence in enumerate(_occurrences(theirs.tolist()))}
    found = (known.get((chosen.get(unit, -1), time), -1) for unit, time in _occurrences(ours.tolist()))
    return torch.tensor(list(found), dtype=torch.int64, device="cpu")


def _occurrences(units: Iterable[int]) -> Iterable[tuple[int, int]]:
    seen: Counter[int] = Counter()
    for unit in units:
        yield unit, seen[unit]
        seen[unit] += 1


def grow(teacher: Anatomy, student: Anatomy) -> Growth:
    """How the student holds the teacher. `Refused` with the layer named where it cannot, or where their inputs are normalised otherwise."""
    for whose, anatomy in (("teacher", teacher), ("student", student)):
        if not anatomy.graph:
            reason = f"the {whose}'s report is older than this method: it does not tell how channels flow"
            raise Refused("/methods", reason, hint=f"add the {whose} again")
    same_normalization(teacher, student)
    found = counterparts(teacher, student)
    ours = channels(student.graph, student.input, student.weights)
    theirs = channels(teacher.graph, teacher.input, teacher.weights)
    growth = Growth(
        copied=tuple(name for name, extent in student.weights.items() if name in theirs.weights or teacher.weights.get(name) == extent),
        passing=found.passing,
        vanishing=found.vanishing,
        groups=_groups(teacher, student, theirs, ours, found.tensors),
        teacher=theirs,
        student=ours,
        twins=found.tensors,
    )
    _check(growth, student)
    return growth


def same_normalization(teacher: Anatomy, student: Anatomy) -> None:
    """`Refused` where the same image is another input for the student's weights than for the teacher's."""
    if _normalised(teacher) != _normalised(student):
        reason = "the student normalises its input otherwise than the teacher, so the teacher's weights would see other inputs in it"
        raise Refused("/methods", reason, hint="an architecture with the teacher's normalization")


def _normalised(anatomy: Anatomy) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = anatomy.mean or (0.0,), anatomy.std or (1.0,)
    count = anatomy.input[0]
    return mean * (count // len(mean)), std * (count // len(std))


def _groups(
    teacher: Anatomy, student: Anatomy, theirs: Channels, ours: Channels, twins: Mapping[int, int]
) -> tuple[tuple[Units, Units], ...]:
    """Which units stand for which: a group of the student's occurs in some tensors, and so do its counterparts, in few others besides.

    Those of the fewest: a unit that a padding made occurs behind it only, and must not stand for one that came through it.
    """
    shown = _by_place((number, ours.tensors[number]) for number in twins)
    hidden = _by_place((twin, theirs.tensors[twin]) for twin in dict.fromkeys(twins.values()))
    found = []
    for numbers, units in shown.items():
        at = {twins[number] for number in numbers}
        holding = sorted((there for there in hidden if at <= there), key=len)
        name = next((name for name, axes in ours.weights.items() if axes and units[0] in axes[0]), "the input")
        layer = name.rpartition(".")[0]
        if not holding or (len(holding) > 1 and len(holding[0]) == len(holding[1])):
            raise differs(f"the channels of the student's layer {layer!r} have no counterpart in the teacher")
        counterpart = hidden[holding[0]]
        if len(units) < len(counterpart):
            whole = teacher.weights.get(name, (0,))[0], student.weights[name][0]
            many, few = whole if whole[0] > whole[1] else (len(counterpart), len(units))
            raise differs(f"the student's layer {layer!r} is narrower than the teacher's: {few} channels, not {many}")
        found.append((np.array(units), np.array(counterpart)))
    return tuple(found)


def _by_place(seen: Iterable[tuple[int, Units]]) -> dict[frozenset[int], list[int]]:
    """The units, sorted, of each set of tensors in which units occur."""
    at: dict[int, set[int]] = defaultdict(set)
    for number, units in seen:
        for unit in np.unique(units).tolist():
            at[unit].add(number)
    groups: dict[frozenset[int], list[int]] = defaultdict(list)
    for unit in sorted(at):
        groups[frozenset(at[unit])].append(unit)
    return groups


def _check(growth: Growth, student: Anatomy) -> None:
    """What is bound to its place must stay there, and every channel of the teacher must be somewhere."""
    chosen = growth.repeat(None)
    layers = {number: node.layer for node in student.graph for number in node.gives}
    for number, twin in growth.twins.items():
        ours, theirs = growth.student.tensors[number], growth.teacher.tensors[twin]
        held = places(ours, theirs, chosen).tolist()
        bound = growth.student.fixed.get(number)
        if bound is not None and held != list(range(len(theirs))):
            reason = f"the layer {bound!r} looks at its channels together, or in groups, so there cannot be more of them"
            raise Refused("/methods", reason, hint="a student that has the teacher's width there")
        if set(held) - {-1} != set(range(len(theirs))):
            raise differs(f"the channels of the student's layer {layers.get(number, '')!r} do not hold the teacher's")


def calibrate(student: Tapped, norms: Sequence[str], x: Tensor) -> None:
    """Make new batch norms undo themselves: the statistics of x (B, ...), in train mode, and the scale and shift that bring it back.

    In eval mode they are the identity for any input, in train mode for x. The statistics of other batch norms, and every mode, stay.
    """
    if not norms:
        return
    network = student.network
    told: list[tuple[_BatchNorm, Tensor, Tensor]] = []

    def undo(module: _BatchNorm, args: tuple[Tensor]) -> None:
        var, mean = torch.var_mean(args[0], [dim for dim in range(args[0].ndim) if dim != 1], correction=0)
        module.weight.copy_((var + module.eps).sqrt())
        module.bias.copy_(mean)
        told.append((module, mean, var))

    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    hooks = [network.get_submodule(name).register_forward_pre_hook(undo) for name in norms]
    try:
        with torch.no_grad(), student.quiet():
            for module in network.modules():
                module.training = isinstance(module, _BatchNorm)
            student(x)
            for buffer, value in before:
                buffer.copy_(value)
            for module, mean, var in told:
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.copy_(mean)
                module.running_var.copy_(var)
    finally:
        for hook in hooks:
            hook.remove()
