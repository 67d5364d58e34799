"""The student as a graph of torch.export, for any batch size, with the normalisation inside: no source is needed to run it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from core.export import Format
from core.export.tolerance import EXACT
from core.export.trained import Trained
from core.networks import Family

UNPICKLES = "loading a .pt2 file unpickles parts of it, and a pickle can run code: load it only from where you trust"

_LINES = """import torch

network = torch.export.load("model.pt2").module()  # unpickles: load only what you trust


def predict(x):
    with torch.no_grad():
        return network(x)
"""


def _write(student: Trained, folder: Path) -> None:
    torch.export.save(student.program, folder / "model.pt2")


def _lines(family: Family, normalization: Mapping[str, Sequence[float]] | None, threads: int) -> str:
    return _LINES


FORMAT = Format(files=("model.pt2",), tolerance=EXACT, write=_write, lines=_lines, warning=UNPICKLES)
