"""ONNX with weights and arithmetic in float16, inputs and outputs in float32."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.export import Format
from core.export.onnx import NEEDS, lines_for, need_room
from core.export.tolerance import HALF
from core.export.trained import Trained
from core.networks import Family


def _write(student: Trained, folder: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    need_room(student)
    # It changes the model that it is given, and clips weights that float16 cannot hold: the verification sees what that does.
    model = convert_float_to_float16(copy.deepcopy(student.onnx), keep_io_types=True)
    (folder / "model.fp16.onnx").write_bytes(model.SerializeToString(deterministic=True))


def _lines(family: Family, normalization: Mapping[str, Sequence[float]] | None, threads: int) -> str:
    return lines_for("model.fp16.onnx", threads)


FORMAT = Format(files=("model.fp16.onnx",), needs=NEEDS, takes="numpy", tolerance=HALF, write=_write, lines=_lines)
