"""Which terms of the catalogue read labels: each that says so, for what does not would be taken where there are none for nothing."""

import torch
from torch import Tensor

from tests.core.methods.test_conformance import TAUGHT, alone, answered
from tests.core.toys import CLASSES


def test_a_term_that_says_that_it_reads_labels_changes_with_them() -> None:
    reading, changing = set(), set()
    for played, method in TAUGHT.items():
        reading |= {(played, name) for name, bench, _ in alone(method, steps=3) if bench.terms[name].reads_labels}
        right, wrong = answered(method, Tensor.clone), answered(method, lambda y: (y + 1) % CLASSES)
        changing |= {(played, name) for name, values in right.items() if not all(map(torch.equal, values, wrong[name]))}
    # The closed form of the trace is the same for all labels; the estimate that it gives way to, where it does not hold, is not.
    closed = {(played, name) for played, name in reading if name == "anti_distillation.trace" and "hutchinson" not in played}
    assert changing == reading - closed
    assert {played.partition(":")[0] for played, _ in changing} == {"anti_distillation", "bss", "jacobian", "toy", "transfer"}
