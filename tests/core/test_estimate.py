"""What a job is expected to need, by hand: operations over rates, bytes added up, and a range about both."""

from typing import Any

import pytest

from core.anatomy import Anatomy, measure
from core.calibrate import Calibration, Rate
from core.estimate import FASTER, MEMORY_FACTOR, SLOWER, Estimate, estimate, spanning
from core.method import Method
from core.methods.bss import BSS
from core.methods.fitnet import Fitnet
from core.methods.jacobian import Jacobian
from core.methods.kd import KD
from core.methods.wasserstein import Wasserstein
from core.networks import parse
from core.optim import AdamW, Recipe
from core.plan import plan
from core.taps import Pair
from tests.core.toys import report, spec

NEVER = 1e30
"""A rate at which a thing takes no time."""
DEVICE = Calibration(
    device="cpu", hardware="by hand", threads=1, torch="2", conv=(Rate(9, 1e6),), matmul=(Rate(64, 1e6),), elements=(Rate(1, NEVER),),
    copy_rate=NEVER, operation=0.0, step=0.0, start=0.0, held=1000, memory=1 << 30,
)  # fmt: skip
MLP: dict[str, Any] = {"family": "mlp", "input": [2, 8, 8], "classes": 3}
STUDENT, TEACHER = (measure(parse({**MLP, "hidden": [width]})) for width in (4, 16))
OURS, THEIRS = (2 * (128 * width + width * 3) / 1e6 for width in (4, 16))
"""Seconds of a forward pass of one sample: two linear layers, a multiplication and an addition for each weight."""
FILES = 1.0
"""Seconds to write safetensors."""
OUR_TIMING, THEIR_TIMING = 110 * OURS + 2.0, 110 * THEIRS + 2.0
"""Seconds of 110 passes of one sample, and of 32 samples no more than 2: ten passes of those take less."""


def foreseen(
    *methods: Method, device: Calibration = DEVICE, student: Anatomy = STUDENT, teacher: Anatomy = TEACHER, **recipe: Any
) -> Estimate:
    """The estimate of two epochs over 24 samples, with 24 more to test on, unless the recipe says otherwise."""
    asked = spec(*methods, teacher=bool(methods), recipe=Recipe(**{"epochs": 2, "batch_size": 8, **recipe}))
    taught = teacher if methods else None
    decided = plan(asked, taught, student, dataset=report(24))
    return estimate(decided, asked, taught, student, dataset=report(24), device=device)


def middles(found: Estimate) -> list[float]:
    """What was added up for each fit; both ends of the range say the same."""
    assert [fit.high / SLOWER for fit in found.per_fit] == pytest.approx([fit.low * FASTER for fit in found.per_fit])
    return [fit.low * FASTER for fit in found.per_fit]


def test_a_step_is_three_passes_of_the_student_and_one_of_a_teacher_that_is_looked_at() -> None:
    alone, taught = foreseen(), foreseen(KD())
    assert middles(alone) == pytest.approx([2 * 24 * 3 * OURS])
    assert middles(taught) == pytest.approx([2 * 24 * (3 * OURS + THEIRS)])
    assert alone.seconds.low * FASTER == pytest.approx(2 * 24 * 3 * OURS + 24 * OURS + FILES + OUR_TIMING)
    assert taught.seconds.high / SLOWER == pytest.approx(
        2 * 24 * (3 * OURS + THEIRS) + 24 * (OURS + THEIRS) + FILES + OUR_TIMING + THEIR_TIMING
    )


def test_accumulated_batches_cost_what_they_hold() -> None:
    assert middles(foreseen(accumulate=3)) == pytest.approx(middles(foreseen(batch_size=24)))


def test_every_fit_is_told_apart() -> None:
    first, second = middles(foreseen(Fitnet(epochs=5, pairs=(Pair("relu1", "relu1"),)), epochs=1))
    assert first > 4 * second


@pytest.mark.parametrize(
    ("method", "student", "teacher"),
    [
        (BSS(samples=4), 3 * 0.5, 7 * 0.5 + 1),  # half of a batch of 8: three steps there and back, and once more
        (BSS(iterations=1), 3, 3 + 1),
        (Jacobian(), 8, 2 + 1),
        (Jacobian(form="double_backward"), 12, 2 + 1),
        (Wasserstein(share=0.25), 8 * 0.25, 4 * 0.25 + 1),
        (Wasserstein(epsilon=0), 0, 1),
    ],
    ids=str,
)
def test_what_a_term_does_with_whole_networks_is_added(method: Method, student: float, teacher: float) -> None:
    assert middles(foreseen(method)) == pytest.approx([2 * 24 * ((3 + student) * OURS + teacher * THEIRS)])


def test_overhead_counts_for_each_step_and_not_for_each_sample() -> None:
    slow = DEVICE.model_copy(update={"step": 1.0})
    whole = middles(foreseen(device=slow))[0] - middles(foreseen())[0]
    assert whole == pytest.approx(2 * 3)
    assert middles(foreseen(device=slow, batch_size=24))[0] - middles(foreseen(batch_size=24))[0] == pytest.approx(2)


def test_memory_holds_weights_gradients_the_optimisers_state_and_what_a_checkpoint_copies() -> None:
    weights = 4 * STUDENT.parameters

    def more(one: Estimate, other: Estimate) -> float:
        return (other.peak_memory_bytes.low - one.peak_memory_bytes.low) * MEMORY_FACTOR

    plain = foreseen()
    assert more(plain, foreseen(optimizer=AdamW())) == pytest.approx(3 * weights)  # one state more, which is copied twice
    assert more(plain, foreseen(ema=0.9)) == pytest.approx(weights)
    assert more(plain, foreseen(batch_size=16)) >= 8 * STUDENT.activations > 0
    held = foreseen(device=DEVICE.model_copy(update={"held": 2000}))
    assert held.peak_memory_bytes.low - plain.peak_memory_bytes.low == pytest.approx(900)


def test_a_rate_between_two_sizes_lies_on_the_line_of_logarithms() -> None:
    """128 products lie in the middle of 64 and 256: of 1e6 and 1e8 operations a second that is 1e7."""
    device = DEVICE.model_copy(update={"matmul": (Rate(64, 1e6), Rate(256, 1e8))})
    student = STUDENT.model_copy(update={"flops": 0})
    passes = 2 * 128 * 4 / 1e7 + 2 * 4 * 3 / 1e6
    assert middles(foreseen(device=device, student=student)) == pytest.approx([2 * 24 * 3 * passes])


def test_a_report_without_calls_is_estimated_from_its_operations() -> None:
    old = STUDENT.model_copy(update={"graph": (), "activations": 0})
    found = foreseen(student=old, device=DEVICE.model_copy(update={"conv": DEVICE.matmul}))
    assert middles(found) == pytest.approx([2 * 24 * 3 * OURS])
    assert found.peak_memory_bytes.low > 900


def test_several_devices_span_from_the_least_to_the_most() -> None:
    slow, fast = foreseen(), foreseen(device=DEVICE.model_copy(update={"matmul": (Rate(64, 1e7),), "held": 5000}))
    both = spanning([slow, fast])
    assert (both.seconds.low, both.seconds.high) == (fast.seconds.low, slow.seconds.high)
    assert (both.peak_memory_bytes.low, both.peak_memory_bytes.high) == (slow.peak_memory_bytes.low, fast.peak_memory_bytes.high)
    assert [fit.high for fit in both.per_fit] == [fit.high for fit in slow.per_fit]
