"""The student in PyTorch's int8, static: a graph of torch.export whose convolutions and linear layers torchao's X86 quantiser rounded."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path

import torch
from torch import Tensor

from core.errors import Refused
from core.export import Format
from core.export.tolerance import EIGHT_BITS
from core.export.torch_export import UNPICKLES
from core.export.trained import Trained, nameless, traced
from core.networks import Family

_TOGETHER = 32

_LINES = """import torch
import torchao.quantization.pt2e.quantize_pt2e  # names the operations of the file

network = torch.export.load("model.int8.pt2").module()  # unpickles: load only what you trust


def predict(x):
    with torch.no_grad():
        return network(x)
"""


def _write(student: Trained, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for noisy in ("torchao", "torch.utils._pytree"):  # of CUDA files that a machine without CUDA cannot load, and of torchao's age
            logging.getLogger(noisy).setLevel(logging.ERROR)
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
            X86InductorQuantizer,
            get_default_x86_inductor_quantization_config,
        )

        quantizer = X86InductorQuantizer()
        quantizer.set_global(get_default_x86_inductor_quantization_config())
        watched = prepare_pt2e(traced(student.deployed, student.family).module(), quantizer)
        with torch.no_grad():
            for x in torch.split(student.calibration, _TOGETHER):
                watched(x)
        rounded = convert_pt2e(watched)
    used = {str(node.target): attrgetter(str(node.target))(rounded) for node in rounded.graph.nodes if node.op == "get_attr"}
    if not any(isinstance(value, Tensor) and value.dtype == torch.int8 for value in used.values()):
        raise Refused("/exports", "the network has no convolution and no linear layer that PyTorch quantises: there is nothing to quantise")
    for name in [name for name, _ in rounded.named_parameters() if name not in used]:  # the float32 weights, which nothing reads any more
        owner, _, last = name.rpartition(".")
        delattr(rounded.get_submodule(owner), last)
    torch.export.save(nameless(traced(rounded, student.family)), folder / "model.int8.pt2")


def _lines(family: Family, normalization: Mapping[str, Sequence[float]] | None, threads: int) -> str:
    return _LINES


FORMAT = Format(
    files=("model.int8.pt2",), needs=("torchao",), calibrates=True, tolerance=EIGHT_BITS, write=_write, lines=_lines, warning=UNPICKLES
)
