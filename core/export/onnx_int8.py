"""ONNX in int8, static: weights in 7 bits per channel, activations by the range they took on a sample of the training data."""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from core.errors import Refused
from core.export import Format
from core.export.onnx import NEEDS, lines_for, need_room
from core.export.tolerance import EIGHT_BITS
from core.export.trained import Trained
from core.networks import Family

_TOGETHER = 32


def _write(student: Trained, folder: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        """The calibration inputs, some at a time."""

        def __init__(self) -> None:
            self._batches: Iterator[dict[str, object]] = (
                {"x": x.contiguous().numpy()} for x in torch.split(student.calibration, _TOGETHER)
            )

        def get_next(self) -> dict[str, object] | None:
            return next(self._batches, None)

    need_room(student)
    if not {node.op_type for node in student.onnx.graph.node} & {"Conv", "Gemm", "MatMul"}:
        raise Refused("/exports", "the network has no convolution and no linear layer: there is nothing to quantise")
    target = folder / "model.int8.onnx"
    with tempfile.TemporaryDirectory() as place:
        whole, prepared = Path(place) / "model.onnx", Path(place) / "prepared.onnx"
        whole.write_bytes(student.onnx.SerializeToString())
        quant_pre_process(str(whole), str(prepared))
        logging.disable(logging.WARNING)  # on the root logger: that a batch norm has no second axis to quantise along
        try:
            quantize_static(
                str(prepared),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,  # 7 bits of weights: processors without VNNI overflow on 8, and nobody knows where the file will run
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            logging.disable(logging.NOTSET)


def _lines(family: Family, normalization: Mapping[str, Sequence[float]] | None, threads: int) -> str:
    return lines_for("model.int8.onnx", threads)


FORMAT = Format(files=("model.int8.onnx",), needs=NEEDS, takes="numpy", calibrates=True, tolerance=EIGHT_BITS, write=_write, lines=_lines)
