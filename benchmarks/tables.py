"""Run a published table: every row and column, several seeds, beside the published errors.

`python -m benchmarks.tables NAME --data FILE --work DIR [--scale small|full] [--seeds 5] [--jobs 2] [--only ROW,...] [--columns COLUMN,...]
[--device cpu|cuda] [--out FILE] [--page FILE]`. Each training is a job folder and the engine's own child process on one thread, `--jobs` of
them at once. What has ended is read back from `--work`, and what was interrupted goes on from its last checkpoint: start it again to go on.
"""

import argparse
import dataclasses
import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.images import canonical
from benchmarks.page import page
from benchmarks.scales import SCALES, Scale, changes, network, words
from benchmarks.summary import Difference, Spread, difference, rank_correlation, spread
from benchmarks.training import Bed, Training
from core.presets import tables
from core.presets.table import Table
from core.spec import NEEDS_TEACHER


@dataclass(frozen=True, slots=True)
class Cell:
    """One training of the table: a row, a column and a seed."""

    row: str
    column: str
    seed: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a table, print it, and write it where `--out` and `--page` say."""
    options = _options(arguments)
    data, report = canonical(options.data, options.work / "data")
    published, scale = tables()[options.name], SCALES[options.scale]
    bed = Bed(data, report, options.work, options.jobs, options.device, normalize=published.normalize)
    table = _chosen(scale.of(options.name, published), options.only, options.columns)
    result = {
        "table": options.name,
        "title": published.title,
        "source": published.source,
        "published_data": published.data,
        "notes": [published.note, *(f"{row.title}: {row.note}" for row in table.rows.values() if row.note)],
        "data": {"name": options.data.name.partition(".")[0], "counts": dict(report.counts), "input": list(report.input)},
        "scale": scale.name,
        "changes": changes(scale, options.name, published),
        **measure(table, scale, bed, range(options.seeds)),
        "machine": machine.describe(),
    }
    for name, column in result["columns"].items():
        column["full"] = words(published.columns[name])
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    told = page(result)
    if options.page:
        options.page.write_text(told)
    print(told)


def measure(table: Table, scale: Scale, bed: Bed, seeds: Iterable[int]) -> dict[str, Any]:
    """Every training of a table, and what they say together: {"seeds", "columns", "rows", "teachers", "runs", "cells"}.

    The seed decides the student's initial weights, the order and the views of the images, and which of them are taken. One teacher for all
    seeds, trained from the labels of all images with seed 0. All test images are read once, at a training's end.
    """
    seeds = tuple(seeds)
    teachers = teachers_of(table, scale, bed)
    cells = [Cell(row, column, seed) for seed in seeds for column in table.columns for row in table.rows]
    trainings = {cell: training_of(table, cell, bed, teachers) for cell in cells}
    outcomes = _carry_out(trainings, bed.jobs)
    runs = [{**dataclasses.asdict(cell), **outcomes[cell]} for cell in cells]
    summary = summarise(table, runs)
    return {
        "seeds": list(seeds),
        "columns": {name: {"title": column.title, "here": words(column)} for name, column in table.columns.items()},
        "rows": {name: row.title for name, row in table.rows.items()},
        "against": [name for name in table.against if name in table.rows],
        "teachers": [teacher.facts for teacher in teachers.values()],
        "runs": runs,
        "cells": summary,
        "ranking": {name: ranking([cell for cell in summary if cell["column"] == name]) for name in table.columns},
    }


def summarise(table: Table, runs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each cell: errors over the seeds, the published one, how many diverged, the paired differences from the rows of `against`, and
    what else was measured on the test images, by name.
    """
    errors: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    measured: dict[tuple[str, str], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    diverged: dict[tuple[str, str], int] = defaultdict(int)
    for run in runs:
        if "error" in run:
            errors[run["row"], run["column"]][run["seed"]] = run["error"]
            for name, value in run.get("measured", {}).items():
                measured[run["row"], run["column"]][name][run["seed"]] = value
        else:
            diverged[run["row"], run["column"]] += 1
    cells = []
    for row in table.rows:
        for column in table.columns:
            own = errors[row, column]
            compared = {
                f"to_{other}": difference(own, errors[other, column]) for other in table.against if other in table.rows and other != row
            }
            known = {"error": spread(own), **compared}
            cells.append(
                {
                    "row": row,
                    "column": column,
                    "published": table.columns[column].published.get(row),
                    "diverged": diverged[row, column],
                    **{name: _told(found) for name, found in known.items()},
                    "measured": {name: _told(spread(values)) for name, values in measured[row, column].items()},
                    "published_measured": {name: values[row] for name, values in table.columns[column].measured.items() if row in values},
                }
            )
    return cells


def ranking(cells: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """How far the rows of one column stand in the published order, by what is measured, "error" first: `rank_correlation` of the means and
    the published values of the rows that have both.
    """
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for cell in cells:
        if cell["error"] and cell["published"] is not None:
            pairs["error"].append((cell["error"]["mean"], cell["published"]))
        for name, published in cell["published_measured"].items():
            if cell["measured"].get(name):
                pairs[name].append((cell["measured"][name]["mean"], published))
    return {name: {"rows": len(own), "spearman": rank_correlation(own)} for name, own in pairs.items()}


def _images(bed: Bed, data: Mapping[str, Any]) -> int:
    """The training images of the classes that a dataset reference chooses."""
    chosen, report = data.get("classes"), bed.report
    return sum(n for name, n in zip(report.class_names, report.per_class["train"], strict=True) if chosen is None or name in chosen)


def _told(found: Spread | Difference | None) -> dict[str, Any] | None:
    return None if found is None else dataclasses.asdict(found)


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained teacher: its weights, and what the result says of it."""

    weights: Path
    facts: Mapping[str, Any]


def teachers_of(table: Table, scale: Scale, bed: Bed) -> dict[str, Teacher]:
    """Every teacher of the table by its name, each trained once: on all training images, from the labels, with seed 0."""
    found: dict[str, Teacher] = {}
    for column in table.columns.values():
        name = network(column.networks.teacher)
        if name in found:
            continue
        recipe = scale.recipe(table)
        data = table.spec.get("teacher_dataset", {"validation": 0.0})
        spec = {"name": f"teacher {name}", "dataset": data, "methods": [], "recipe": recipe}
        training = bed.training(spec, column.networks.teacher)
        (outcome,) = _carry_out({Cell("teacher", name, 0): training}, 1).values()
        if "error" not in outcome:
            raise RuntimeError(f"the teacher {name} diverged: {outcome['diverged']}")
        found[name] = Teacher(training.weights, {"network": name, "images": _images(bed, data), "recipe": recipe, **outcome})
    return found


def training_of(table: Table, cell: Cell, bed: Bed, teachers: Mapping[str, Teacher]) -> Training:
    """The training of one cell and seed."""
    spec = table.job(cell.row, cell.column)
    spec |= {"seed": cell.seed, "dataset": {**spec["dataset"], "seed": cell.seed, "view_seed": cell.seed}, "exports": []}
    networks = table.columns[cell.column].networks
    # A student that nobody taught is compared with the teacher where something is measured of both.
    measures = {each if isinstance(each, str) else each["name"] for each in spec.get("evaluate", ())}
    needed = spec["methods"] or measures & NEEDS_TEACHER
    teacher = (networks.teacher, teachers[network(networks.teacher)].weights) if needed else None
    if teacher is None:
        spec.pop("teacher_dataset", None)
    return bed.training(spec, table.student(cell.row, cell.column), teacher)


def _carry_out(trainings: Mapping[Cell, Training], jobs: int) -> dict[Cell, dict[str, Any]]:
    """Carry trainings out, `jobs` at once. An interrupt, or one that fails, stops the others, which keep a checkpoint each."""
    live: set[subprocess.Popen[str]] = set()
    outcomes: dict[Cell, dict[str, Any]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(training.carry_out, live): cell for cell, training in trainings.items()}
        try:
            for done in as_completed(waiting):
                cell, outcome = waiting[done], done.result()
                outcomes[cell] = outcome
                told = f"{outcome['error']:.2f} %" if "error" in outcome else f"diverged: {outcome['diverged']}"
                print(
                    f"{len(outcomes)}/{len(trainings)} {cell.row} {cell.column} seed {cell.seed}: {told} ({outcome['seconds']} s)",
                    flush=True,
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in tuple(live):
                child.terminate()
            raise
    return outcomes


def _chosen(table: Table, rows: Sequence[str] | None, columns: Sequence[str] | None) -> Table:
    """The table with some of its rows and columns, in its own order."""
    for asked, there in ((rows, table.rows), (columns, table.columns)):
        unknown = set(asked or ()) - set(there)
        if unknown:
            raise SystemExit(f"there is no {', '.join(sorted(unknown))} at this scale; there are {', '.join(there)}")
    return table.model_copy(
        update={
            "rows": {name: row for name, row in table.rows.items() if rows is None or name in rows},
            "columns": {name: column for name, column in table.columns.items() if columns is None or name in columns},
        }
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(tables()))
    parser.add_argument("--data", type=Path, required=True, help="an image set: .tar.xz, .zip of folders, .npz, or canonical .safetensors")
    parser.add_argument("--work", type=Path, required=True, help="keeps the data, the teachers and every training that has ended")
    parser.add_argument("--scale", choices=list(SCALES), default="small")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="trainings at once, one thread each")
    parser.add_argument("--only", type=lambda text: text.split(","), help="some rows")
    parser.add_argument("--columns", type=lambda text: text.split(","), help="some columns")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="the result as JSON")
    parser.add_argument("--page", type=Path, help="the result as Markdown")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
