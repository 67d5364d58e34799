"""Recipes, and everything that moves with the clock, by hand."""

import math

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from core.data.augment import Crop, Cutout, Flip
from core.errors import Refused
from core.optim import SGD, AdamW, Clock, Constant, Cosine, Drops, Linear, OneCycle, Recipe, Weight, optimiser


def test_a_line_is_evaluated_once_an_epoch_counted_from_one() -> None:
    """The schedule 4 -> 1 over E epochs is 4 - 3 e / E at the published epoch e = 1 .. E."""
    line = Linear(linear=(4, 1))
    assert [line(Clock(epoch, 3, 0, 300)) for epoch in range(3)] == [3.0, 2.0, 1.0]
    short = Linear(linear=(0, 1), until=0.5)
    assert [short(Clock(epoch, 4, 0, 4)) for epoch in range(4)] == [0.5, 1.0, 1.0, 1.0]


def test_a_weight_is_a_number_or_a_line_and_nothing_else() -> None:
    weight: TypeAdapter[float | Linear] = TypeAdapter(Weight)
    assert weight.validate_python(0.9) == 0.9
    assert weight.validate_python({"linear": [4, 1], "until": 0.75}) == Linear(linear=(4, 1), until=0.75)
    for wrong in (-1, math.inf, math.nan, {"linear": [4]}, {"linear": [4, -1]}, {"linear": [4, 1], "until": 0}, {"cosine": [4, 1]}):
        with pytest.raises(ValidationError):
            weight.validate_python(wrong)


def test_drops_come_at_whole_steps_however_the_fraction_rounds() -> None:
    """240 epochs of 782 steps drop at epochs 150, 180 and 210."""
    schedule, steps = Drops(milestones=(0.625, 0.75, 0.875)), 240 * 782
    for epoch, before, after in ((150, 1.0, 0.1), (180, 0.1, 0.01), (210, 0.01, 0.001)):
        assert schedule.factor(epoch * 782 - 1, steps) == pytest.approx(before)
        assert schedule.factor(epoch * 782, steps) == pytest.approx(after)


def test_a_cosine_starts_at_one_is_half_in_the_middle_and_ends_at_its_final_value() -> None:
    schedule = Cosine(final=0.2)
    assert schedule.factor(0, 100) == 1.0
    assert schedule.factor(50, 100) == pytest.approx(0.6)
    assert schedule.factor(100, 100) == pytest.approx(0.2)


def test_a_warm_up_rises_in_a_line_and_then_the_schedule_begins() -> None:
    for schedule in (Constant(warmup=0.1), Cosine(warmup=0.1), Drops(warmup=0.1)):
        assert [schedule.factor(step, 40) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, pytest.approx(1.0, abs=1e-9)]


@pytest.mark.parametrize("steps", [3, 7, 12, 240])
@pytest.mark.parametrize(("rise", "div", "final_div"), [(0.3, 25.0, 1e4), (0.5, 10.0, 1.0), (0.1, 1.0, 100.0)])
def test_one_cycle_is_torchs_to_a_millionth(steps: int, rise: float, div: float, final_div: float) -> None:
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        sgd, max_lr=0.4, total_steps=steps, pct_start=rise, div_factor=div, final_div_factor=final_div, cycle_momentum=False
    )
    recipe = Recipe(optimizer=SGD(lr=0.4), schedule=OneCycle(rise=rise, div=div, final_div=final_div))
    for step in range(steps):
        assert recipe.rate(step, steps) == pytest.approx(sgd.param_groups[0]["lr"], abs=1e-6)
        sgd.step()
        if step < steps - 1:
            reference.step()


def test_one_cycle_rises_to_the_rate_and_falls_to_almost_nothing() -> None:
    """Of 10 steps with a rise of 0.5, step 4 is the peak, step 2 the middle of the rise."""
    schedule = OneCycle(rise=0.5, div=4, final_div=10)
    assert [schedule.factor(step, 10) for step in (0, 2, 4, 9)] == pytest.approx([1 / 4, (1 + 1 / 4) / 2, 1, 1 / 40])


def test_a_rise_of_one_step_begins_at_the_peak() -> None:
    """Where torch divides by zero."""
    assert OneCycle(rise=0.1).factor(0, 10) == 1.0
    assert OneCycle().factor(0, 1) == pytest.approx(1 / (25 * 1e4))


def test_one_cycle_has_no_other_warm_up() -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate({"schedule": {"name": "onecycle", "warmup": 0.1}})
    assert caught.value.errors()[0]["loc"] == ("schedule", "onecycle", "warmup")


def test_an_average_keeps_little_at_first_and_then_its_decay() -> None:
    """Step n, from 1, keeps (n - 1) / (n + 8) of the average: nothing, 1/10, 2/11, 3/12, then 0.3."""
    assert [Recipe(ema=0.3).decay(step) for step in range(6)] == pytest.approx([0, 0.1, 2 / 11, 0.25, 0.3, 0.3])
    assert Recipe(ema=0.999).decay(10**6) == 0.999


def test_an_augmentation_is_listed_once() -> None:
    assert len(Recipe(augmentation=(Cutout(size=2), Flip(), Crop())).augmentation) == 3
    with pytest.raises(ValidationError, match="once"):
        Recipe(augmentation=(Crop(), Crop(mode="reflect")))


def test_the_rate_is_the_optimisers_times_the_schedules_factor() -> None:
    recipe = Recipe(optimizer=SGD(lr=0.4), schedule=Drops(milestones=(0.5,)))
    assert recipe.rate(4, 10) == 0.4
    assert recipe.rate(5, 10) == pytest.approx(0.04)


def test_the_optimiser_restarts_at_drops_only_and_only_where_asked() -> None:
    recipe = Recipe(schedule=Drops(milestones=(0.3, 0.6), warmup=0.2), restart=True)
    assert [step for step in range(10) if recipe.restarts(step, 10)] == [3, 6]
    assert not any(Recipe(schedule=Drops()).restarts(step, 10) for step in range(10))
    with pytest.raises(ValidationError, match="restart"):
        Recipe(schedule=Cosine(), restart=True)


def test_an_optimiser_may_restart_without_a_drop() -> None:
    """AB's published code makes its optimiser anew at three quarters of the transfer, at the same rate."""
    recipe = Recipe(schedule=Drops(milestones=(0.75,), gamma=1.0), restart=True)
    assert [step for step in range(8) if recipe.restarts(step, 8)] == [6]
    assert {recipe.rate(step, 8) for step in range(8)} == {0.1}


def test_a_fit_may_take_another_rate_with_the_jobs_optimiser_and_another_schedule_without_the_jobs_restarts() -> None:
    job = Recipe(optimizer=AdamW(lr=0.3, betas=(0.5, 0.6)), schedule=Drops(), restart=True)
    own = Recipe(schedule=Constant()).over(job, lr=0.02)
    assert own.optimizer == AdamW(lr=0.02, betas=(0.5, 0.6))
    assert not own.restart
    assert Recipe(epochs=3).over(job).restart


def test_a_fits_recipe_states_what_it_needs_and_takes_the_rest_from_the_job() -> None:
    job = Recipe(epochs=100, batch_size=32, optimizer=AdamW(), precision="fp32")
    own = Recipe(epochs=7).over(job)
    assert own.epochs == 7
    assert (own.batch_size, own.optimizer, own.precision) == (32, AdamW(), "fp32")
    assert Recipe().over(job) == job


def test_the_optimisers_are_torchs_with_the_recipes_numbers() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    sgd = optimiser(Recipe(optimizer=SGD(lr=0.3, momentum=0.8, weight_decay=0.01)), [parameter])
    assert isinstance(sgd, torch.optim.SGD)
    assert {key: sgd.param_groups[0][key] for key in ("lr", "momentum", "nesterov", "weight_decay")} == {
        "lr": 0.3, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01,
    }  # fmt: skip
    adamw = optimiser(Recipe(optimizer=AdamW(betas=(0.5, 0.6))), [parameter])
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["betas"] == (0.5, 0.6)


@pytest.mark.parametrize("kind", [SGD(), AdamW()])
def test_a_parameter_may_get_its_first_gradient_later_than_the_others(kind: SGD | AdamW) -> None:
    early, late = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    made = optimiser(Recipe(optimizer=kind), [early, late])
    early.grad = torch.ones(2)
    made.step()
    early.grad, late.grad = torch.ones(2), torch.ones(2)
    made.step()
    assert (late < 1).all()


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        ("epochs", 0), ("batch_size", 1), ("accumulate", 0), ("clip", 0), ("label_smoothing", 1), ("precision", "fp8"), ("task_weight", -1),
        ("optimizer", {"name": "lion"}), ("optimizer", {"name": "sgd", "lr": 0}), ("optimizer", {"name": "sgd", "momentum": 0}),
        ("optimizer", {"name": "sgd", "betas": [0.9, 0.9]}), ("schedule", {"name": "step", "milestones": [150]}),
        ("augmentation", [{"name": "mixup"}]), ("augmentation", [{"name": "cutout", "size": 0}]),
        ("augmentation", [{"name": "crop", "mode": "edge"}]),
        ("ema", 0), ("ema", 1), ("schedule", {"name": "onecycle", "rise": 1}), ("epoch", 3),
    ],
)  # fmt: skip
def test_a_recipe_out_of_bounds_is_refused_with_the_field_named(where: str, wrong: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate({where: wrong})
    assert caught.value.errors()[0]["loc"][0] == where


def test_every_field_of_a_recipe_says_what_it_is() -> None:
    for model in (Recipe, SGD, AdamW, Constant, Drops, Cosine, OneCycle, Linear, Crop, Flip, Cutout):
        assert all(field.description or name == "name" for name, field in model.model_fields.items()), model


def test_a_drop_after_each_epoch_multiplies_the_rate_at_its_end() -> None:
    drops = Drops.each_epoch(3, 0.5, where="/decay")
    assert [drops.factor(step, 6) for step in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert Drops.each_epoch(1, 0.5, where="/decay").factor(3, 4) == 1
    fifteen = Drops.each_epoch(15, 0.85, where="/decay")  # of 118 steps, as in the published setting
    assert [fifteen.factor(step, 15 * 118) for step in (117, 118, 14 * 118 - 1, 14 * 118)] == [1, 0.85, 0.85**13, 0.85**14]
    with pytest.raises(Refused) as refused:
        Drops.each_epoch(1026, 0.85, where="/decay")
    assert refused.value.where == "/decay"
