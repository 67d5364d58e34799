"""The trained student as every format writes it: on the CPU, in eval mode, without hooks; and its two graphs, made once for all formats."""

import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from core.networks import Family
from core.taps import Tapped

OPSET = 20
"""Of the ONNX files; every runtime since 2024 reads it."""


class Deployed(nn.Module):
    """A network with its normalisation inside: takes x (B, ...) float32 in the dataset's own range and gives logits (B, classes)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits


class Trained:
    """What a format's `write` is given. `calibration` gives inputs (N, ...) float32 in data range of the training split, for a format that
    must know which values occur.
    """

    def __init__(self, student: Tapped, family: Family, *, normalizes: bool, calibration: Callable[[], Tensor]) -> None:
        self.family = family
        self.state: Mapping[str, Tensor] = student.network.state_dict()
        with torch.random.fork_rng(devices=[]):  # a fresh network draws weights, which are overwritten
            network = family.build()
        network.load_state_dict(self.state)
        shape = (-1, *(1,) * (len(family.input) - 1))
        self.deployed = Deployed(network, student.mean.cpu().view(shape), student.std.cpu().view(shape)) if normalizes else network
        self.deployed.eval()
        self._calibrate = calibration

    @cached_property
    def calibration(self) -> Tensor:
        """Inputs (N, ...) of the training split."""
        return self._calibrate()

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The deployed network as torch.export sees it, for any batch size."""
        return nameless(traced(self.deployed, self.family))

    @cached_property
    def onnx(self) -> Any:
        """The deployed network as an `onnx.ModelProto`: input "x" (batch, ...), output "logits" (batch, classes), float32."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"copyreg|torch\.|onnxscript\.")
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.|onnxscript\.")
            made = torch.onnx.export(
                self.program, dynamo=True, input_names=["x"], output_names=["logits"], opset_version=OPSET, verbose=False
            )
        assert made is not None
        model = made.model_proto
        graph = model.graph
        del graph.metadata_props[:], graph.value_info[:]  # the second is found anew by whoever needs it, and misleads the quantiser
        for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
            del part.metadata_props[:]  # where in which file of this machine each line of the network stood
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
        for name, said in {"input": "x, in the dataset's own range: the normalisation is inside", "made_with": "Retort"}.items():
            entry = model.metadata_props.add()
            entry.key, entry.value = name, said
        return model


def traced(network: nn.Module, family: Family) -> torch.export.ExportedProgram:
    """A network as a graph that takes any batch size."""
    x = torch.zeros(2, *family.input)  # two, because the exporter takes a batch of one for a constant
    with torch.no_grad():
        return torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def nameless(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same graph, without where in which file of this machine each of its nodes was written."""
    for node in program.graph.nodes:
        for told in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
            node.meta.pop(told, None)
    return program
