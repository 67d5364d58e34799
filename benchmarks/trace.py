"""How long the trace of the Hessian takes as a loss, value and gradient: the engine's closed form, and Hutchinson's estimate.

`python -m benchmarks.trace [--rounds 9] [--threads 2] [--out FILE]`: the perceptron 784-256-128-64-10 of Petrushina et al. (2022) in fp32,
batches of 128 and of the published 256 random images, no data is needed; there all ten classes, and the five that the teacher's data has in
the paper. The estimate is as one writes it down: four probes of random signs, each a
Hessian-vector product with a graph, and backward through all of it, which is reverse mode three times. Before anything is timed the closed
form is held against the whole Hessian of a tiny network, and on the perceptron against the mean of many probes; where it differs the script
fails. Beside it stands what an ordinary step's loss and gradient take.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from benchmarks import machine
from benchmarks.turns import turns
from core.networks import parse
from core.runtime import Runtime
from core.taps import Tapped
from core.trace import closed_form

HIDDEN, PROBES = (256, 128, 64), 4
CASES = ((128, 10), (256, 10), (256, 5))
"""Images in a batch, and how many of the ten classes the data has."""
TARGET = 3.0
"""How many times as fast as the estimate the closed form is to be."""
TOLERANCE = 1e-9
"""How far the closed form may be from the whole Hessian in float64, relative."""


def main(arguments: list[str] | None = None) -> None:
    """Compare, then measure each batch, print a line for it, and write all where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often the two take turns")
    parser.add_argument("--steps", type=int, default=20, help="how often each runs in one turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--probes", type=int, default=400, help="how many probes the closed form is held against")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    Runtime(threads=options.threads).pin()
    exact, cases = equal(), []
    for batch, classes in CASES:
        network, x, y = drawn(HIDDEN, 784, batch, classes=classes)
        present = torch.arange(10) < classes if classes < 10 else None
        agreement = agreeing(network, x, y, present, options.probes)
        found = measured(network, x, y, present, rounds=options.rounds, steps=options.steps)
        cases.append({"batch": batch, "classes": classes, "agreement": agreement, **found})
        print(_line(cases[-1]), flush=True)
    settings = {"hidden": HIDDEN, "probes": PROBES, "threads": options.threads, "rounds": options.rounds, "target": TARGET}
    if options.out:
        written = {**settings, "difference_float64": exact, "cases": cases, "machine": machine.describe()}
        options.out.write_text(json.dumps(written, indent=1) + "\n")


def drawn(
    hidden: Sequence[int], features: int, batch: int, dtype: torch.dtype = torch.float32, *, classes: int = 10
) -> tuple[Tapped, Tensor, Tensor]:
    """A perceptron with fresh weights, and a batch of random images with random labels of the first `classes` for it."""
    torch.manual_seed(0)
    network = parse({"family": "mlp", "input": [features], "hidden": list(hidden), "classes": 10}).build()
    return Tapped(network).to(dtype), torch.rand(batch, features, dtype=dtype), torch.randint(classes, (batch,))


def entropy(network: Tapped, x: Tensor, y: Tensor, present: Tensor | None) -> Tensor:
    """The mean cross-entropy over the classes that are `present` (10,), or over all."""
    logits = network(x).logits
    return F.cross_entropy(logits if present is None else logits.masked_fill(~present, -torch.inf), y)


def estimate(network: Tapped, x: Tensor, y: Tensor, present: Tensor | None = None, probes: int = PROBES) -> list[Tensor]:
    """v^T H v for each of some vectors of random signs, with its graph."""
    parameters = list(network.parameters())
    slopes = torch.autograd.grad(entropy(network, x, y, present), parameters, create_graph=True)
    found = []
    for _ in range(probes):
        signs = [2.0 * torch.randint_like(parameter, 2) - 1 for parameter in parameters]
        products = torch.autograd.grad(_inner(slopes, signs), parameters, create_graph=True)
        found.append(_inner(products, signs))
    return found


def equal() -> dict[str, float]:
    """How far value and gradient are from those of the whole Hessian of a tiny network, relative; SystemExit where that is too far."""
    network, x, y = drawn((4, 3), 5, 6, torch.float64)
    weights = dict(network.named_parameters())
    sizes = [weight.numel() for weight in weights.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = {name: part.view_as(weights[name]) for name, part in zip(weights, torch.split(flat, sizes), strict=True)}
        return F.cross_entropy(functional_call(network, parts, (x,)).logits, y)

    flat = torch.cat([weight.detach().flatten() for weight in weights.values()]).requires_grad_()
    expected = torch.autograd.functional.hessian(loss, flat, create_graph=True).trace()  # type: ignore[no-untyped-call]
    found = closed_form(network, x)
    (its,) = torch.autograd.grad(expected, flat)
    ours = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(found, list(weights.values()))])
    gaps = {"value": ((found - expected).abs() / expected.abs()).item(), "gradient": ((ours - its).norm() / its.norm()).item()}
    if not max(gaps.values()) <= TOLERANCE:
        raise SystemExit(f"the closed form is not the trace of the Hessian: {gaps}, more than {TOLERANCE}")
    return gaps


def agreeing(network: Tapped, x: Tensor, y: Tensor, present: Tensor | None, probes: int) -> dict[str, float]:
    """The closed form, the mean of many probes and its standard error; SystemExit where they are four standard errors apart."""
    one_by_one = torch.tensor([estimate(network, x, y, present, 1)[0].item() for _ in range(probes)], dtype=torch.float64)
    found = {
        "closed_form": closed_form(network, x, present).item(),
        "mean": one_by_one.mean().item(),
        "standard_error": (one_by_one.std() / probes**0.5).item(),
        "n": probes,
    }
    if not abs(found["closed_form"] - found["mean"]) <= 4 * found["standard_error"]:
        raise SystemExit(f"the closed form and the estimate do not agree: {found}")
    return found


def measured(network: Tapped, x: Tensor, y: Tensor, present: Tensor | None = None, *, rounds: int, steps: int) -> dict[str, Any]:
    """The estimate over the closed form, and the closed form over the loss of an ordinary step, each with its gradient."""

    def learning(loss: Callable[[], Tensor]) -> Callable[[], None]:
        def once() -> None:
            network.zero_grad(set_to_none=True)
            loss().backward()  # type: ignore[no-untyped-call]

        return once

    closed = learning(lambda: closed_form(network, x, present))
    found = turns(closed, learning(lambda: torch.stack(estimate(network, x, y, present)).mean()), rounds=rounds, steps=steps)
    plain = turns(learning(lambda: entropy(network, x, y, present)), closed, rounds=rounds, steps=steps)
    return {
        **{"closed_form_ms": found.pop("first_ms"), "hutchinson_ms": found.pop("second_ms"), **found},
        "over_a_step": {**plain["ratio"], "step_ms": plain["first_ms"]},
    }


def _inner(these: Sequence[Tensor], those: Sequence[Tensor]) -> Tensor:
    return torch.stack([(one * other).sum() for one, other in zip(these, those, strict=True)]).sum()


def _line(case: dict[str, Any]) -> str:
    """One row of the table in the README."""
    ratio, agreement = case["ratio"], case["agreement"]
    measured = f"{ratio['median']:.2f} [{ratio['min']:.2f}..{ratio['max']:.2f}]"
    agree = f"{agreement['closed_form']:.3f} | {agreement['mean']:.3f} ± {agreement['standard_error']:.3f}"
    times = f"{case['closed_form_ms']:.1f} | {case['hutchinson_ms']:.1f} | {case['over_a_step']['median']:.1f}"
    return f"| {case['batch']} | {case['classes']} | {agree} | {measured} | {times} |"


if __name__ == "__main__":
    main()
