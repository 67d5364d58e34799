"""What a person reads of a student's formats: their figures side by side."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from retort.render import status, table_of
from retort.values import Export

_FIGURES: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "bytes": ("bytes", "{:,}".format),
    "top1_agreement": ("agreement", "{:.4f}".format),
    "max_abs_diff": ("largest difference", "{:.3g}".format),
    "accuracy": ("accuracy", "{:.4f}".format),
    "student_accuracy": ("the student's", "{:.4f}".format),
}
"""Of an export's facts those that are one number: what they are called, and how they read."""


def exports(found: Sequence[Export]) -> Table:
    """One line a format; a column for each figure that any of them has, latencies as the median and the 95th percentile."""
    figures = [name for name in _FIGURES if any(each.facts.get(name) is not None for each in found)]
    batches = sorted({timed["batch"] for each in found for timed in each.facts.get("latency") or ()})
    latencies = [f"ms at batch {batch}" for batch in batches]
    table = table_of("format", "status", *(_FIGURES[name][0] for name in figures), *latencies)
    for each in found:
        shown = [_FIGURES[name][1](value) if (value := each.facts.get(name)) is not None else "" for name in figures]
        timed = {time["batch"]: f"{time['p50_ms']:.3g}, {time['p95_ms']:.3g}" for time in each.facts.get("latency") or ()}
        table.add_row(each.format, status(each.status), *shown, *(timed.get(batch, "") for batch in batches))
    return table
