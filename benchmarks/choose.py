"""Choose the parameters of a table's row on training images alone: what it measures, by value, on images that were set aside.

`python -m benchmarks.choose NAME ROW --data FILE --work DIR --column COLUMN --try FIELD=VALUE,... [--try FIELD=VALUE,...] [--seeds 1]
[--scale full] [--jobs 2]` runs one column of a table: the rows that others are compared with, and ROW with every combination of the values
that are tried for its method's fields. 3,000 training images are set aside, from which neither teacher nor student learns, and take the
test images' place, which are not read. Seeds count from 1000, apart from those of the tables. What has ended is read back.
"""

import argparse
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.images import canonical
from benchmarks.scales import SCALES
from benchmarks.tables import measure
from benchmarks.training import Bed
from core.data import ingest, open_dataset
from core.data.split import set_aside
from core.presets import tables
from core.presets.table import Row, Table

HELD_OUT = 3000
FIRST_SEED = 1000


def without_test(data: Path, out: Path, held_out: int = HELD_OUT) -> Path:
    """A dataset at `out` from the training images of the one at `data`: about so many of them, stratified and the same for ever, as its
    test images, all others as its training images. Made once.
    """
    if not out.exists():
        whole = open_dataset(data)
        train = whole.split("train")
        learnt, judged = set_aside(train.labels, np.arange(len(train)), held_out / len(train), "epsilon", FIRST_SEED)
        parts = {"train": train.only(learnt), "test": train.only(judged)}
        arrays = {f"{axis}_{split}": getattr(rows, axis) for split, rows in parts.items() for axis in ("x", "y")}
        between = out.with_suffix(".npz")
        np.savez(between, **arrays)
        ingest(between, {"format": "npz", "layout": "NHWC", "class_names": whole.report.class_names}, out)
        between.unlink()
    return out


def candidates(table: Table, row: str, column: str, tried: Mapping[str, Sequence[Any]]) -> Table:
    """One column of the table, with the rows that others are compared with, and `row` once for each combination of the values that are
    `tried` for the fields of its one method.
    """
    way = table.rows[row]
    part = "train" if way.transfer is None else "transfer"
    method = way.train[-1] if way.transfer is None else way.transfer
    rows = {name: table.rows[name] for name in table.against}
    for values in itertools.product(*tried.values()):
        chosen = dict(zip(tried, values, strict=True))
        title = ", ".join(f"{name} {value}" for name, value in chosen.items())
        changed = {**method, **chosen}
        own = changed if part == "transfer" else (*way.train[:-1], changed)
        rows[title] = Row.model_validate({**dict(way), "title": title, part: own})
    setting = table.columns[column]
    budgets = {**setting.budgets, **dict.fromkeys(rows.keys() - table.rows.keys(), setting.budget(row))}
    return table.model_copy(update={"rows": rows, "columns": {column: setting.model_copy(update={"budgets": budgets})}})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the column and print what was measured."""
    options = _options(arguments)
    data, _ = canonical(options.data, options.work / "data")
    data = without_test(data, data.with_name(f"{data.stem}-epsilon.safetensors"))
    published, scale = tables()[options.name], SCALES[options.scale]
    bed = Bed(data, open_dataset(data).report, options.work, options.jobs, normalize=published.normalize)
    table = candidates(scale.of(options.name, published), options.row, options.column, dict(options.tried))
    result = measure(table, scale, bed, range(FIRST_SEED, FIRST_SEED + options.seeds))
    counts = bed.report.counts
    print(f"{options.name}, {table.columns[options.column].title}: in % on {counts['test']:,} training images set aside")
    for cell in result["cells"]:
        told = [_told("accuracy", cell["error"] and {**cell["error"], "mean": 100 - cell["error"]["mean"]})]
        told += [
            _told(name, {**found, "mean": 100 * found["mean"], "sd": found["sd"] and 100 * found["sd"]})
            for name, found in cell["measured"].items()
            if name in ("fgsm", "parameter_noise")
        ]
        print(f"{result['rows'][cell['row']]}: {', '.join(told)}")


def _told(name: str, found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "diverged"
    spread = f" ± {found['sd']:.2f}" if found["sd"] is not None else ""
    return f"{name} {found['mean']:.2f}{spread} (n = {found['n']})"


def _tried(text: str) -> tuple[str, list[Any]]:
    """ "epsilon=0.1,1": the field and its values, each as YAML reads it."""
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE,...")
    return name, [yaml.safe_load(value) for value in values.split(",")]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(tables()))
    parser.add_argument("row", help="the row whose method has the fields")
    parser.add_argument("--data", type=Path, required=True, help="an image set, as benchmarks.tables takes it")
    parser.add_argument("--work", type=Path, required=True, help="keeps the data and every training that has ended")
    parser.add_argument("--column", required=True)
    parser.add_argument("--try", dest="tried", type=_tried, action="append", required=True, help="FIELD=VALUE,...")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 1000 on")
    parser.add_argument("--scale", choices=list(SCALES), default="full")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="trainings at once, one thread each")
    options = parser.parse_args(arguments)
    table = SCALES[options.scale].of(options.name, tables()[options.name])
    for asked, there in ((options.row, table.rows), (options.column, table.columns)):
        if asked not in there:
            parser.error(f"{options.name} has no {asked!r}; there are {', '.join(there)}")
    return options


if __name__ == "__main__":
    main()
