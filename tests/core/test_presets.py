"""Presets: published cells as whole jobs that their own networks can carry, with the published numbers."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch

from core.anatomy import Anatomy, measure
from core.data.report import DatasetReport
from core.networks import parse
from core.optim import Clock
from core.plan import Plan, plan
from core.presets import presets, tables
from core.spec import JobSpec

CELLS = sorted(name for name, preset in presets().items() if "published" in preset)
AB = [name for name in CELLS if name.startswith("ab_")]
BSS = [name for name in CELLS if name.startswith("bss_")]
FEW_DATA = [name for name in CELLS if name.startswith("few_data_")]


def dataset_of(shape: tuple[int, ...], classes: int) -> DatasetReport:
    """As many images as CIFAR-10 has, of some shape and classes."""
    return DatasetReport(
        input=shape,
        classes=classes,
        class_names=tuple(map(str, range(classes))),
        counts={"train": 50_000, "test": 10_000},
        per_class={"train": (50_000 // classes,) * classes, "test": (10_000 // classes,) * classes},
        mean=(0.5,) * shape[0],
        std=(0.2,) * shape[0],
        range=(0.0, 1.0),
        dtype="uint8",
    )


def spec_of(fields: Mapping[str, Any]) -> JobSpec:
    """The job of a preset or of a table's cell, with ids."""
    own = {name: value for name, value in fields.items() if name not in ("note", "networks", "published")}
    data = {name: {**own[name], "id": "ds_0"} for name in ("dataset", "teacher_dataset") if name in own}
    return JobSpec.model_validate({**own, **data, "teacher": "tch_0", "student": {"architecture": "arc_0"}})


@cache
def anatomy(architecture: str) -> Anatomy:
    return measure(parse(json.loads(architecture)))


@cache
def plan_of(name: str) -> Plan:
    networks = presets()[name]["networks"]
    teacher, student = (anatomy(json.dumps(networks[who])) for who in ("teacher", "student"))
    with torch.device("meta"):
        return plan(spec_of(presets()[name]), teacher, student, dataset=dataset_of(student.input, student.classes))


def test_the_table_of_sizes_gives_thirty_presets() -> None:
    kinds, rows = ("both", "channel", "depth", "same", "tiny"), ("ab_kd", "at_kd", "fitnet_kd", "fsp_kd", "jacobian_kd", "kd")
    assert [f"ab_{kind}_{row}" for kind in kinds for row in rows] == AB


@pytest.mark.parametrize("name", AB)
def test_a_published_cell_is_a_job_of_120_epochs_that_its_own_networks_can_carry(name: str) -> None:
    planned = plan_of(name)
    assert planned.epochs == 120
    assert set(planned.rows) == {5_000}
    assert [fit.recipe.epochs for fit in planned.fits] == ([20, 100] if len(planned.fits) == 2 else [120])
    assert (len(planned.fits) == 2) == any(way in name for way in ("_fitnet_", "_fsp_", "_ab_kd"))


@pytest.mark.parametrize("name", AB)
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


@pytest.mark.parametrize("name", [*BSS, *FEW_DATA])
def test_every_other_published_cell_is_a_job_with_labels_that_its_own_networks_can_carry(name: str) -> None:
    planned = plan_of(name)
    assert planned.fits[-1].terms["task"].weight == 1
    assert len(planned.fits) == (2 if any(way in name for way in ("_fitnet_", "_fsp_", "_ab_")) else 1)
    if name in BSS:
        assert planned.epochs == 80
    sizes = {"_50_": 50, "_100_": 100, "_500_": 500, "_1000_": 1000}
    assert set(planned.rows) == {next((n for size, n in sizes.items() if size in name), 50_000)}


def test_the_published_cells_are_named_by_table_column_and_row() -> None:
    rows = {"none", "kd", "fitnet_kd", "at_kd", "fsp_kd", "bss", "fsp_bss"}
    columns = {f"cifar10_resnet{depth}" for depth in (8, 14, 20)} | {"imagenet32_resnet20", "tinyimagenet_resnet20"}
    assert {f"bss_{column}_{row}" for column in columns for row in rows} == set(BSS)
    methods, images = {"kd", "fitnet_kd", "ab_kd", "wasserstein"}, ("full", "1000", "500", "100", "50")
    datasets = ("cifar10", "fashion_mnist")
    assert {f"few_data_{data}_{n}_{method}" for data in datasets for n in images for method in methods} == set(FEW_DATA)


def test_boundary_samples_count_less_from_epoch_to_epoch_until_three_quarters_and_soft_targets_until_the_end() -> None:
    training = plan_of("bss_cifar10_resnet8_bss").fits[-1]
    kd, bss = (training.terms[name] for name in ("kd", "bss"))
    clocks = [Clock(epoch, 80, 0, 1) for epoch in (0, 29, 59, 79)]  # epochs 1, 30, 60 and 80
    assert [kd.at(clock) for clock in clocks] == pytest.approx([4 - 3 / 80, 4 - 3 * 30 / 80, 4 - 3 * 60 / 80, 1])
    assert [bss.at(clock) for clock in clocks] == pytest.approx([2 - 2 / 60, 1, 0, 0])
    recipe, of = training.recipe, 80 * 196  # 196 steps of 256 in an epoch of 50,000 images
    assert [step for step in range(of) if recipe.restarts(step, of)] == [40 * 196, 60 * 196]
    assert [recipe.rate(epoch * 196, of) for epoch in (0, 39, 40, 60)] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert recipe.optimizer.model_dump() == {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0001}


# Accuracies typed from the published tables, not from the file under test.
@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("bss_cifar10_resnet8_none", 86.02),
        ("bss_cifar10_resnet14_bss", 90.34),
        ("bss_cifar10_resnet20_fsp_bss", 90.19),
        ("bss_cifar10_resnet20_fitnet_kd", 90.46),
        ("bss_imagenet32_resnet20_bss", 32.69),
        ("bss_imagenet32_resnet20_at_kd", 32.61),
        ("bss_tinyimagenet_resnet20_fsp_kd", 53.43),
        ("bss_tinyimagenet_resnet20_kd", 52.35),
        ("few_data_cifar10_full_wasserstein", 84.66),
        ("few_data_cifar10_500_kd", 50.63),
        ("few_data_cifar10_50_fitnet_kd", 31.65),
        ("few_data_cifar10_1000_ab_kd", 76.19),
        ("few_data_fashion_mnist_1000_wasserstein", 91.95),
        ("few_data_fashion_mnist_500_fitnet_kd", 82.6),
        ("few_data_fashion_mnist_100_ab_kd", 84.09),
        ("few_data_fashion_mnist_50_kd", 78.5),
    ],
)
def test_a_published_accuracy_is_told_as_an_error(name: str, accuracy: float) -> None:
    assert presets()[name]["published"]["error_percent"] == pytest.approx(100 - accuracy, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in BSS if "imagenet" in name])
def test_what_was_not_run_says_so_and_names_the_top_5_accuracies(name: str) -> None:
    preset = presets()[name]
    assert "has not been run" in preset["note"]
    assert "not known to us" in preset["note"]
    assert ("BSS 57.17" if "imagenet32" in name else "BSS 78.38") in preset["note"]


@pytest.mark.parametrize("table", tables().values(), ids=tables())
def test_every_cell_of_a_table_is_a_job_of_its_columns_epochs(table: Any) -> None:
    for name, column in table.columns.items():
        assert set(column.published) <= set(table.rows)
        for row in table.rows:
            spec = spec_of(table.job(row, name))
            transfers = [method.epochs for method in spec.methods if hasattr(method, "epochs")]
            assert [*transfers, spec.recipe.epochs] == (list(column.budget(row)) if transfers else [sum(column.epochs)])
