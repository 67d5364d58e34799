"""The student's weights as safetensors, with its network as plain PyTorch beside them. Lossless: read back, they are the same bits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from core.artifacts import load_weights, save_weights
from core.export import Format, Unfaithful
from core.export.tolerance import EXACT
from core.export.trained import Trained
from core.networks import Family

_LINES = """import torch
from safetensors.torch import load_file

from network import build

network = build().eval()
network.load_state_dict(load_file("model.safetensors"))
{space}

def predict(x):
    with torch.no_grad():
        return network({x})
"""


def _write(student: Trained, folder: Path) -> None:
    """The student only: no optimiser, no connectors, no teacher. `Unfaithful` where what is read back is not what was written."""
    weights = folder / "model.safetensors"
    save_weights(weights, student.state, {"format": "pt"})
    (folder / "network.py").write_text(student.family.source())
    loaded = load_weights(weights, where="/exports")
    if loaded.keys() != student.state.keys() or not all(torch.equal(loaded[name], value.cpu()) for name, value in student.state.items()):
        raise Unfaithful("the weights that were read back are not the student's")


def lines(family: Family, normalization: Mapping[str, Sequence[float]] | None, threads: int) -> str:
    """See `Format.lines`; a teacher's weights are loaded by the same."""
    if normalization is None:
        return _LINES.format(space="", x="x")
    tail = ".view(-1, 1, 1)" if len(family.input) == 3 else ""
    space = "".join(f"{name} = torch.tensor({[float(value) for value in normalization[name]]}){tail}\n" for name in ("mean", "std"))
    return _LINES.format(space=space, x="(x - mean) / std")


FORMAT = Format(files=("model.safetensors", "network.py"), normalizes=False, tolerance=EXACT, write=_write, lines=lines)
