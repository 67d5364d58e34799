"""Presets: published cells as whole jobs that their own networks can carry, with the published numbers."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch

from core.anatomy import Anatomy, measure
from core.data.report import DatasetReport
from core.networks import parse
from core.plan import Plan, plan
from core.presets import presets, tables
from core.spec import JobSpec

CELLS = sorted(name for name, preset in presets().items() if "published" in preset)
CIFAR10 = DatasetReport(
    input=(3, 32, 32),
    classes=10,
    class_names=tuple("0123456789"),
    counts={"train": 50_000, "test": 10_000},
    per_class={"train": (5_000,) * 10, "test": (1_000,) * 10},
    mean=(0.5,) * 3,
    std=(0.2,) * 3,
    range=(0.0, 1.0),
    dtype="uint8",
)


def spec_of(fields: Mapping[str, Any]) -> JobSpec:
    """The job of a preset or of a table's cell, with ids."""
    own = {name: value for name, value in fields.items() if name not in ("note", "networks", "published")}
    dataset = {**own["dataset"], "id": "ds_0"}
    return JobSpec.model_validate({**own, "teacher": "tch_0", "student": {"architecture": "arc_0"}, "dataset": dataset})


@cache
def anatomy(depth: int, widen: int) -> Anatomy:
    return measure(parse({"family": "wrn", "depth": depth, "widen": widen, "input": [3, 32, 32], "classes": 10}))


def plan_of(name: str) -> Plan:
    networks = presets()[name]["networks"]
    for network in networks.values():
        assert network["input"] == [3, 32, 32]
        assert network["classes"] == 10
    teacher, student = (anatomy(networks[who]["depth"], networks[who]["widen"]) for who in ("teacher", "student"))
    with torch.device("meta"):
        return plan(spec_of(presets()[name]), teacher, student, dataset=CIFAR10)


def test_the_table_of_sizes_gives_thirty_presets() -> None:
    kinds, rows = ("both", "channel", "depth", "same", "tiny"), ("ab_kd", "at_kd", "fitnet_kd", "fsp_kd", "jacobian_kd", "kd")
    assert [f"ab_{kind}_{row}" for kind in kinds for row in rows] == CELLS


@pytest.mark.parametrize("name", CELLS)
def test_a_published_cell_is_a_job_of_120_epochs_that_its_own_networks_can_carry(name: str) -> None:
    planned = plan_of(name)
    assert planned.epochs == 120
    assert set(planned.rows) == {5_000}
    assert [fit.recipe.epochs for fit in planned.fits] == ([20, 100] if len(planned.fits) == 2 else [120])
    assert (len(planned.fits) == 2) == any(way in name for way in ("_fitnet_", "_fsp_", "_ab_kd"))


@pytest.mark.parametrize("name", CELLS)
def test_a_published_cell_trains_on_the_teachers_answers_alone(name: str) -> None:
    weights = {term: weighted.weight for term, weighted in plan_of(name).fits[-1].terms.items()}
    assert weights["task"] == 0
    assert weights["kd"] == 1
    (kd,) = (method for method in spec_of(presets()[name]).methods if method.name == "kd")
    assert kd.model_dump() == {"name": "kd", "temperature": 3.0, "weight": 1.0, "variant": "official"}


def test_the_rate_falls_to_a_fifth_at_epochs_30_60_and_80_of_100_and_the_optimiser_begins_anew() -> None:
    recipe = plan_of("ab_both_ab_kd").fits[-1].recipe
    of = 100 * 40  # 40 steps of 128 in an epoch of 5,000 images
    assert [recipe.rate(epoch * 40, of) for epoch in (0, 29, 30, 59, 60, 79, 80)] == pytest.approx(
        [0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008]
    )
    assert [step for step in range(of) if recipe.restarts(step, of)] == [30 * 40, 60 * 40, 80 * 40]
    assert recipe.optimizer.model_dump() == {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0005}
    assert (recipe.batch_size, recipe.precision) == (128, "fp32")


def test_the_transfer_of_activation_boundaries_is_that_of_the_published_code() -> None:
    transfer = plan_of("ab_both_ab_kd").fits[0]
    of = 20 * 40
    assert transfer.teacher_mode == "train"
    assert {transfer.recipe.rate(step, of) for step in range(of)} == {0.1}
    assert [step for step in range(of) if transfer.recipe.restarts(step, of)] == [15 * 40]
    assert transfer.terms["ab"].weight == 0.003


# Typed from the published tables, not from the file under test.
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("ab_depth_ab_kd", 14.05),
        ("ab_channel_at_kd", 14.81),
        ("ab_both_kd", 21.21),
        ("ab_tiny_jacobian_kd", 28.70),
        ("ab_same_fsp_kd", 17.81),
    ],
)
def test_a_published_cell_has_its_published_error_and_says_where(name: str, error: float) -> None:
    published = presets()[name]["published"]
    assert published["error_percent"] == error
    assert "1811.03233" in published["source"]


@pytest.mark.parametrize(
    ("table", "row", "column", "error"),
    [
        ("ab_epochs", "none", "1+1", 43.37),
        ("ab_epochs", "ab_kd", "5+25", 6.08),
        ("ab_epochs", "fitnet_kd", "3+12", 11.10),
        ("ab_data", "jacobian_kd", "0.1%", 68.65),
        ("ab_data", "at_kd", "20%", 9.94),
    ],
)
def test_the_other_tables_have_their_published_errors(table: str, row: str, column: str, error: float) -> None:
    assert tables()[table].columns[column].published[row] == error


def test_columns_that_two_tables_share_agree() -> None:
    epochs, data, sizes = (tables()[name].columns for name in ("ab_epochs", "ab_data", "ab_sizes"))
    assert epochs["20+100"].published == data["100%"].published
    shared = data["10%"].published
    assert sizes["both"].published == {row: error for row, error in shared.items() if row != "none"}


@pytest.mark.parametrize("table", tables().values(), ids=tables())
def test_every_cell_of_a_table_is_a_job_of_its_columns_epochs(table: Any) -> None:
    for name, column in table.columns.items():
        assert set(column.published) <= set(table.rows)
        for row in table.rows:
            spec = spec_of(table.job(row, name))
            transfers = [method.epochs for method in spec.methods if hasattr(method, "epochs")]
            assert [*transfers, spec.recipe.epochs] == (list(column.epochs) if transfers else [sum(column.epochs)])
