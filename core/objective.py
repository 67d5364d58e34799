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
from core.source import targets
from core.taps import View


def losses_of(
    bench: Bench, batch: Batch, views: Mapping[str, View], *, terms: Mapping[str, Term], epoch: int, classes: Tensor | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The unweighted losses of some terms on one batch, scalars in fp32 or wider, and what they noted."""
    with autocast(bench):
        shown = bench.student(batch.x)
    losses: dict[str, Tensor] = {}
    notes: dict[str, Tensor] = {}
    for name, term in terms.items():
        scene = _scene(bench, batch, shown, views.get(name), term, classes=classes, key=_key(bench, name, epoch))
        # Second derivatives want fp32: such a term stays outside autocast.
        with autocast(bench, enabled=not term.differentiates_input):
            loss = term(scene)
        losses[name] = loss.to(torch.promote_types(loss.dtype, torch.float32))
        notes |= scene.notes
    return losses, notes


def watched(bench: Bench, batch: Batch, terms: Mapping[str, Term], classes: Tensor | None) -> dict[str, Tensor]:
    """What some terms measure on one batch of held-out data: eval mode everywhere, no gradients, every module's own mode given back."""
    found: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for context in (torch.no_grad(), autocast(bench), bench.student.quiet()):
            stack.enter_context(context)
        if bench.teacher is not None:
            stack.enter_context(bench.teacher.quiet())
        views, shown = targets(bench.teacher, batch.x, terms), bench.student(batch.x)
        for name, term in terms.items():
            term.eval()
            found |= term.watch(_scene(bench, batch, shown, views.get(name), term, classes=classes, key=_key(bench, name, "held")))
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


def autocast(bench: Bench, *, enabled: bool = True) -> AbstractContextManager[object]:
    """The precision of this fit: bfloat16 autocast, or none. "auto" is bf16 on a GPU that has it."""
    wanted = bench.now.recipe.precision
    automatic = wanted == "auto" and bench.device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(bench.device.type, torch.bfloat16, enabled=enabled and (wanted == "bf16" or automatic))


def _scene(bench: Bench, batch: Batch, shown: View, theirs: View | None, term: Term, *, classes: Tensor | None, key: Tensor) -> Scene:
    teacher = bench.teacher if term.teacher == "network" else None
    return Scene(batch.x, batch.y, batch.index, shown, theirs, bench.student, teacher, classes, key)


def _key(bench: Bench, name: str, when: int | str) -> Tensor:
    # A tensor made here, on the host: neither a 64-bit integer nor the hash of a name can be compiled into a term.
    return key_of(bench.seed, bench.fit, name, when).to(bench.device)
