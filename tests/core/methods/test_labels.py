"""Which terms of the catalogue read labels: those that say so, and no other, for a transfer set has none."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from core.data.report import UNLABELLED
from core.method import Method
from core.objective import losses_of, watched
from tests.core.methods.test_conformance import TAUGHT, alone, every_taught
from tests.core.toys import CLASSES


def answered(method: Method, relabelled: Callable[[Tensor], Tensor], *, blind: bool) -> dict[str, list[Tensor]]:
    """Of each term, or of those alone that read no labels: its loss on a batch with other labels, and what it watches there."""
    found = {}
    for name, bench, source in alone(method, steps=3):
        if blind and bench.terms[name].reads_labels:
            continue
        batch, views = source(0, 0, bench.terms)
        batch = replace(batch, y=relabelled(batch.y))
        losses, _ = losses_of(bench, batch, views, terms=bench.terms, epoch=0, source=source)
        seen = watched(bench, batch, bench.terms, source)
        found[name] = [losses[name].detach(), *(seen[key] for key in sorted(seen))]
    return found


@every_taught
def test_a_term_that_does_not_say_that_it_reads_labels_is_the_same_without_them(method: Method) -> None:
    with_labels = answered(method, lambda y: y, blind=True)
    without = answered(method, lambda y: torch.full_like(y, UNLABELLED), blind=True)
    assert with_labels.keys() == without.keys()
    for name, values in with_labels.items():
        assert all(map(torch.equal, values, without[name])), name


def test_a_term_that_says_so_changes_with_the_labels() -> None:
    reading, changing = set(), set()
    for played, method in TAUGHT.items():
        reading |= {(played, name) for name, bench, _ in alone(method, steps=3) if bench.terms[name].reads_labels}
        right, wrong = (answered(method, relabelled, blind=False) for relabelled in (lambda y: y, lambda y: (y + 1) % CLASSES))
        changing |= {(played, name) for name, values in right.items() if not all(map(torch.equal, values, wrong[name]))}
    # The closed form of the trace is the same for all labels; the estimate that it gives way to, where it does not hold, is not.
    closed = {(played, name) for played, name in reading if name == "anti_distillation.trace" and "hutchinson" not in played}
    assert changing == reading - closed
    assert {played.partition(":")[0] for played, _ in changing} == {"anti_distillation", "bss", "jacobian", "toy", "transfer"}
