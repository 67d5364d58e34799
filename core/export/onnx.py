"""ONNX in float32, for any batch size, with the normalisation inside."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from core.errors import Refused
from core.export import Format
from core.export.tolerance import EXACT
from core.export.trained import Trained
from core.networks import Family

NEEDS = ("onnx", "onnxscript", "onnxruntime")
_LARGEST = 2_000_000_000
"""Bytes: a protobuf message has less than 2 GiB, and weights in a second file are not offered."""

_LINES = """import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = {threads}  # as measured
session = onnxruntime.InferenceSession("{file}", options, providers=["CPUExecutionProvider"])


def predict(x):
    return session.run(None, {{"x": x}})[0]
"""


def lines_for(file: str, threads: int) -> str:
    """The lines that run an ONNX file."""
    return _LINES.format(file=file, threads=threads)


def need_room(student: Trained) -> None:
    """Raise `Refused` where the network is too large for one ONNX file."""
    size = sum(tensor.nbytes for tensor in student.state.values())
    if size > _LARGEST:
        raise Refused("/exports", f"the weights have {size:,} bytes; one ONNX file holds at most {_LARGEST:,}")


def _write(student: Trained, folder: Path) -> None:
    need_room(student)
    (folder / "model.onnx").write_bytes(student.onnx.SerializeToString(deterministic=True))


def _lines(family: Family, normalization: Mapping[str, Sequence[float]] | None, threads: int) -> str:
    return lines_for("model.onnx", threads)


FORMAT = Format(files=("model.onnx",), needs=NEEDS, takes="numpy", tolerance=EXACT, write=_write, lines=_lines)
