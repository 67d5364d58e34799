"""Which of the student's modules a fit trains: those its loss reaches. The others sleep, in eval mode.

Without this a hint stage would move the batch statistics above its hint, where nothing learns.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from core.bench import Bench
from core.objective import autocast, losses_of, parts
from core.source import Source

_FEW = 16
"""Samples on which the reach of the gradients is looked for. Every module's output is held for it, and its gradient: on a whole batch that
would be the most memory that a job ever needs."""


def settle(bench: Bench, source: Source) -> None:
    """Set the modes of both networks for the fit that the bench has entered; the loop does not touch them again.

    A student's module trains if it `learns` and a gradient of the terms reaches what it returns, or reaches a module
    inside it. That is found by one backward pass on the first batch, in eval mode, and depends on structure alone: at a
    resume it finds the same. No buffer is changed by it.
    """
    network = bench.student.network
    reached = _reached(bench, source)
    for name, module in network.named_modules():
        module.training = bench.learns(name) and any(id(inner) in reached for inner in module.modules())
    for term in bench.terms.values():
        term.train()
    if bench.teacher is not None and bench.now.teacher_mode == "train":
        bench.teacher.train()


def _reached(bench: Bench, source: Source) -> set[int]:
    """The ids of the student's modules whose outputs get a gradient."""
    terms = bench.terms
    bench.student.eval()
    for term in terms.values():
        term.eval()
    state = [(buffer, buffer.clone()) for module in (bench.student, *terms.values()) for buffer in module.buffers()]
    given: list[tuple[int, Tensor]] = []

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        given.extend((id(module), tensor) for tensor in _tensors(output) if tensor.requires_grad)

    hooks = [module.register_forward_hook(keep) for module in bench.student.network.modules()]
    try:
        with autocast(bench):
            batch, views = source(0, 0, terms)
        part, theirs = next(parts(batch, views, _FEW, len(batch.x)))
        # The input asks for a gradient here, and only here: a dropout or a batch norm below all that learns is reached too.
        part = replace(part, x=part.x.detach().requires_grad_())
        losses, _ = losses_of(bench, part, theirs, terms=terms, epoch=0, source=source)
    finally:
        for hook in hooks:
            hook.remove()
    gradients = torch.autograd.grad(torch.stack(list(losses.values())).sum(), [tensor for _, tensor in given], allow_unused=True)
    with torch.no_grad():
        for buffer, before in state:
            buffer.copy_(before)
    return {module for (module, _), gradient in zip(given, gradients, strict=True) if gradient is not None}


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list)):
        for item in output:
            yield from _tensors(item)
