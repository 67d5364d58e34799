"""Curves of a job: blocks of points joined over its attempts, and thinned so that no peak is lost."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Columns = dict[str, list[float | None]]
"""Name to values, all of one length; "done" (optimiser steps over all fits) is the common axis and rises."""

AXES = ("done", "epoch", "step")


def joined(blocks: Iterable[tuple[int, Mapping[str, Sequence[float | None]]]]) -> Columns:
    """One curve out of (fence, columns) blocks, in the order they were written.

    Where an attempt went on from a checkpoint, the earlier attempt's points from there on are left out: for a step that was
    seen under several fences, the highest one is what became of the job.
    """
    points: list[tuple[int, float, Mapping[str, float | None]]] = []
    highest = 0
    for fence, columns in blocks:
        done = [float(value or 0) for value in columns.get("done", ())]
        if fence < highest or not done:
            continue
        if fence > highest:
            highest = fence
            points = [point for point in points if point[1] < done[0]]
        points.extend((fence, at, {name: column[i] for name, column in columns.items()}) for i, at in enumerate(done))
    names = dict.fromkeys(name for _, _, point in points for name in point)
    return {name: [point.get(name) for _, _, point in points] for name in names}


def chosen(columns: Columns, keys: Sequence[str]) -> Columns:
    """The columns that were asked for, and the axes; all of them when none was named."""
    return {name: column for name, column in columns.items() if name in AXES or name in keys} if keys else columns


def thinned(columns: Columns, most: int) -> Columns:
    """At most about `most` points: of each stretch, the points where some curve is at its lowest and its highest; the ends stay."""
    count = len(columns.get("done", ()))
    curves = [column for name, column in columns.items() if name not in AXES] or [columns.get("done", [])]
    if count <= most:
        return columns
    stretches = max(1, (most - 2) // (2 * len(curves)))
    keep = {0, count - 1}
    for stretch in range(stretches):
        rows = range(stretch * count // stretches, (stretch + 1) * count // stretches)
        for curve in curves:
            known = [(value, row) for row in rows if (value := curve[row]) is not None]
            if known:
                keep |= {min(known)[1], max(known)[1]}
    return {name: [column[row] for row in sorted(keep)] for name, column in columns.items()}


def last_values(columns: Mapping[str, Any]) -> dict[str, float]:
    """The newest value of each curve of a block."""
    return {name: column[-1] for name, column in columns.items() if name not in AXES and column and column[-1] is not None}
