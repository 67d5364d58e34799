"""A published table run at a tiny size: real children, a kill and a resume, and what the runs say together."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.images import canonical
from benchmarks.page import page
from benchmarks.scales import FULL, SMALL, Scale, changes, network, words
from benchmarks.tables import Cell, Teacher, measure, ranking, summarise, teachers_of, training_of
from benchmarks.training import Bed
from core.events import Checkpointed, decode
from core.presets import tables
from core.presets.table import Networks, Table

NETWORKS = Networks(
    teacher={"family": "wrn", "depth": 10, "widen": 1, "stem_stride": 2},
    student={"family": "wrn", "depth": 10, "widen": 1, "stem_stride": 4},
)
TINY = Scale(
    "tiny",
    columns={"ab_epochs": {"1+5": {"networks": NETWORKS, "take": {"total": 32}, "batch_size": 16}}},
    teacher={"epochs": 2, "batch_size": 32},
)


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    """Pictures of 8x8 whose brighter half is their class."""
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, n in (("train", 64), ("test", 32)):
        labels = np.arange(n, dtype=np.int64) % 2
        images = draw.integers(0, 128, (n, 8, 8), dtype=np.uint8)
        images[labels == 0, :4] += 100
        images[labels == 1, 4:] += 100
        arrays |= {f"x_{split}": images, f"y_{split}": labels}
    np.savez(tmp_path / "halves.npz", **arrays)
    data, report = canonical(tmp_path / "halves.npz", tmp_path / "work" / "data")
    return Bed(data, report, tmp_path / "work", checkpoint_seconds=0)  # a checkpoint at every step


def tiny() -> Table:
    table = TINY.of("ab_epochs", tables()["ab_epochs"])
    return table.model_copy(update={"rows": {name: table.rows[name] for name in ("none", "kd")}})


def kill_at_its_third_checkpoint(folder: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "core", "run", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    seen = 0
    with child:
        for line in child.stdout:
            seen += isinstance(decode(line), Checkpointed)
            if seen == 3:
                child.kill()
    assert child.returncode == -signal.SIGKILL


def test_a_table_is_run_killed_resumed_and_read_back(bed: Bed) -> None:
    result = measure(tiny(), TINY, bed, [0])
    assert [(run["row"], run["epochs"], run["resumed"]) for run in result["runs"]] == [("none", 6, False), ("kd", 6, False)]
    assert result["runs"][0]["teacher_error"] is None
    assert result["runs"][1]["teacher_error"] == result["teachers"][0]["error"]

    # One result is forgotten, and a child dies in the middle of that training.
    teachers = teachers_of(tiny(), TINY, bed)
    lost, kept = (training_of(tiny(), Cell(row, "1+5", 0), bed, teachers).folder for row in ("kd", "none"))
    untouched = (kept / "result.json").stat().st_mtime_ns
    (lost / "result.json").unlink()
    training_of(tiny(), Cell("kd", "1+5", 0), bed, teachers).prepare()
    kill_at_its_third_checkpoint(lost)
    again = measure(tiny(), TINY, bed, [0])
    assert [run["error"] for run in again["runs"]] == [run["error"] for run in result["runs"]]
    assert [run["resumed"] for run in again["runs"]] == [False, True]
    assert (kept / "result.json").stat().st_mtime_ns == untouched


OUTCOMES: dict[str, list[dict[str, Any]]] = {
    "none": [{"error": 20.0}, {"error": 22.0}, {"error": 24.0}],
    "kd": [{"error": 18.0}, {"error": 21.0}, {"error": 21.0}],
    "ab_kd": [{"error": 15.0}, {"diverged": "the loss is nan"}, {"error": 17.0}],
}
RUNS = [{"row": row, "column": "1+5", "seed": seed, **outcome} for row, found in OUTCOMES.items() for seed, outcome in enumerate(found)]


def cell_of(row: str) -> dict[str, Any]:
    table = TINY.of("ab_epochs", tables()["ab_epochs"])
    table = table.model_copy(update={"rows": {name: table.rows[name] for name in ("none", "kd", "ab_kd")}})
    (cell,) = (cell for cell in summarise(table, RUNS) if cell["row"] == row)
    return cell


def test_a_cell_has_mean_spread_published_error_and_paired_differences() -> None:
    cell = cell_of("kd")
    assert cell["error"] == {"n": 3, "mean": 20.0, "sd": 3**0.5}
    assert cell["published"] == 19.80
    assert "to_kd" not in cell
    assert (cell["to_none"]["n"], cell["to_none"]["mean"]) == (3, -2.0)  # -2, -1, -3: deviation 1
    assert cell["to_none"]["low"] == pytest.approx(-2 - 4.303 / 3**0.5, abs=1e-3)


def test_a_training_that_diverged_is_counted_and_leaves_no_pair() -> None:
    cell = cell_of("ab_kd")
    assert (cell["diverged"], cell["error"]["n"], cell["error"]["mean"]) == (1, 2, 16.0)
    assert cell["to_kd"] == {"n": 2, "mean": -3.5, "low": None, "high": None}  # -3 and -4: too few for an interval


def test_the_page_tells_figures_published_ones_and_what_was_changed() -> None:
    table = TINY.of("ab_epochs", tables()["ab_epochs"])
    table = table.model_copy(update={"rows": {name: table.rows[name] for name in ("none", "kd", "ab_kd")}})
    told = page(
        {
            "table": "ab_epochs",
            "title": table.title,
            "source": "a paper",
            "published_data": table.data,
            "notes": ["Epsilon is one for all."],
            "data": {"name": "halves", "counts": {"train": 64, "test": 32}},
            "scale": "tiny",
            "changes": changes(SMALL, "ab_epochs", table),
            "seeds": [0, 1, 2],
            "columns": {"1+5": {"here": words(table.columns["1+5"]), "full": words(tables()["ab_epochs"].columns["1+5"])}},
            "rows": {name: row.title for name, row in table.rows.items()},
            "against": ["kd", "none"],
            "ranking": {"1+5": ranking(summarise(table, RUNS))},
            "teachers": [{"network": "WRN-10-1", "error": 12.5, "epochs": 2, "images": 64}],
            "cells": summarise(table, RUNS),
            "runs": RUNS,
            "machine": {"processor": "p", "cores": 2, "system": "s", "python": "3", "versions": {"torch": "2"}, "commit": "c"},
        }
    )
    assert "| KD | 20.00 ± 1.73 (19.80) |" in told
    assert "| AB+KD | 16.00 ± 1.41 1 diverged (11.16) |" in told
    assert "| AB+KD | -3.50 (n = 2) |" in told
    assert "| none | +2.00 [-0.48, +4.48] |" in told
    assert "Less the error of no teacher" in told
    assert "- 1+5: error +0.50 (3 rows)" in told  # 22, 20, 16 beside 17.72, 19.80, 11.16: the first two change places
    here = "1+5 epochs, 32 images, batch 16, WRN-10-1 with stem stride 2 to WRN-10-1 with stem stride 4"
    assert "In all columns here: at with weight 30.0;" in told
    assert "; teachers' recipe: epochs 6;" in told
    assert "| column | here | full scale (CIFAR-10) |" in told
    assert "\n- Epsilon is one for all.\n" in told
    assert "MagSim" not in told
    assert "What ran" not in told
    assert f"| 1+5 | {here} | 1+5 epochs, all images, WRN-22-4 to WRN-16-2 |" in told


def test_what_else_was_measured_stands_beside_the_errors() -> None:
    found = [({"magsim": 0.5, "boundary_pairs": 200.0}, "tangent"), ({"magsim": 0.7}, "tangent"), ({}, "double_backward")]
    runs = [
        {"row": "kd", "column": "1+5", "seed": seed, "error": 20.0, "measured": measured, "terms": {"wasserstein": {"form": form}}}
        for seed, (measured, form) in enumerate(found)
    ]
    table = tiny()
    cells = summarise(table, runs)
    (kd,) = (cell for cell in cells if cell["row"] == "kd")
    assert kd["measured"]["magsim"] == {"n": 2, "mean": pytest.approx(0.6), "sd": pytest.approx(0.02**0.5)}  # 0.1² + 0.1²
    told = page(
        {
            "table": "t",
            "title": "t",
            "source": "a paper",
            "published_data": "Moon",
            "notes": [],
            "data": {"name": "halves", "counts": {"train": 64, "test": 32}},
            "scale": "full",
            "changes": [],
            "seeds": [0, 1, 2],
            "columns": {"1+5": {"here": "a", "full": "b"}},
            "rows": {name: row.title for name, row in table.rows.items()},
            "against": [],
            "ranking": {},
            "teachers": [],
            "cells": cells,
            "runs": runs,
            "machine": {"processor": "p", "cores": 2, "system": "s", "python": "3", "versions": {"torch": "2"}, "commit": "c"},
        }
    )
    assert "| KD | 0.600 ± 0.141 |" in told
    assert "| KD | 200.0 |" in told
    assert "AngSim" not in told
    assert "full scale (Moon)" in told
    assert "In all columns" not in told
    assert "Spearman" not in told
    assert "What ran: wasserstein with form double_backward in 1 training; wasserstein with form tangent in 2 trainings." in told


def test_networks_are_told_by_what_their_families_are_called_by() -> None:
    assert network({"family": "wrn", "depth": 16, "widen": 2}) == "WRN-16-2"
    assert network({"family": "resnet", "depth": 8, "stem_stride": 2}) == "ResNet-8 with stem stride 2"
    assert network({"family": "convnet", "channels": [16, 32, 64]}) == "convnet 16-32-64"
    assert network({"family": "mlp", "hidden": [64, 32], "rectified": True}) == "MLP 64-32 with rectified True"
    assert network({"family": "vgg", "depth": 11}) == "vgg with depth 11"


def test_a_teacher_is_trained_as_its_table_says_but_for_what_the_scale_says() -> None:
    few, ab = tables()["few_data_fashion_mnist"], tables()["ab_epochs"]
    assert FULL.recipe(ab) == {**ab.spec["recipe"], "task_weight": 1.0, "epochs": 120}
    assert (FULL.recipe(few)["epochs"], FULL.recipe(few)["optimizer"]["lr"]) == (10, 0.05)
    assert SMALL.recipe(few)["epochs"] == 6
    assert "teachers' recipe: epochs 10" in changes(FULL, "few_data_fashion_mnist", few)


def test_a_student_that_nobody_taught_has_a_teacher_where_more_than_accuracy_is_measured(bed: Bed) -> None:
    table = tiny()
    weights = bed.work / "teacher.safetensors"
    weights.write_bytes(b"weights")
    teachers = {network(NETWORKS.teacher): Teacher(weights, {})}
    assert training_of(table, Cell("none", "1+5", 0), bed, teachers).teacher is None
    asked = table.model_copy(update={"spec": {**table.spec, "evaluate": ["accuracy", "agreement"]}})
    assert training_of(asked, Cell("none", "1+5", 0), bed, teachers).teacher == weights


def test_full_changes_nothing_and_small_keeps_budgets_and_published_weights() -> None:
    for name, table in tables().items():
        assert FULL.of(name, table) == table
        small = SMALL.of(name, table)
        assert {column: setting.published for column, setting in small.columns.items()} == {
            column: table.columns[column].published for column in small.columns
        }
        chosen = {"at_kd", "bss", "fitnet_kd", "fsp_bss", "jacobian_kd"}
        assert {row: way for row, way in small.rows.items() if row not in chosen} == {
            row: way for row, way in table.rows.items() if row not in chosen
        }
    small = SMALL.of("ab_epochs", tables()["ab_epochs"])
    assert [column.epochs for column in small.columns.values()] == [(1, 1), (1, 5), (3, 12)]
    assert [method.get("weight") for method in small.rows["at_kd"].train] == [30.0, 1.0]
    (column,) = (column for column in SMALL.of("bss_cifar10", tables()["bss_cifar10"]).columns.values() if column.title.endswith("-8"))
    bss = SMALL.of("bss_cifar10", tables()["bss_cifar10"]).rows["bss"].train[1]
    assert bss["samples"] * 4 == column.batch_size  # as 64 of 256
