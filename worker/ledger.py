"""Rows for the history that are not written yet: points gather into columns, everything else keeps its place between them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from core.events import CheckpointFailed, Evaluated, Log, Phase, Step

Row = tuple[str, dict[str, Any]]
"""A kind of event in the history, and its data."""

POINTS = 500
"""So many points are written together at most."""
BUFFERED = 50_000
"""So many are held while nothing can be written."""


_KINDS = {Phase: "phase", Evaluated: "evaluated", CheckpointFailed: "checkpoint_failed"}


class Ledger:
    """Rows for the history that are not written yet."""

    def __init__(self) -> None:
        self.points = 0
        self._rows: list[Row | list[Step]] = []

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, event: Phase | Step | Evaluated | CheckpointFailed | Log) -> None:
        """Take in one event."""
        if isinstance(event, Step):
            self.points += 1
            last = self._rows[-1] if self._rows else None
            if isinstance(last, list) and (last[-1].phase, last[-1].fit) == (event.phase, event.fit) and len(last) < POINTS:
                last.append(event)
            else:
                self._rows.append([event])
        elif isinstance(event, Log):
            self._rows.append(("log", {"level": event.level, "message": event.message.replace("\x00", "")}))
        else:
            self._rows.append((_KINDS[type(event)], asdict(event)))

    def rows(self) -> list[Row]:
        """Everything in order, as it is to be written; stays here until `clear`."""
        return [columns(row) if isinstance(row, list) else row for row in self._rows]

    def clear(self) -> None:
        """All of it is written."""
        self.points = 0
        self._rows.clear()

    def bound(self, limit: int = BUFFERED) -> None:
        """While nothing can be written: let the oldest points go, a stretch at a time, until at most `limit` are left."""
        for row in [row for row in self._rows if isinstance(row, list)]:
            if self.points <= limit:
                return
            self.points -= len(row)
            self._rows.remove(row)


def columns(points: Sequence[Step]) -> Row:
    """One `metrics` event for many points of one fit: a column for each value (null where a point lacks it), its least and greatest."""
    names = list(dict.fromkeys(name for point in points for name in point.values))
    values: dict[str, list[float | None]] = {name: [point.values.get(name) for point in points] for name in names}
    known = {name: [value for value in column if value is not None] for name, column in values.items()}
    last = points[-1]
    return "metrics", {
        "phase": last.phase,
        "fit": last.fit,
        "first": points[0].done,
        "last": last.done,
        "of": last.of,
        "columns": {
            "done": [point.done for point in points],
            "epoch": [point.epoch for point in points],
            "step": [point.step for point in points],
            **values,
        },
        "min": _each(min, known),
        "max": _each(max, known),
        "samples_per_second": last.samples_per_second,
    }


def _each(of: Callable[[Sequence[float]], float], known: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: of(column) for name, column in known.items() if column}
