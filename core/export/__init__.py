"""Write the student down so that others can use it: one file a format, found by its place, each verified before it is offered."""

import importlib
import pkgutil
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal

from core.errors import Refused, RetortError
from core.events import Curve
from core.export.tolerance import Tolerance
from core.export.trained import Trained
from core.networks import Family


class Unfaithful(RetortError):
    """Weights that were written and do not compute what the trained student computes: our fault, and never offered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an export says about the student besides its weights.

    `normalization` is {"mean", "std"} in data units, None where the network takes the data as it is; `range` is the data's own;
    `test` holds the student's figures on the test split after the last epoch ("n", and "accuracy" and "loss" where the data has labels),
    `teacher` the teacher's on the same images where there was one ("accuracy", "n", "parameters", "flops", "bytes"); `baseline` the
    figures of the same job without a teacher where there is one ("job", "accuracy", "n", "seed"); `curves` are those of "student" and
    "teacher" by the name of their measure, where some were asked for; `spec` is the whole job spec; `epochs` counts all fits; `parameters`
    counts what learns and `flops` is one forward pass of one input; `digests` are the sha256 of what the student was made from,
    `files` those of the model files that it left before, by name; `hardware` names what trained it.
    """

    name: str
    family: Family
    normalization: Mapping[str, Sequence[float]] | None
    class_names: Sequence[str]
    range: tuple[float, float]
    test: Mapping[str, float]
    teacher: Mapping[str, float] | None
    baseline: Mapping[str, Any] | None = None
    curves: Mapping[str, Mapping[str, Curve]]
    spec: Mapping[str, Any]
    seed: int
    epochs: int
    parameters: int
    flops: int
    digests: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    hardware: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One form in which a student is offered.

    `files` are what `write` leaves in the folder, the model first; `needs` the packages that it imports, all of the extra "export";
    `lines` the Python that defines `predict(x)`, which the card prints and the verification runs; `takes` what x is: a torch tensor or a
    numpy array; `normalizes` whether the network's normalisation is inside; `calibrates` whether training inputs decide how it rounds;
    `warning` what to know before one loads it.
    """

    files: tuple[str, ...]
    needs: tuple[str, ...] = ()
    takes: Literal["torch", "numpy"] = "torch"
    normalizes: bool = True
    calibrates: bool = False
    tolerance: Tolerance
    write: Callable[[Trained, Path], None]
    lines: Callable[[Family, Mapping[str, Sequence[float]] | None, int], str]
    warning: str = ""


@cache
def formats() -> Mapping[str, Format]:
    """Every format by the name of its file: what has a `FORMAT`."""
    modules = {place.name: importlib.import_module(f"{__name__}.{place.name}") for place in pkgutil.iter_modules(__path__)}
    return {name: module.FORMAT for name, module in sorted(modules.items()) if hasattr(module, "FORMAT")}


def require(asked: Iterable[str]) -> None:
    """Raise `Refused` at /exports/k for a format that does not exist or whose packages are not installed here."""
    for k, name in enumerate(asked):
        if name not in formats():
            raise Refused(f"/exports/{k}", f"there is no export format {name!r}", hint=f"the formats are {', '.join(formats())}")
        if missing := [package for package in formats()[name].needs if util.find_spec(package) is None]:
            hint = "the operator installs the extra: pip install 'retort-service[export]'; or leave this format out"
            raise Refused(f"/exports/{k}", f"the worker lacks {' and '.join(missing)}, which {name} needs", hint=hint)


def versions() -> dict[str, str]:
    """What the figures were made with."""
    packages = {name: _version(name) for name in ("torch", "safetensors", "numpy")}
    optional = {name: _version(name) for name in ("onnx", "onnxscript", "onnxruntime", "timm", "torchao") if util.find_spec(name)}
    # Without its distribution, `core` alone was copied to a machine.
    return {"retort": _version("retort-service"), "python": platform.python_version(), **packages, **optional}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
