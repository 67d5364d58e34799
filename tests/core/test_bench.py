"""Freezing and thawing: whole, into what is already there, and nothing else."""

from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from core.bench import Bench, Meters
from core.errors import Unresumable
from core.fit import fit
from core.methods.kd import KD
from core.optim import Recipe
from core.source import Live
from tests.core import toys
from tests.core.toys import Job, ToyMethod, spec

TEACHERS_DATA: dict[str, Any] = {"teacher_dataset": {"id": "ds_2", "validation": 0.0}}
AVERAGED = Recipe(epochs=2, batch_size=8, ema=0.9)


def fresh(made: Job | None = None) -> tuple[Bench, Live]:
    made = made or toys.make(spec(KD()))
    bench = Bench(made.plan.fits, [batches.steps for batches in made.sources.fits], made.student, made.teacher, seed=0)
    return bench, Live(made.sources.fits[0], made.teacher)


def trained(steps: int) -> Bench:
    bench, source = fresh()
    stream = fit(bench, source, None)
    for _ in range(steps):
        next(stream)
    return bench


def test_a_bench_begins_at_the_first_step_of_the_first_fit() -> None:
    bench, _ = fresh()
    assert (bench.fit, bench.step, bench.done, bench.of, bench.phase) == (0, 0, 0, 6, "train")


def test_the_position_counts_over_all_fits() -> None:
    bench, _ = fresh(toys.make(spec(ToyMethod(), KD(), **TEACHERS_DATA)))
    assert (bench.of, bench.phase) == (12, "transfer")
    bench.enter(2)
    bench.step = 4
    assert (bench.done, bench.phase, bench.steps) == (10, "train", 6)
    assert (bench.clock.epoch, bench.clock.epochs, bench.clock.step, bench.clock.steps) == (1, 2, 4, 6)


def test_what_is_frozen_is_plain_tensors_with_no_gradient_and_freezing_changes_nothing() -> None:
    bench = trained(2)
    blob = bench.freeze()
    assert bench.freeze() == blob
    state = load(blob)
    assert state["position"].tolist() == [0, 2, 0]
    assert "student/conv1.weight" in state
    assert "student/bn1.running_mean" in state
    assert "optimiser/student/conv1.weight/momentum_buffer" in state
    assert not any(name.startswith("teacher/") for name in state)


def test_a_frozen_bench_does_not_change_with_the_next_step() -> None:
    bench, source = fresh()
    stream = fit(bench, source, None)
    next(stream)
    before = bench.freeze()
    copy = bytes(before)
    next(stream)
    assert before == copy
    assert bench.freeze() != before


def test_thawing_writes_into_the_existing_parameters_and_keeps_their_layout() -> None:
    blob = trained(2).freeze()
    bench, _ = fresh()
    bench.student.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weight = dict(bench.student.network.named_parameters())["conv1.weight"]
    bench.thaw(blob)
    assert dict(bench.student.network.named_parameters())["conv1.weight"] is weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert bench.optimiser.state[weight]["momentum_buffer"].is_contiguous(memory_format=torch.channels_last)
    assert bench.freeze() == blob


def test_tied_weights_are_frozen_and_thawed() -> None:
    made = toys.make(spec(KD()))
    shared = torch.nn.Parameter(torch.ones(8))
    made.student.network.get_submodule("bn2").weight = made.student.network.get_submodule("conv2").bias = shared
    bench, _ = fresh(made)
    bench.thaw(bench.freeze())
    assert made.student.network.get_parameter("bn2.weight") is made.student.network.get_parameter("conv2.bias")


@pytest.mark.parametrize("spoil", ["missing", "unknown", "shape", "position", "half a position", "bytes"])
def test_a_checkpoint_of_something_else_is_corrupt(spoil: str) -> None:
    blob = trained(1).freeze()
    state = load(blob)
    match spoil:
        case "missing":
            state.pop("student/fc.bias")
        case "unknown":
            state["optimiser/student/nothing/momentum_buffer"] = torch.zeros(1)
        case "shape":
            state["student/fc.bias"] = torch.zeros(9)
        case "position":
            state["position"] = torch.tensor([7, 0, 0])
        case "half a position":
            state["position"] = torch.tensor([0, 0])
    wrong = blob[:50] if spoil == "bytes" else save(state)
    bench, _ = fresh()
    with pytest.raises(Unresumable):
        bench.thaw(wrong)


def test_entering_a_fit_makes_a_new_optimiser_over_what_learns() -> None:
    bench, _ = fresh(toys.make(spec(ToyMethod(), KD(), **TEACHERS_DATA)))
    assert {name for name, parameter in bench.student.network.named_parameters() if parameter.requires_grad} == {
        "conv1.weight", "bn1.weight", "bn1.bias",
    }  # fmt: skip
    assert len(bench.parameters()) == 3 + 1
    bench.enter(2)
    assert all(parameter.requires_grad for parameter in bench.student.network.parameters())
    assert len(bench.parameters()) == len(list(bench.student.network.parameters()))


def test_an_average_is_kept_in_the_training_itself_and_is_no_part_of_what_learns() -> None:
    bench, _ = fresh(toys.make(spec(ToyMethod(), KD(), recipe=AVERAGED, **TEACHERS_DATA)))
    for fit_of in (0, 1):
        bench.enter(fit_of)
        assert bench.examined is bench.student
        assert not any(name.startswith("ema/") for name in load(bench.freeze()))
    bench.enter(2)
    assert bench.examined is not bench.student
    assert not any(parameter.requires_grad for parameter in bench.examined.parameters())
    assert not any(module.training for module in bench.examined.modules())
    frozen = load(bench.freeze())
    assert {name.removeprefix("ema/") for name in frozen if name.startswith("ema/")} == set(bench.student.network.state_dict())


def test_a_checkpoint_with_an_average_is_of_another_plan_than_one_without() -> None:
    with_average, without = fresh(toys.make(spec(KD(), recipe=AVERAGED)))[0], fresh()[0]
    for bench, blob in ((with_average, without.freeze()), (without, with_average.freeze())):
        with pytest.raises(Unresumable, match="ema/"):
            bench.thaw(blob)


def test_to_adopt_the_average_twice_is_to_adopt_it_once() -> None:
    made = toys.make(spec(KD(), recipe=AVERAGED))
    bench, source = fresh(made)
    list(fit(bench, source, None))
    trained = bench.freeze()
    bench.adopt()
    adopted = bench.freeze()
    bench.adopt()
    assert adopted == bench.freeze() != trained
    bench.thaw(trained)
    bench.adopt()
    assert bench.freeze() == adopted


def test_the_teacher_is_frozen_and_in_eval_mode() -> None:
    bench, _ = fresh()
    assert bench.teacher is not None
    assert not any(parameter.requires_grad for parameter in bench.teacher.parameters())
    assert not any(module.training for module in bench.teacher.modules())


def test_meters_read_the_mean_of_each_name_and_begin_again() -> None:
    meters = Meters()
    meters.add({"b": torch.tensor(1.0), "a": torch.tensor(4.0)})
    meters.add({"b": torch.tensor(2.0)})
    assert list(meters.read().items()) == [("a", 4.0), ("b", 1.5)]
    assert meters.read() == {}
