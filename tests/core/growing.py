"""Networks to grow: families made of any module, in float64 and with statistics as training leaves them, and a surgery done on them."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from core.anatomy import measure
from core.method import Method
from core.networks import Family, parse
from core.taps import Tapped
from tests.core.declared import required

INPUT = (2, 8, 8)


def family(make: Callable[[], nn.Module], shape: tuple[int, ...] = INPUT, classes: int = 3) -> Family:
    """A family of one network."""

    class Made(Family):
        reference: ClassVar[str] = "this file"
        family: Literal["made"] = "made"

        def build(self) -> nn.Module:
            return make()

    return Made(input=shape, classes=classes)


def zoo(name: str, /, **fields: Any) -> Family:
    """A family of the zoo, for small images of three classes."""
    return parse({"family": name, "input": list(INPUT), "classes": 3, **required(name, 3), **fields})


def network(made: Family, seed: int) -> Tapped:
    """A network of a family in float64; running statistics, scales and shifts are all over the place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = made.build().double()
        for module in built.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    assert tensor is not None
                    nn.init.uniform_(tensor, 0.5, 1.5)
    return Tapped(built).double()


def images(made: Family, n: int = 6, seed: int = 0) -> Tensor:
    """(n, *input), uniform."""
    return torch.rand(n, *made.input, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def operate(method: Method, teacher: Family, student: Family, *, seed: int = 0) -> tuple[Tapped, Tapped]:
    """A teacher, and a student after the surgery, in eval mode."""
    lesson = method.lesson(measure(teacher), measure(student))
    both = network(teacher, 1), network(student, 2)
    for surgery in lesson.initialise:
        surgery(*both, images(teacher), torch.Generator().manual_seed(seed))
    return both[0].eval(), both[1].eval()


def gap(one: Tapped, other: Tapped, x: Tensor) -> float:
    """The largest difference of two networks' logits, over the largest logit."""
    with torch.no_grad():
        ours, theirs = one(x).logits, other(x).logits
    return float((ours - theirs).abs().max() / theirs.abs().max())


def step(student: Tapped, x: Tensor, optimiser: Callable[..., torch.optim.Optimizer], steps: int = 1) -> None:
    """Optimiser steps of the cross-entropy with some labels, in train mode."""
    moving = optimiser(student.network.parameters())
    student.train()
    for _ in range(steps):
        moving.zero_grad()
        nn.functional.cross_entropy(student(x).logits, torch.arange(len(x)) % 3).backward()  # type: ignore[no-untyped-call]
        moving.step()
