"""What a fit minimises on one batch: the scenes of its terms, their losses, and what they watch on held-out data."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from itertools import pairwise

import torch
from torch import Tensor

from core.bench import Bench
from core.data.rows import Batch
from core.method import Scene, Term
from core.random import key_of
from core.source import Source, targets
from core.taps import Tapped, View


def losses_of(
    bench: Bench, batch: Batch, views: Mapping[str, View], *, terms: Mapping[str, Term], epoch: int, source: Source
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The unweighted losses of some terms on one batch, scalars, and what they noted.

    Autocast ends with the shared pass: every loss is computed in fp32, a term's connectors and its own passes included.
    """
    with autocast(bench):
        shown = bench.student(batch.x)
    losses: dict[str, Tensor] = {}
    notes: dict[str, Tensor] = {}
    for name, term in terms.items():
        scene = _scene(bench, batch, shown, views.get(name), term, student=bench.student, source=source, key=_key(bench, name, epoch))
        losses[name] = term(scene)
        notes |= scene.notes
    return losses, notes


def watched(bench: Bench, batch: Batch, terms: Mapping[str, Term], source: Source) -> dict[str, Tensor]:
    """What some terms measure on one batch of held-out data: eval mode everywhere, no gradients, every module's own mode given back."""
    found: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for context in (torch.no_grad(), bench.examined.quiet()):
            stack.enter_context(context)
        if bench.teacher is not None:
            stack.enter_context(bench.teacher.quiet())
        with autocast(bench):
            views, shown = targets(bench.teacher, batch.x, terms), bench.examined(batch.x)
        for name, term in terms.items():
            term.eval()
            key = _key(bench, name, "held")
            found |= term.watch(_scene(bench, batch, shown, views.get(name), term, student=bench.examined, source=source, key=key))
            term.train()
    return found


def parts(batch: Batch, views: Mapping[str, View], size: int, accumulate: int) -> Iterator[tuple[Batch, dict[str, View]]]:
    """A step's batch in at most `accumulate` nearly equal parts of about `size` samples, never of a single one: batch
    norm cannot train on one.
    """
    n = len(batch.x)
    count = max(1, min(accumulate, -(-n // size), n // 2))
    edges = [n * k // count for k in range(count + 1)]
    for begin, end in pairwise(edges):
        cut = slice(begin, end)
        theirs = {name: View(view.logits[cut], {tap: value[cut] for tap, value in view.at.items()}) for name, view in views.items()}
        yield Batch(batch.x[cut], batch.y[cut], batch.index[cut], batch.view), theirs


def autocast(bench: Bench) -> AbstractContextManager[object]:
    """The precision of this fit: bfloat16 autocast, or none. "auto" is bf16 on a GPU that has it."""
    return torch.autocast(bench.device.type, torch.bfloat16, enabled=narrow(bench))


def narrow(bench: Bench) -> bool:
    """Whether the networks run under bfloat16 autocast in this fit."""
    wanted = bench.now.recipe.precision
    automatic = wanted == "auto" and bench.device.type == "cuda" and torch.cuda.is_bf16_supported()
    return wanted == "bf16" or automatic


def _scene(
    bench: Bench, batch: Batch, shown: View, theirs: View | None, term: Term, *, student: Tapped, source: Source, key: Tensor
) -> Scene:
    teacher = bench.teacher if term.teacher == "network" else None
    return Scene(
        batch.x, batch.y, batch.index, shown, theirs, student, teacher, source.classes, key, domain=source.domain, bf16=narrow(bench)
    )


def _key(bench: Bench, name: str, when: int | str) -> Tensor:
    # A tensor made here, on the host: neither a 64-bit integer nor the hash of a name can be compiled into a term.
    return key_of(bench.seed, bench.fit, name, when).to(bench.device)
