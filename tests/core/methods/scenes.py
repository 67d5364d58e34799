"""What methods are tested on: a batch for one term, from plain tensors or from two networks, and a job up to its training."""

from collections.abc import Mapping

import torch
from torch import Tensor

from core.anatomy import Joint
from core.events import Phase
from core.method import Scene, Term
from core.networks import Shape
from core.run import run
from core.taps import Pair, Tapped, View
from tests.core.toys import DOMAIN, Job


def joint(teacher: Shape, student: Shape, *, k: int = 1) -> Joint:
    """The pair (t1, s1), or another k, with these shapes."""
    return Joint(Pair(f"t{k}", f"s{k}"), teacher, student)


def loss(term: Term, *, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """What a term that looks at taps alone says of a batch whose taps show these tensors, (B, ...)."""
    n = len(next(iter(student.values())))
    empty, index, nothing = torch.empty(n, 0), torch.arange(n), Tapped(torch.nn.Identity())
    kept = term.target(View(empty, teacher))
    return term(Scene(empty, torch.zeros_like(index), index, View(empty, student), kept, nothing, None, None, torch.tensor(0), DOMAIN))


def look(term: Term, student: Tapped, teacher: Tapped, x: Tensor, y: Tensor, *, classes: Tensor | None = None) -> Tensor:
    """What a term says of a batch x, y that two networks are shown, as the training loop does it."""
    with torch.no_grad():
        kept = term.target(teacher(x))
    whole = teacher if term.teacher == "network" else None
    return term(Scene(x, y, torch.arange(len(x)), student(x), kept, student, whole, classes, torch.tensor(0), DOMAIN))


def state_of(network: Tapped) -> dict[str, Tensor]:
    """A copy of a network's parameters and buffers."""
    return {name: value.clone() for name, value in network.network.state_dict().items()}


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """The names of what is not the same bit for bit."""
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def transfer(job: Job) -> None:
    """Run a job up to its training: surgeries and transfer fits are done, and nothing of the training is."""
    for event in run(job.plan, job.teacher, job.student, job.sources, keep=lambda _: None):
        if isinstance(event, Phase) and event.phase == "train":
            return
    raise AssertionError("there was no training")
