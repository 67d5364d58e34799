"""The training loop: there is one, it names no method, and it yields after every optimiser step."""

import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from core.asleep import settle
from core.bench import Bench
from core.data.rows import Rows
from core.evaluate import evaluate
from core.events import Evaluated, Event, Step
from core.method import Term
from core.objective import autocast, losses_of, parts, watched
from core.random import key_of
from core.source import Source


def fit(bench: Bench, source: Source, held: Rows | None) -> Iterator[Event | None]:
    """Train the fit that the bench has entered, from where the bench stands to its end.

    Yields after every optimiser step: a `Step` where `bench.report_seconds` of work have passed since the last one and
    at each epoch's end, else None. After each epoch `held` is examined, with a yield after every batch of it. Between
    two yields the bench may be frozen, or the generator closed. Raises `Diverged` at the report that finds a loss that
    is not finite, and at the end of an epoch whose last step broke a weight.
    """
    settle(bench, source)
    busy, samples = 0.0, 0
    while True:
        if held is not None and bench.told < bench.step // source.steps:
            yield from _examine(bench, source, held)
        if bench.step == bench.steps:
            return
        began, epoch, rate = time.perf_counter(), bench.clock.epoch, bench.now.recipe.rate(bench.step, bench.steps)
        samples += _step(bench, source)
        busy += time.perf_counter() - began
        if busy < bench.report_seconds and bench.step % source.steps:
            yield None
            continue
        began = time.perf_counter()
        means = bench.meters.read()
        busy += time.perf_counter() - began
        if not math.isfinite(means["loss"]):
            raise bench.diverged(f"the loss is {means['loss']}")
        if bench.step % source.steps == 0:
            bench.check()
        speed, busy, samples = samples / max(busy, 1e-9), 0.0, 0
        yield Step(bench.phase, bench.fit, epoch, bench.step, bench.done, bench.of, {**means, "lr": rate}, speed)


def _step(bench: Bench, source: Source) -> int:
    """One optimiser step, whole: the gradients of its parts, clipped, and the move. Gives the number of samples."""
    clock, recipe, now = bench.clock, bench.now.recipe, bench.now
    weights = {name: now.terms[name].at(clock) for name in sorted(now.terms)}
    terms = {name: now.terms[name].term for name, weight in weights.items() if weight != 0}
    if recipe.restarts(clock.step, clock.steps):
        bench.optimiser.state.clear()
    for group in bench.optimiser.param_groups:
        group["lr"] = recipe.rate(clock.step, clock.steps)
    _reseed(bench)
    bench.optimiser.zero_grad(set_to_none=True)
    with autocast(bench):
        batch, views = source(clock.epoch, clock.step % source.steps, terms)
    seen: dict[str, Tensor] = {"loss": torch.zeros((), device=bench.device)}
    noted: dict[str, float] = {}
    for part, theirs in parts(batch, views, recipe.batch_size, recipe.accumulate):
        share = len(part.x) / len(batch.x)
        losses, notes = losses_of(bench, part, theirs, terms=terms, epoch=clock.epoch, source=source)
        if losses:
            total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
            (total * share).backward()  # type: ignore[no-untyped-call]
            losses["loss"] = total
        for name, value in (losses | notes).items():
            seen[name] = seen.get(name, 0.0) + value.detach() * share
        for name in notes:
            noted[name] = noted.get(name, 0.0) + share
    if recipe.clip is not None:
        torch.nn.utils.clip_grad_norm_(bench.parameters(), recipe.clip)
    bench.optimiser.step()
    bench.follow()
    # A part may have nothing to note, so a note is the mean over those that had.
    bench.meters.add(seen | {name: seen[name] / share for name, share in noted.items()})
    bench.step += 1
    return len(batch.x)


def _reseed(bench: Bench) -> None:
    """Dropout draws from torch's global generators: seed them by (seed, fit, step), so that nothing of them is ever stored."""
    seed = int(key_of(bench.seed, "step", bench.fit, bench.step)) & (2**63 - 1)
    # `torch.manual_seed` would do the same two hundred times slower.
    torch.default_generator.manual_seed(seed)
    if bench.device.type == "cuda":
        torch.cuda.default_generators[bench.device.index or 0].manual_seed(seed)


def _examine(bench: Bench, source: Source, held: Rows) -> Iterator[Event | None]:
    """What is to be given away, on held-out data: None after every batch, then accuracy and loss, or agreement with the teacher where there
    are no labels, and the means of what the terms watch.
    """
    values: dict[str, float] = {}
    for found in evaluate(bench.examined, held, against=None if held.labelled else bench.teacher, device=bench.device):
        if found is None:
            yield None
        else:
            values |= found
    watching = {name: term for name, term in bench.terms.items() if type(term).watch is not Term.watch}
    sums: dict[str, Tensor] = {}
    count = 0
    for batch in held.batches(held.together, bench.device) if watching else ():
        count += len(batch.x)
        for name, value in watched(bench, batch, watching, source).items():
            sums[name] = sums.get(name, 0.0) + value.double() * len(batch.x)
        yield None
    values |= {name: float(sums[name]) / count for name in sorted(sums)}
    # The position says that this was told before it is: whoever freezes the bench next has the event in hand.
    bench.told = bench.step // source.steps
    yield Evaluated(bench.fit, bench.told - 1, bench.done, "validation", values)
