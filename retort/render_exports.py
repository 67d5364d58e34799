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
    """One column a format, one line for each figure that any of them has; latencies at each batch size in milliseconds."""
    table = table_of("", *(each.format for each in found))
    table.add_row("status", *(status(each.status) for each in found))
    for name, (title, read) in _FIGURES.items():
        values = [each.facts.get(name) for each in found]
        if any(value is not None for value in values):
            table.add_row(title, *("" if value is None else read(value) for value in values))
    timed = [{time["batch"]: time for time in each.facts.get("latency") or ()} for each in found]
    for batch in sorted({batch for times in timed for batch in times}):
        shown = (f"{times[batch]['p50_ms']:.3g}, {times[batch]['p95_ms']:.3g}" if batch in times else "" for times in timed)
        table.add_row(f"p50, p95 ms at {batch}", *shown)
    return table
