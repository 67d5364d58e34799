"""What a child process tells: one event a line of JSON on its standard output, and one command a line on its input.

This module imports no torch: the worker reads it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Phases = Literal["staging", "inspect", "initialise", "transfer", "train", "evaluate", "export"]

Curve = Mapping[str, Sequence[float]]
"""A measurement over an axis: {"epsilon": [...], "accuracy": [...]}, columns of one length."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A new phase begins. `of` is the number of optimiser steps of the whole job, all fits together (0 where there are none)."""

    phase: str
    fit: int = 0
    of: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """Means of the values since the last report, at one optimiser step.

    `epoch` counts from 0; `step` counts the steps done in this fit; `done` and `of` count steps over all fits of the job.
    `values` holds "loss" (the weighted sum), each term's unweighted value by its name, "lr", and what terms noted.
    """

    phase: str
    fit: int
    epoch: int
    step: int
    done: int
    of: int
    values: Mapping[str, float]
    samples_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Measurements on data that was not trained on: `split` is "validation" (each epoch) or "test" (once, at the end).

    `curves` are by the name of their measure; what was measured of the teacher has "teacher." before its name, here and in `values`.
    """

    fit: int
    epoch: int
    done: int
    split: str
    values: Mapping[str, float]
    curves: Mapping[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """A checkpoint lies whole on disk at `path`, relative to the job folder."""

    fit: int
    step: int
    done: int
    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class CheckpointFailed:
    """No checkpoint could be kept at this step, for want of room; the one before stands, and the job goes on."""

    done: int
    reason: str


@dataclass(frozen=True, slots=True)
class File:
    """One file of an export, `path` relative to the job folder."""

    name: str
    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that was written, reloaded and compared with the trained student."""

    format: str
    files: Sequence[File]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inspected:
    """What an inspection found; `files` are what it made of the upload: the "dataset" in canonical form, and the "preview" of one."""

    report: Mapping[str, Any]
    files: Sequence[File] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The child refuses the job for good: the user's fault, with the field, the reason and what to try."""

    where: str
    reason: str
    hint: str = ""
    code: str = "invalid_input"


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the person who reads the job's log."""

    message: str
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Result:
    """The last event of a child that did all its work; a child that exits 0 without it did not."""

    values: Mapping[str, Any]


Event = Phase | Step | Evaluated | Checkpointed | CheckpointFailed | Exported | Inspected | Refusal | Log | Result

_NAMES: dict[str, type[Event]] = {
    kind.__name__.lower(): kind
    for kind in (Phase, Step, Evaluated, Checkpointed, CheckpointFailed, Exported, Inspected, Refusal, Log, Result)
}


def encode(event: Event) -> str:
    """One line of JSON, without the newline; not-a-number and infinity become null."""
    return json.dumps({"event": type(event).__name__.lower(), **_finite(asdict(event))}, separators=(",", ":"), allow_nan=False)


def decode(line: str) -> Event:
    """The event of a line that `encode` wrote; ValueError for any other line."""
    fields = json.loads(line)
    if not isinstance(fields, dict) or fields.get("event") not in _NAMES:
        raise ValueError(f"not an event: {line[:200]}")
    kind = _NAMES[fields.pop("event")]
    if "files" in fields:
        fields["files"] = tuple(File(**file) for file in fields["files"])
    try:
        return kind(**fields)
    except TypeError as wrong:
        raise ValueError(f"not an event: {line[:200]}") from wrong


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
