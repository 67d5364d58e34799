"""Write the student down so that others can use it: one file a format, found by its place, each verified after writing."""

import importlib
import pkgutil
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from core.errors import Refused, RetortError
from core.events import Curve, Exported
from core.networks import Family
from core.taps import Tapped


class Unfaithful(RetortError):
    """An export that does not compute what the trained student computes: our fault, and never offered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an export says about the student besides its weights.

    `normalization` is {"mean", "std"} in data units, None where the network takes the data as it is; `range` is the data's own;
    `test` holds the student's figures on the test split after the last epoch ("accuracy", "loss", "n"), `teacher` the teacher's on
    the same images where there was one ("accuracy", "n", "parameters", "bytes"); `curves` are those of "student" and "teacher" by the
    name of their measure, where some were asked for; `spec` is the whole job spec; `epochs` counts all fits; `hardware` names what
    trained it.
    """

    name: str
    family: Family
    normalization: Mapping[str, Sequence[float]] | None
    class_names: Sequence[str]
    range: tuple[float, float]
    test: Mapping[str, float]
    teacher: Mapping[str, float] | None
    curves: Mapping[str, Mapping[str, Curve]]
    spec: Mapping[str, Any]
    seed: int
    epochs: int
    hardware: str


def versions() -> dict[str, str]:
    """What the figures were made with."""
    packages = {
        name: metadata.version(package) for name, package in (("torch", "torch"), ("safetensors", "safetensors"), ("numpy", "numpy"))
    }
    try:
        own = metadata.version("retort-service")
    except metadata.PackageNotFoundError:  # `core` alone, copied to a machine
        own = "not installed"
    return {"retort": own, "python": platform.python_version(), **packages}


@cache
def formats() -> Mapping[str, Callable[..., Exported]]:
    """Every format by the name of its file: what has a function `write(student, *, facts, out, sample) -> Exported`."""
    modules = {place.name: importlib.import_module(f"{__name__}.{place.name}") for place in pkgutil.iter_modules(__path__)}
    return {name: module.write for name, module in sorted(modules.items()) if hasattr(module, "write")}


def export(format: str, student: Tapped, *, facts: Facts, out: Path, sample: Tensor) -> Exported:
    """Write `student` in one format to `out`/export, read it back and compare; `out` is the job folder's.

    `sample` (B, ...) in data range is what the reloaded network is compared on. `Refused` at /exports for an unknown format,
    `Unfaithful` where the file does not compute what the student computes.
    """
    if format not in formats():
        raise Refused("/exports", f"there is no export format {format!r}", hint=f"the formats are {', '.join(formats())}")
    return formats()[format](student, facts=facts, out=out, sample=sample)
