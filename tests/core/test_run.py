"""A whole job: killed and resumed at every moment it equals the job that was left alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.bench import Bench
from core.errors import Corrupt
from core.evaluate import evaluate
from core.events import Evaluated, Phase, Step
from core.method import Method
from core.methods.kd import KD
from core.optim import SGD, AdamW, Drops, Recipe
from core.run import run
from tests.core import toys
from tests.core.toys import Job, Toy, ToyMethod

TEACHERS_DATA: dict[str, Any] = {"teacher_dataset": {"id": "ds_2", "validation": 0.0}}


def recipe(**more: object) -> Recipe:
    return Recipe.model_validate({"epochs": 2, "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.05}} | more)


def job(*methods: Method, dropout: float = 0.0, initial: int = 0, **asked: Any) -> Job:
    return toys.make(toys.spec(*methods, **asked), student=Toy(dropout=dropout), initial=initial)


JOBS: dict[str, Callable[[int], Job]] = {
    "baseline": lambda initial: job(teacher=False, initial=initial),
    "kd": lambda initial: job(KD(), initial=initial),
    "kd with dropout, accumulation and clipping": lambda initial: job(
        KD(), dropout=0.3, recipe=recipe(batch_size=4, accumulate=3, clip=0.5), initial=initial
    ),
    "kd with crops and flips": lambda initial: job(
        KD(), recipe=recipe(augmentation=[{"name": "crop", "padding": 1}, {"name": "flip"}]), initial=initial
    ),
    "kd with adamw": lambda initial: job(KD(), recipe=recipe(optimizer=AdamW()), initial=initial),
    "kd with restarts": lambda initial: job(
        KD(), recipe=recipe(epochs=3, schedule=Drops(milestones=(0.34, 0.7)), restart=True, label_smoothing=0.1), initial=initial
    ),
    "kd with one cycle": lambda initial: job(KD(), recipe=recipe(schedule={"name": "onecycle"}), initial=initial),
    "kd with reflected crops and cutout": lambda initial: job(
        KD(),
        recipe=recipe(augmentation=[{"name": "crop", "padding": 2, "mode": "reflect"}, {"name": "cutout", "size": 3}]),
        initial=initial,
    ),
    "kd with ema": lambda initial: job(KD(), recipe=recipe(ema=0.5), initial=initial),
    "kd with ema, dropout, accumulation and clipping": lambda initial: job(
        KD(), dropout=0.3, recipe=recipe(batch_size=4, accumulate=3, clip=0.5, ema=0.9), initial=initial
    ),
    "kd in bf16 with ema": lambda initial: job(KD(), recipe=recipe(precision="bf16", ema=0.9), initial=initial),
    "toy and kd with all of a recipe": lambda initial: job(
        ToyMethod(),
        KD(),
        dropout=0.2,
        initial=initial,
        recipe=recipe(
            epochs=3,
            batch_size=4,
            accumulate=3,
            clip=1.0,
            ema=0.99,
            label_smoothing=0.1,
            optimizer={"name": "adamw"},
            schedule={"name": "onecycle"},
            augmentation=[{"name": "crop", "padding": 1, "mode": "reflect"}, {"name": "flip"}, {"name": "cutout", "size": 2}],
        ),
        **TEACHERS_DATA,
    ),
    "toy and kd": lambda initial: job(ToyMethod(), KD(), initial=initial, **TEACHERS_DATA),
    "toy with a moving teacher": lambda initial: job(
        ToyMethod(teacher_mode="train"), dropout=0.2, initial=initial, recipe=recipe(optimizer=SGD(lr=0.05)), **TEACHERS_DATA
    ),
}


@pytest.mark.parametrize("report_seconds", [0.0, float("inf")], ids=["every step", "every epoch"])
@pytest.mark.parametrize("name", JOBS)
def test_killed_at_any_moment_and_resumed_a_job_ends_with_the_same_bytes_and_events(name: str, report_seconds: float) -> None:
    whole = toys.play(JOBS[name](0), report_seconds=report_seconds)
    assert len(whole.kept) >= 6
    for told, blob in whole.kept:
        again = JOBS[name](99)
        toys.scramble(again)
        rest = toys.play(again, resume=blob, report_seconds=report_seconds, freeze=False)
        assert whole.events[:told] + rest.events == whole.events
        for key, value in whole.weights.items():
            assert torch.equal(value, rest.weights[key]), key


@pytest.mark.parametrize("name", ["toy and kd", "kd with ema"])
def test_a_resumed_job_freezes_to_the_same_bytes(name: str) -> None:
    whole = toys.play(JOBS[name](0))
    again = JOBS[name](1)
    toys.scramble(again)
    rest = toys.play(again, resume=whole.kept[2][1])
    assert [blob for _, blob in rest.kept] == [blob for _, blob in whole.kept[3:]]


def test_a_checkpoint_of_another_plan_is_called_corrupt() -> None:
    blob = toys.play(JOBS["kd"](0)).kept[-1][1]
    for wrong in (blob[:100], blob[:-8], toys.play(JOBS["toy and kd"](0)).kept[0][1]):
        with pytest.raises(Corrupt):
            toys.play(JOBS["kd"](0), resume=wrong)


def test_the_same_job_twice_is_the_same_and_another_seed_is_another() -> None:
    first, second = (toys.play(job(KD(), dropout=0.3), freeze=False) for _ in range(2))
    assert first.events == second.events
    other = toys.play(job(KD(), dropout=0.3, seed=1), freeze=False)
    assert first.events != other.events


def test_the_phases_come_in_order_and_the_steps_count_up_to_the_whole() -> None:
    made = job(ToyMethod(), KD(), **TEACHERS_DATA)
    events = [event for event in run(made.plan, made.teacher, made.student, made.sources, keep=lambda _: None, report_seconds=0) if event]
    phases = [(event.phase, event.fit, event.of) for event in events if isinstance(event, Phase)]
    assert phases == [("initialise", 0, 12), ("transfer", 0, 12), ("transfer", 1, 12), ("train", 2, 12), ("evaluate", 2, 12)]
    steps = [event for event in events if isinstance(event, Step)]
    assert [event.done for event in steps] == list(range(1, made.plan.steps + 1))
    assert [event.step for event in steps] == [1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 5, 6]
    assert [event.phase for event in steps] == ["transfer"] * 6 + ["train"] * 6


def test_validation_is_examined_after_each_epoch_and_test_once_with_the_teacher_beside_it() -> None:
    told = [event for event in toys.play(job(KD(), evaluate=["accuracy", "agreement"])).events if isinstance(event, Evaluated)]
    assert [(event.split, event.epoch, event.done) for event in told] == [("validation", 0, 3), ("validation", 1, 6), ("test", 1, 6)]
    assert told[-1].values.keys() >= {"accuracy", "loss", "n", "agreement", "teacher.accuracy"}
    assert told[-1].values["n"] == 15


MEASURES: list[Any] = ["fgsm", {"name": "parameter_noise", "draws": 2}, {"name": "boundary", "samples": 4, "iterations": 2}]


def test_measures_are_taken_of_student_and_teacher_at_the_end_and_change_nothing() -> None:
    made, plain = job(KD(), evaluate=MEASURES), toys.play(job(KD()), freeze=False)
    played = toys.play(made, freeze=False)
    *validations, told = [event for event in played.events if isinstance(event, Evaluated)]
    assert not any(event.curves for event in validations)
    assert told.curves.keys() == {"fgsm", "teacher.fgsm", "parameter_noise", "teacher.parameter_noise"}
    for who in ("", "teacher."):
        for name, columns in (("fgsm", {"epsilon", "accuracy"}), ("parameter_noise", {"epsilon", "accuracy", "sd"})):
            curve = told.curves[who + name]
            assert curve.keys() == columns
            assert {len(column) for column in curve.values()} == {10}
            assert (curve["epsilon"][0], curve["accuracy"][0]) == (0.0, told.values[f"{who}accuracy"])
    assert told.values["boundary_tried"] <= 4
    before = plain.events[-1]
    assert isinstance(before, Evaluated)
    assert {name: value for name, value in told.values.items() if "boundary" not in name and "sim" not in name} == before.values
    assert all(torch.equal(value, plain.weights[name]) for name, value in played.weights.items())
    assert made.teacher is not None
    assert all(parameter.grad is None for parameter in made.teacher.parameters())


def test_measures_are_a_function_of_the_job() -> None:
    first, second = (toys.play(job(KD(), evaluate=MEASURES), freeze=False) for _ in range(2))
    assert first.events[-1] == second.events[-1]


def test_without_a_teacher_there_are_curves_of_the_student_alone() -> None:
    told = toys.play(job(teacher=False, evaluate=["fgsm"]), freeze=False).events[-1]
    assert isinstance(told, Evaluated)
    assert told.curves.keys() == {"fgsm"}


def test_without_a_teacher_nothing_is_said_of_one() -> None:
    told = [event for event in toys.play(JOBS["baseline"](0)).events if isinstance(event, Evaluated)]
    assert not any(name.startswith("teacher") for name in told[-1].values)


def test_the_teacher_is_the_same_afterwards_and_has_no_gradient() -> None:
    made = job(ToyMethod(), KD(), **TEACHERS_DATA)
    assert made.teacher is not None
    before = {name: value.clone() for name, value in made.teacher.network.state_dict().items()}
    toys.play(made, freeze=False)
    assert all(torch.equal(value, before[name]) for name, value in made.teacher.network.state_dict().items())
    assert all(parameter.grad is None for parameter in made.teacher.parameters())
    assert not made.teacher.training


def test_a_teacher_in_train_mode_moves_its_statistics_and_nothing_else() -> None:
    made = job(ToyMethod(teacher_mode="train"), **TEACHERS_DATA)
    assert made.teacher is not None
    before = {name: value.clone() for name, value in made.teacher.network.state_dict().items()}
    toys.play(made, freeze=False)
    moved = {name for name, value in made.teacher.network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"bn{k}.{name}" for k in (1, 2) for name in ("running_mean", "running_var", "num_batches_tracked")}


def test_an_exception_in_keep_ends_the_run_between_two_steps() -> None:
    made, seen = job(KD()), list[bytes]()

    class Stop(Exception):
        pass

    def keep(bench: object) -> None:
        seen.append(bench.freeze())  # type: ignore[attr-defined]
        if len(seen) == 2:
            raise Stop

    with pytest.raises(Stop):
        list(run(made.plan, made.teacher, made.student, made.sources, keep=keep))
    again = job(KD(), initial=5)
    rest = toys.play(again, resume=seen[-1])
    whole = toys.play(job(KD()))
    assert all(torch.equal(value, rest.weights[name]) for name, value in whole.weights.items())


def test_the_student_that_is_left_is_the_average_of_its_steps() -> None:
    """By the formula, in float64: step n keeps (n - 1) / (n + 8) of the average, at most 0.2."""
    made, wanted, seen = job(KD(), recipe=recipe(ema=0.2)), dict[str, torch.Tensor](), list[torch.Tensor]()

    def keep(bench: Bench) -> None:
        if bench.step == len(seen):
            return  # validation goes on
        kept = min(0.2, (bench.step - 1) / (bench.step + 8))
        for name, value in bench.student.network.state_dict().items():
            wanted[name] = value.double() if name not in wanted else kept * wanted[name] + (1 - kept) * value.double()
        seen.append(bench.student.network.get_parameter("fc.weight").detach().clone())

    list(run(made.plan, made.teacher, made.student, made.sources, keep=keep))
    assert len(seen) == 6
    left = made.student.network.state_dict()
    counters = {name for name, value in left.items() if not value.is_floating_point()}
    assert all(left[name].item() == 6 for name in counters)
    assert all(torch.allclose(left[name].double(), wanted[name], rtol=0, atol=1e-6) for name in left.keys() - counters)
    assert (left["fc.weight"] - seen[-1]).abs().max() > 1e-4


def test_the_test_at_the_end_reads_the_student_that_is_left() -> None:
    made = job(KD(), recipe=recipe(ema=0.9))
    told = toys.play(made, freeze=False).events[-1]
    assert isinstance(told, Evaluated)
    (*_, values) = evaluate(made.student, made.sources.test)
    assert values is not None
    assert {name: told.values[name] for name in values} == values


def test_the_student_learns() -> None:
    """Columns of different brightness are learnt almost whole within a few epochs."""
    made = toys.make(toys.spec(teacher=False, recipe=recipe(epochs=30, optimizer=SGD(lr=0.1))), n=48)
    told = [event for event in toys.play(made, freeze=False, report_seconds=float("inf")).events if isinstance(event, Evaluated)]
    assert told[-1].values["accuracy"] > 0.8
