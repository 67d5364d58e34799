"""A model of any framework as ONNX: a frozen teacher, which can be asked for its logits and for nothing else.

onnxruntime runs it, on the CPU, in the child that opened it; nothing in it is differentiated or tapped.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.anatomy import Anatomy, normalized
from core.errors import Refused, first_line
from core.isolation import bounded
from core.onnx_file import Port, entry_of, leaving_of, numbers_in, read_model

FAMILY = "onnx"
_SPARE_TO_OPEN, _SPARE_TO_ASK, _STACK = 80 << 20, 144 << 20, 8 << 20
_TINY = 1e-30

_LINES = """import numpy
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = {threads}
options.log_severity_level = 3
session = onnxruntime.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
entry, leaving = session.get_inputs()[0].name, session.get_outputs()[{output}].name


def predict(x):
    x = {x}
    x = {given}
    return numpy.concatenate([session.run([leaving], {{entry: part}})[0] for part in {parts}])
"""


class Frozen(nn.Module):
    """A checked model as a module: x (B, *input) float32 on any device to logits (B, C) float32 there, without a gradient.

    A model whose answers are probabilities gives their logarithms, which are logits of the same answers. A model that takes only one
    sample at a time is asked once for each.
    """

    def __init__(self, path: Path, shape: Sequence[int] | None = None, *, where: str = "/upload") -> None:
        """Raises Refused at `where` for a file that is no sound, self-contained classifier, at /input for another `shape` than it takes."""
        super().__init__()
        model = read_model(path, where)
        self.parameters_held = numbers_in(model, where)
        entry, leaving = entry_of(model, where), leaving_of(model, where)
        self.shape, self.channels_last = _arranged(entry, shape)
        self._entry, self._leaving = entry, leaving
        self._one_by_one = entry.shape[0] == 1
        self._session = _session(path, where)
        self._is_probability = False
        self.classes = self._probe(where)

    @property
    def notes(self) -> list[str]:
        """What a person should know of how the model is asked."""
        found = ["a frozen teacher: its logits can be learnt from; it has no taps and gives no gradient"]
        if self._one_by_one:
            found.append("the model takes one sample at a time, so it is asked for each alone: an export with a free batch is much faster")
        if self.channels_last:
            found.append("the model takes height, width, channels: its inputs are turned")
        if self._is_probability:
            found.append("the model gives probabilities; their logarithms are taken for logits, which give the same answers")
        return found

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        turned = x.detach().movedim(1, -1) if self.channels_last else x.detach()
        given = np.ascontiguousarray(turned.cpu().numpy().astype(self._entry.dtype, copy=False))
        parts = np.split(given, len(given)) if self._one_by_one else [given]
        answers = [self._session.run([self._leaving.name], {self._entry.name: part})[0] for part in parts]
        logits = torch.from_numpy(np.concatenate(answers).astype(np.float32)).to(x.device)
        return logits.clamp_min(_TINY).log() if self._is_probability else logits

    def lines(self, normalization: Mapping[str, Sequence[float]] | None, threads: int) -> str:
        """The Python that defines `predict(x)`, x (B, *input) float32 in numpy, as `Format.lines` does: it needs numpy, onnxruntime and the
        file as model.onnx, and takes as long as this module does. No word of it comes from the file."""
        tail = "[:, None, None]" if len(self.shape) == 3 else ""
        space = {name: f"numpy.float32({[float(value) for value in values]}){tail}" for name, values in (normalization or {}).items()}
        turned = ".transpose(0, 2, 3, 1)" if self.channels_last else ""
        return _LINES.format(
            threads=threads,
            output=[port.name for port in self._session.get_outputs()].index(self._leaving.name),
            x=f"(x - {space['mean']}) / {space['std']}" if space else "x",
            given=f"numpy.ascontiguousarray(x{turned}, dtype={str(np.dtype(self._entry.dtype))!r})",
            parts="numpy.split(x, len(x))" if self._one_by_one else "[x]",
        )

    def _probe(self, where: str) -> int:
        """Ask it once, find how many samples it takes together and what its answers are; how many outputs it has."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(2, *self.shape, generator=generator)
        try:
            with bounded(_SPARE_TO_ASK):
                single = self._ask(x[:1])
                try:
                    both = self._ask(x)
                except _failures():
                    self._one_by_one = True
                    both = self._ask(x)
        except _failures() as wrong:
            hint = "does it run in onnxruntime, on an input of this shape?"
            raise Refused(where, f"the model fails on an input of {list(self.shape)}: {first_line(wrong)}", hint=hint) from wrong
        if single.ndim != 2 or both.shape != (2, single.shape[1]):
            reason = f"two inputs give an output of {list(both.shape)}, not one row of logits for each"
            raise Refused(where, reason, hint="export the part of the model that gives (batch, classes)")
        if single.shape[1] < 2:
            reason = "the model has a single output: a classifier gives one for each class, at least two"
            raise Refused(where, reason, hint="for two classes, export [0, z] instead of the logit z")
        self._is_probability = bool((both >= 0).all() and ((both.sum(1) - 1).abs() < 1e-3).all())
        return int(single.shape[1])

    def _ask(self, x: Tensor) -> Tensor:
        return self(x)  # type: ignore[no-any-return]


def measure_frozen(model: Frozen, normalization: Mapping[str, Sequence[float]] | None) -> Anatomy:
    """What can be known of it: its input, its classes and how many numbers it holds. Raises Refused at /normalization."""
    mean, std = normalized(normalization, model.shape)
    return Anatomy(
        family=FAMILY, input=model.shape, classes=model.classes, parameters=model.parameters_held, flops=0, taps={}, calls={},
        ops=frozenset(), weights={}, stages=(), mean=mean, std=std, frozen=True,
    )  # fmt: skip


def _arranged(entry: Port, wanted: Sequence[int] | None) -> tuple[tuple[int, ...], bool]:
    """The shape of one input with its channels first, and whether the model has them last. `Refused` at /input where that is open."""
    inner = entry.shape[1:]
    last_first = (inner[-1], *inner[:-1]) if len(inner) == 3 else inner
    if wanted is None:
        if any(extent is None for extent in inner):
            reason = f"the model leaves its input open: {['?' if extent is None else extent for extent in inner]}"
            raise Refused("/input", reason, hint='"input": [channels, height, width], what it was trained on')
        turned = len(inner) == 3 and inner[-1] in (1, 3, 4) and inner[0] not in (1, 3, 4)
        return tuple(extent for extent in (last_first if turned else inner) if extent is not None), turned
    for shape, turned in ((inner, False), (last_first, True)):
        if len(wanted) == len(shape) and all(there in (None, extent) for there, extent in zip(shape, wanted, strict=True)):
            return tuple(wanted), turned and last_first != inner
    reason = f"the model takes inputs of {['?' if extent is None else extent for extent in inner]}, not of {list(wanted)}"
    raise Refused("/input", reason, hint="channels first; leave it out where the model says its shape")


def _session(path: Path, where: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the student's threads need the cores
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    try:
        with bounded(6 * path.stat().st_size + _SPARE_TO_OPEN + torch.get_num_threads() * _STACK):
            return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except _failures() as wrong:
        raise Refused(
            where, f"onnxruntime does not take the model: {first_line(wrong)}", hint="does it load in onnxruntime on a CPU?"
        ) from wrong


def _failures() -> tuple[type[Exception], ...]:
    """What onnxruntime raises: its own errors have no class in common but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (each for each in vars(state).values() if isinstance(each, type) and issubclass(each, Exception))
    return (MemoryError, RuntimeError, ValueError, *own)
