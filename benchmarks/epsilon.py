"""Choose a gradient penalty's epsilon on training images alone: accuracy by epsilon and norm on images that were set aside.

`python -m benchmarks.epsilon NAME --data FILE --work DIR [--column 500] [--epsilon 0.01,0.1,1] [--norm l2] [--seeds 1] [--scale full]
[--jobs 2]` runs one column of a table with few data. 3,000 training images are set aside, from which neither teacher nor student learns,
and take the test images' place, which are not read. Seeds count from 1000, apart from those of the tables. What has ended is read back.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

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


def candidates(table: Table, column: str, epsilons: Sequence[float], norms: Sequence[str]) -> Table:
    """One column of the table, with KD and a row for each epsilon and norm of its row `wasserstein`."""
    ours = table.rows["wasserstein"]
    (method,) = ours.train
    rows = {"kd": table.rows["kd"]}
    for norm in norms:
        for epsilon in epsilons:
            title = f"epsilon {epsilon:g}, {norm}"
            rows[title] = Row.model_validate({**dict(ours), "title": title, "train": ({**method, "epsilon": epsilon, "norm": norm},)})
    return table.model_copy(update={"rows": rows, "columns": {column: table.columns[column]}})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the column and print the accuracies."""
    options = _options(arguments)
    data, _ = canonical(options.data, options.work / "data")
    data = without_test(data, data.with_name(f"{data.stem}-epsilon.safetensors"))
    bed = Bed(data, open_dataset(data).report, options.work, options.jobs)
    scale = SCALES[options.scale]
    table = candidates(scale.of(options.name, tables()[options.name]), options.column, options.epsilon, options.norm)
    result = measure(table, scale, bed, range(FIRST_SEED, FIRST_SEED + options.seeds))
    counts = bed.report.counts
    print(f"{options.name}, {table.columns[options.column].title}: accuracy in % on {counts['test']:,} training images set aside")
    for cell in result["cells"]:
        error = cell["error"]
        told = "diverged" if error is None else f"{100 - error['mean']:.2f}" + (f" ± {error['sd']:.2f}" if error["sd"] is not None else "")
        print(f"{result['rows'][cell['row']]}: {told} (n = {error['n'] if error else 0})")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[name for name, table in tables().items() if "wasserstein" in table.rows])
    parser.add_argument("--data", type=Path, required=True, help="an image set, as benchmarks.tables takes it")
    parser.add_argument("--work", type=Path, required=True, help="keeps the data and every training that has ended")
    parser.add_argument("--column", default="500")
    parser.add_argument("--epsilon", type=lambda text: [float(word) for word in text.split(",")], default=[0.01, 0.1, 1.0])
    parser.add_argument("--norm", type=lambda text: text.split(","), default=["l2"])
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 1000 on")
    parser.add_argument("--scale", choices=list(SCALES), default="full")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="trainings at once, one thread each")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
