"""How long a planned job will take and how much memory, as ranges: its plan's operations and bytes, at the rates of a calibrated device.

A layer of F operations takes F / rate in a forward pass, one that only looks at N bytes N / elements, and each its overhead; a backward
pass takes twice as much. A step is a forward and a backward pass of the student, a forward pass of the teacher where a term looks at it,
what the terms compute with whole networks beside (`Term.passes`), the optimiser's walk over the parameters, and the augmentation. Epochs,
validation, the measures on the test split and the exports are added up. What is left out, and what a busy machine does, is in the factor
of the range: `benchmarks/estimates.py` holds both against real jobs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from core.anatomy import Anatomy
from core.calibrate import Calibration, Rate
from core.data.report import DatasetReport
from core.evaluate.boundary import Boundary
from core.evaluate.fgsm import FGSM
from core.evaluate.parameter_noise import ParameterNoise
from core.graph import Node
from core.method import Fit, Term
from core.optim import AdamW
from core.plan import Plan
from core.spec import JobSpec

FASTER, SLOWER = 1.8, 2.5
"""How many times less than what is added up a job may take, and how many times more: beside other work everything takes longer."""
MEMORY_FACTOR = 1.9
"""The same of the memory that a job takes beside what every process holds."""
_FLOAT = 4
_VIEWS = frozenset({"flatten", "chunk", "split", "reshape", "view", "permute", "transpose", "unsqueeze", "squeeze"})
_PRODUCTS = frozenset({"conv2d", "linear"})
_WRITTEN = 4.0
"""Seconds that a format takes which another library writes; one that is plain tensors takes a quarter."""
_TIMED = (1, 32)
"""The batches at which the files of an export, and the teacher beside them, are timed."""
_LIVE = 5
"""So many values as large as the largest are held at once where nothing is kept for a backward pass: what a convolution reads and writes,
each in its own layout too, and a shortcut."""
_PER_STEP = 12
"""What a step of the loop costs beside its networks, in operations: weights, seeds, meters; as many again for each term."""


class Range(NamedTuple):
    """The least and the most that is expected."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job will need on one device: private bytes at its peak (on a GPU, of the GPU), seconds in all, seconds of each fit."""

    peak_memory_bytes: Range
    seconds: Range
    per_fit: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class _Network:
    """What passes of a network cost on a device, by the batch."""

    anatomy: Anatomy
    device: Calibration
    half: bool

    def forward(self, batch: float) -> float:
        """Seconds of a forward pass."""
        return sum(self._node(node, shapes, batch) for node, shapes in _read(self.anatomy)) if self.anatomy.graph else self._whole(batch)

    def step(self, batch: float) -> float:
        """Seconds of a forward and a backward pass."""
        return 3 * self.forward(batch)

    def _node(self, node: Node, taken: Sequence[Sequence[int]], batch: float) -> float:
        if node.function in _VIEWS:
            return self.device.operation / 3
        given = sum(map(math.prod, node.shapes))
        size, moved = _FLOAT * batch * given, _FLOAT * batch * (given + sum(map(math.prod, taken)))
        elements = self.device.elements
        weights = [self.anatomy.weights[name] for name in node.weights if len(self.anatomy.weights[name]) > 1]
        seconds = moved / _rate(elements, size)
        if node.function in _PRODUCTS and weights:
            reduction = math.prod(weights[0][1:])
            # The rates of products were measured on small values; what large ones cost more is added.
            seconds = max(0.0, seconds - moved / max(each.rate for each in elements))
            seconds += 2 * reduction * given * batch / _rate(self._rates(node.function), reduction)
        return seconds + self.device.operation / 3

    def _rates(self, function: str) -> tuple[Rate, ...]:
        device = self.device
        if function == "conv2d":
            return device.conv_bf16 or device.conv if self.half else device.conv
        return device.matmul_bf16 or device.matmul if self.half else device.matmul

    def _whole(self, batch: float) -> float:
        """For a report from before the calls of a network were recorded."""
        rates = self._rates("conv2d" if len(self.anatomy.input) == 3 else "linear")
        # Of a frozen network the weights alone are known: each is used once at least.
        flops = self.anatomy.flops or 2 * self.anatomy.parameters
        return flops * batch / rates[len(rates) // 2].rate + len(self.anatomy.taps) * self.device.operation / 3

    @property
    def kept(self) -> int:
        """Bytes that a training pass keeps of one input; for a report from before that was measured, about half of all that it gives."""
        return self.anatomy.activations or _FLOAT * sum(map(math.prod, self.anatomy.taps.values())) // 4

    @property
    def widest(self) -> int:
        """Bytes of the largest value that a pass of one input gives."""
        return _FLOAT * max((math.prod(shape) for shape in self.anatomy.taps.values()), default=0)


def estimate(
    plan: Plan, spec: JobSpec, teacher: Anatomy | None, student: Anatomy, *, dataset: DatasetReport, device: Calibration
) -> Estimate:
    """What a plan needs on a device. Pure."""
    half = device.device == "cuda" and spec.recipe.precision != "fp32"
    ours = _Network(student, device, half)
    theirs = _Network(teacher, device, half) if teacher else None
    held = _held(spec, plan, dataset)
    fits = tuple(
        _around(
            fit.recipe.epochs
            * (steps * _step(fit, rows / steps, ours, theirs) + _examine(ours, None if dataset.labelled else theirs, held, dataset))
        )
        for fit, rows, steps in zip(plan.fits, plan.rows, plan.per_epoch, strict=True)
    )
    rest = device.start + _measures(plan, ours, theirs, dataset) + _exports(spec, ours, theirs)
    parts = [*fits, _around(rest)]
    seconds = Range(sum(part.low for part in parts), sum(part.high for part in parts))
    return Estimate(_memory(plan, spec, ours, theirs, dataset), seconds, fits)


def _step(fit: Fit, samples: float, ours: _Network, theirs: _Network | None) -> float:
    """Seconds of one optimiser step over so many samples."""
    recipe, device = fit.recipe, ours.device
    parts = max(1, recipe.accumulate)
    batch = samples / parts
    terms = list(_awake(fit))
    seconds = parts * ours.step(batch)
    if theirs and any(term.teacher != "none" for term in terms):
        seconds += parts * theirs.forward(batch)
    for term in terms:
        passes = term.passes(math.ceil(batch), ours.anatomy.classes)
        seconds += parts * passes.student * ours.forward(batch)
        if theirs:
            seconds += parts * passes.teacher * theirs.forward(batch)
        seconds += parts * _own(term, batch, ours, theirs)
    tensors = sum(len(shape) > 0 for shape in ours.anatomy.weights.values())
    walks = 10 if isinstance(recipe.optimizer, AdamW) else 6
    seconds += walks * _FLOAT * ours.anatomy.parameters / device.copy_rate + tensors * device.operation / 3
    looks = 12 if recipe.augmentation else 4
    seen = _FLOAT * samples * math.prod(ours.anatomy.input)
    seconds += looks * seen / _rate(device.elements, seen)
    return seconds + device.step + _PER_STEP * (1 + len(terms)) * device.operation


def _own(term: Term, batch: float, ours: _Network, theirs: _Network | None) -> float:
    """Seconds that a term spends on what it taps and on its connectors, forward and backward."""
    shapes = [ours.anatomy.taps[tap] for tap in term.student_taps]
    shapes += [theirs.anatomy.taps[tap] for tap in term.teacher_taps] if theirs else []
    places = max((math.prod(shape[1:]) for shape in shapes if len(shape) == 3), default=1)
    learnt = sum(parameter.numel() for parameter in term.parameters())
    shown = _FLOAT * batch * sum(map(math.prod, shapes))
    seconds = 6 * shown / _rate(ours.device.elements, shown)
    return seconds + 6 * learnt * places * batch / ours.device.conv[len(ours.device.conv) // 2].rate


def _examine(ours: _Network, theirs: _Network | None, rows: int, dataset: DatasetReport) -> float:
    """Seconds of one look at so many held-out samples."""
    together = _together(dataset)
    whole = math.ceil(rows / together)
    return whole * (ours.forward(rows / max(1, whole)) + (theirs.forward(rows / max(1, whole)) if theirs else 0.0))


def _measures(plan: Plan, ours: _Network, theirs: _Network | None, dataset: DatasetReport) -> float:
    """Seconds of what is measured on the test split."""
    rows = dataset.counts["test"]
    both = _examine(ours, theirs if plan.same_classes else None, rows, dataset)
    seconds = both * (2 if "agreement" in plan.evaluate else 1)
    for measure in plan.evaluate:
        match measure:
            case FGSM(epsilons=epsilons):
                seconds += both * (3 + len(epsilons))
            case ParameterNoise() as noise:
                seconds += both * len(noise.epsilons) * noise.draws
            case Boundary() as boundary:
                seconds += 2 * both * min(1.0, boundary.samples / max(1, rows)) * 3 * 10
    return seconds


def _exports(spec: JobSpec, ours: _Network, theirs: _Network | None) -> float:
    """Seconds of writing every format, and of a fresh process that loads and times each and the teacher: 110 passes or 2 s, at least 10."""
    written = sum(_WRITTEN / 4 if form == "safetensors" else _WRITTEN for form in spec.exports)
    timed = [*[ours] * len(spec.exports), *([theirs] if theirs else [])]
    passes = [each.forward(batch) for each in timed for batch in _TIMED]
    return written + ours.device.start + sum(max(10 * one, min(2.0, 110 * one)) for one in passes)


def _memory(plan: Plan, spec: JobSpec, ours: _Network, theirs: _Network | None, dataset: DatasetReport) -> Range:
    device, sample = ours.device, _FLOAT * math.prod(ours.anatomy.input)
    weights = _FLOAT * ours.anatomy.parameters
    most = 0.0
    for fit in plan.fits:
        recipe, terms = fit.recipe, list(_awake(fit))
        passes = [term.passes(recipe.batch_size, ours.anatomy.classes) for term in terms]
        connectors = _FLOAT * sum(parameter.numel() for term in terms for parameter in term.parameters())
        states = 2 if isinstance(recipe.optimizer, AdamW) else 1
        # Weights, gradients, the optimiser's state; and once more what a checkpoint freezes of them, as tensors and as bytes.
        learnt = (weights + connectors) * (2 + states) + 2 * (weights + connectors) * (1 + states) + (weights if recipe.ema else 0)
        live = ours.kept * (1 + sum(each.student_kept for each in passes)) + _LIVE * ours.widest + 3 * sample
        if theirs and any(term.teacher != "none" for term in terms):
            taps = {tap for term in terms for tap in term.teacher_taps}
            live += _FLOAT * sum(math.prod(theirs.anatomy.taps[tap]) for tap in taps)
            live += max(theirs.kept * sum(each.teacher_kept for each in passes), _LIVE * theirs.widest)
        most = max(most, learnt + recipe.batch_size * live)
    network = max([ours, *([theirs] if theirs else [])], key=lambda each: each.widest)
    examined = min(_together(dataset), dataset.counts["test"]) * (_LIVE * network.widest + 3 * sample)
    # Their sum: what a phase has used lies about in pieces, and the next one finds little of it whole.
    taken = most + examined + (_FLOAT * theirs.anatomy.parameters if theirs else 0)
    if device.device == "cuda":
        taken += _resident(plan, dataset, device)
    return Range(0.9 * device.held + taken / MEMORY_FACTOR, 1.25 * device.held + taken * MEMORY_FACTOR)


def _resident(plan: Plan, dataset: DatasetReport, device: Calibration) -> float:
    """Bytes of the training split where it is small enough to lie on the GPU."""
    size = dataset.counts["train"] * math.prod(dataset.input) * (1 if dataset.dtype == "uint8" else _FLOAT)
    return size if size <= device.memory / 4 else 0


def _held(spec: JobSpec, plan: Plan, dataset: DatasetReport) -> int:
    """How many samples are looked at after each epoch."""
    part = spec.dataset.validation
    if not part:
        return 0
    return dataset.counts.get("validation", round(plan.rows[-1] * part / (1 - part)))


def _together(dataset: DatasetReport) -> int:
    return max(1, min(512, (1 << 22) // math.prod(dataset.input)))


def _awake(fit: Fit) -> Iterator[Term]:
    return (weighted.term for weighted in fit.terms.values() if not weighted.asleep)


def _around(seconds: float) -> Range:
    return Range(seconds / FASTER, seconds * SLOWER)


def _rate(rates: Sequence[Rate], size: float) -> float:
    """The rate at a size, between the two measured ones that are nearest: a line of logarithms."""
    below = max((each for each in rates if each.size <= size), default=rates[0])
    above = min((each for each in rates if each.size >= size), default=rates[-1])
    if above.size == below.size:
        return below.rate
    share = math.log(size / below.size) / math.log(above.size / below.size)
    return float(below.rate ** (1 - share) * above.rate**share)


def _read(anatomy: Anatomy) -> Iterator[tuple[Node, list[Sequence[int]]]]:
    """Every call of a pass with the shapes of what it reads."""
    shapes: dict[int, Sequence[int]] = {0: anatomy.input}
    for node in anatomy.graph:
        yield node, [shapes[number] for number in node.reads if number in shapes]
        shapes.update(zip(node.gives, node.shapes, strict=True))


def spanning(found: Sequence[Estimate]) -> Estimate:
    """One estimate of a job that any of several devices may take."""
    fits = zip(*(each.per_fit for each in found), strict=True)
    return Estimate(
        _span([each.peak_memory_bytes for each in found]), _span([each.seconds for each in found]), tuple(_span(fit) for fit in fits)
    )


def _span(ranges: Sequence[Range]) -> Range:
    return Range(min(each.low for each in ranges), max(each.high for each in ranges))
