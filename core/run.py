"""A whole job: surgeries, every fit of the plan in turn, and the test at the end, as one stream of events."""

from collections.abc import Callable, Iterator

import torch

from core.bench import Bench
from core.data.rows import Rows
from core.evaluate import evaluate
from core.evaluate.boundary import Boundary
from core.evaluate.fgsm import FGSM
from core.evaluate.parameter_noise import ParameterNoise
from core.events import Curve, Evaluated, Event, Phase
from core.fit import fit
from core.plan import Plan
from core.random import key_of
from core.source import Live, Sources
from core.taps import Tapped


def run(
    plan: Plan,
    teacher: Tapped | None,
    student: Tapped,
    sources: Sources,
    *,
    resume: bytes | None = None,
    keep: Callable[[Bench], None],
    report_seconds: float = 0.5,
) -> Iterator[Event | None]:
    """Carry out a plan; the student is trained in place, on the device it lies on.

    After each yield of a fit, when the consumer has told the event and asks for the next one, `keep(bench)` is called:
    there a checkpoint may be taken with `bench.freeze()`, and an exception raised there ends the run between two steps.
    `None` means: nothing to tell, but here is a moment to look for a stop. `resume` is what a bench of the same plan
    once froze to.

    Validation is examined after each epoch. The test split is read once, at the end, by the student of the last epoch, or by
    the average of its steps under a recipe with `ema`, which `student` then holds;
    where a teacher has the same classes its values and curves stand beside the student's as "teacher.accuracy" and so on; of a frozen one
    there are no curves. On data without labels the teacher's answers stand for them, and it has no values of its own.
    """
    bench = Bench(plan.fits, [batches.steps for batches in sources.fits], student, teacher, seed=plan.seed, report_seconds=report_seconds)
    if resume is not None:
        bench.thaw(resume)
    elif plan.surgeries:
        yield Phase("initialise", 0, bench.of)
        x = sources.fits[-1](0, 0).x
        for ordinal, surgery in enumerate(plan.surgeries):
            generator = torch.Generator().manual_seed(int(key_of(plan.seed, "surgery", ordinal)) & (2**63 - 1))
            surgery(teacher, student, x, generator)
            yield None
    while True:
        yield Phase(bench.phase, bench.fit, bench.of)
        source = Live(sources.fits[bench.fit], teacher)
        for event in fit(bench, source, sources.validation):
            yield event
            keep(bench)
        if bench.fit == len(plan.fits) - 1:
            break
        bench.enter(bench.fit + 1)
    bench.adopt()
    yield Phase("evaluate", bench.fit, bench.of)
    yield from _test(plan, teacher if plan.same_classes else None, bench, sources.test)


def _test(plan: Plan, teacher: Tapped | None, bench: Bench, rows: Rows) -> Iterator[Event | None]:
    """All that is measured of the student, and of a teacher of its classes; a yield for every batch, last the values and curves."""
    student, device, seed = bench.student, bench.device, plan.seed
    values: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    networks = {"": student} if teacher is None or not rows.labelled else {"": student, "teacher.": teacher}
    for prefix, network in networks.items():
        against = teacher if network is student and "agreement" in plan.evaluate else None
        for found in evaluate(network, rows, against=against, device=device):
            if found is None:
                yield None
            else:
                values |= {prefix + name: value for name, value in found.items()}
    within = {"": student} if plan.is_frozen else networks
    for measure in plan.evaluate:
        match measure:
            case FGSM():
                for prefix, network in within.items():
                    curves[prefix + measure.name] = yield from measure.curve(network, rows, device)
            case ParameterNoise():
                for prefix, network in within.items():
                    curves[prefix + measure.name] = yield from measure.curve(network, rows, device, seed=seed)
            case Boundary():
                assert teacher is not None  # as the plan has made sure
                values |= yield from measure.values(student, teacher, rows, device, seed=seed)
    yield Evaluated(bench.fit, bench.now.recipe.epochs - 1, bench.done, "test", values, curves)
