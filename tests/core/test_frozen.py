"""ONNX models as teachers: the same answers as the network they came from, and every unsound one refused before anything runs."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from core.errors import Refused
from core.frozen import Frozen, measure_frozen
from core.taps import Tapped

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
BIAS = np.array([0.5, 0.0, -0.5], dtype=np.float32)
Edit = Callable[[Any], None]


def linear(
    path: Path, *, batch: int | str = "n", shape: tuple[int | str, ...] = (4,), last: str | None = None, edit: Edit | None = None
) -> Path:
    """A linear classifier with three classes, written node by node: x · WEIGHT + BIAS, over flattened inputs of four values."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits" if last is None else "z"]),
    ]
    if last is not None:
        nodes.append(helper.make_node(last, ["z"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if edit is not None:
        edit(model)
    path.write_bytes(model.SerializeToString())
    return path


def expected(x: Tensor) -> Tensor:
    return x.flatten(1) @ torch.from_numpy(WEIGHT) + torch.from_numpy(BIAS)


def test_it_answers_as_the_network_does_and_is_measured(tmp_path: Path) -> None:
    model = Frozen(linear(tmp_path / "m"))
    x = torch.rand(7, 4)
    assert torch.allclose(model(x), expected(x), atol=1e-6)
    anatomy = measure_frozen(model, {"mean": [0.5], "std": [2.0]})
    assert (anatomy.family, anatomy.input, anatomy.classes, anatomy.parameters, anatomy.frozen) == ("onnx", (4,), 3, 15, True)
    shown = Tapped(model, mean=anatomy.mean, std=anatomy.std, outputs=(2, 0, 1))(x)
    assert torch.allclose(shown.logits, expected((x - 0.5) / 2)[:, [2, 0, 1]], atol=1e-6)
    assert not shown.logits.requires_grad


@pytest.mark.parametrize(("batch", "shape"), [("n", (4,)), (1, (4,)), ("n", (1, 2, 2)), ("n", (2, 2, 1))])
def test_the_lines_that_measure_it_give_its_answers_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int | str, shape: tuple[int, ...]
) -> None:
    model = Frozen(linear(tmp_path / "model.onnx", batch=batch, shape=shape))
    assert model.channels_last is (shape == (2, 2, 1))
    space: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    exec(model.lines({"mean": [0.5], "std": [2.0]}, threads=1), space)
    x = torch.rand(3, *model.shape)
    assert torch.allclose(torch.from_numpy(space["predict"](x.numpy())), expected((x - 0.5) / 2), atol=1e-6)


def test_it_takes_inputs_that_want_a_gradient_and_gives_none(tmp_path: Path) -> None:
    x = torch.rand(2, 4, requires_grad=True)
    assert not Frozen(linear(tmp_path / "m"))(x).requires_grad


def test_a_model_of_one_sample_at_a_time_is_asked_for_each_and_that_is_said(tmp_path: Path) -> None:
    model = Frozen(linear(tmp_path / "m", batch=1))
    x = torch.rand(5, 4)
    assert torch.allclose(model(x), expected(x), atol=1e-6)
    assert any("one sample at a time" in note for note in model.notes)


def test_probabilities_become_logits_of_the_same_answers(tmp_path: Path) -> None:
    model = Frozen(linear(tmp_path / "m", last="Softmax"))
    x = torch.rand(5, 4)
    assert torch.allclose(model(x).softmax(1), expected(x).softmax(1), atol=1e-6)
    assert torch.allclose((model(x) / 4).softmax(1), (expected(x) / 4).softmax(1), atol=1e-6)
    assert any("probabilities" in note for note in model.notes)


def test_channels_that_come_last_are_turned(tmp_path: Path) -> None:
    model = Frozen(linear(tmp_path / "m", shape=(2, 2, 1)))
    assert (model.shape, model.channels_last) == ((1, 2, 2), True)
    x = torch.rand(3, 1, 2, 2)
    assert torch.allclose(model(x), expected(x.permute(0, 2, 3, 1)), atol=1e-6)


def test_an_input_that_the_model_leaves_open_is_asked_for(tmp_path: Path) -> None:
    path = linear(tmp_path / "m", shape=(1, "h", "w"))
    with pytest.raises(Refused, match="leaves its input open") as refused:
        Frozen(path)
    assert refused.value.where == "/input"
    x = torch.rand(3, 1, 2, 2)
    assert torch.allclose(Frozen(path, (1, 2, 2))(x), expected(x), atol=1e-6)
    with pytest.raises(Refused, match=r"fails on an input of \[1, 3, 3\]"):
        Frozen(path, (1, 3, 3))
    with pytest.raises(Refused, match="not of") as refused:
        Frozen(path, (3, 2, 2, 1))
    assert refused.value.where == "/input"


def outside(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def outside_within(model: Any) -> None:
    """In a tensor of an attribute, where checkers of initialisers do not look."""
    tensor = numpy_helper.from_array(BIAS)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def custom(model: Any) -> None:
    model.opset_import.append(helper.make_opsetid("com.example.evil", 1))


def two_inputs(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4]))


def two_outputs(model: Any) -> None:
    model.graph.node.append(helper.make_node("Identity", ["logits"], ["other"]))
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["n", 3]))
    model.graph.node[1].output[0] = model.graph.node[2].input[0] = "first"
    model.graph.output[0].name = "first"


def maps(model: Any) -> None:
    model.graph.node.append(helper.make_node("Identity", ["flat"], ["other"]))
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["n", 1, 4]))


def deep(model: Any) -> None:
    graph = helper.make_graph([], "g", [], [])
    empty = helper.make_graph([], "e", [], [])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["d"], then_branch=graph, else_branch=empty)], "g", [], [])
    model.graph.node.extend(graph.node)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (outside, "lie in a file beside the model"),
        (outside_within, "lie in a file beside the model"),
        (custom, r"operators of the domain 'com\.example\.evil'"),
        (lambda model: setattr(model.opset_import[0], "version", 99), "version 99"),
        (two_inputs, "one input"),
        (two_outputs, "which output has the logits.*: first, other"),
        (deep, "graphs inside each other"),
        (lambda model: model.graph.node[1].input.__setitem__(0, "nowhere"), "not sound"),
        (lambda model: setattr(model.graph.node[0], "op_type", "Explode"), "not sound"),
        (lambda model: model.graph.ClearField("node"), "no operators"),
    ],
)
def test_an_unsound_model_is_refused_by_name(tmp_path: Path, edit: Edit, message: str) -> None:
    with pytest.raises(Refused, match=message) as refused:
        Frozen(linear(tmp_path / "m", edit=edit))
    assert refused.value.where == "/upload"


def test_the_output_that_is_rows_of_logits_is_told_from_maps(tmp_path: Path) -> None:
    x = torch.rand(2, 4)
    assert torch.allclose(Frozen(linear(tmp_path / "m", edit=maps))(x), expected(x), atol=1e-6)


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"PK\x03\x04", b"\x08\x07" * 1000, b"{}"])
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m"
    path.write_bytes(data)
    with pytest.raises(Refused, match="no ONNX model"):
        Frozen(path)


def test_a_model_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """A constant of 2^40 values, which an optimiser would fold."""

    def fold(model: Any) -> None:
        shape = numpy_helper.from_array(np.array([1 << 40], np.int64), "shape")
        model.graph.initializer.append(shape)
        model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["huge"]))
        model.graph.node.insert(1, helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0))
        model.graph.node[-1].output[0] = "before"
        model.graph.node.append(helper.make_node("Add", ["before", "most"], ["logits"]))

    with pytest.raises(Refused):
        Frozen(linear(tmp_path / "m", edit=fold))


def test_a_network_of_torch_that_was_exported_answers_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 10)).eval()
    path = tmp_path / "m.onnx"
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about itself
        torch.onnx.export(network, (torch.rand(2, 1, 8, 8),), path, dynamic_shapes=({0: batch},), external_data=False, verbose=False)
    x = torch.rand(9, 1, 8, 8)
    model = Frozen(path)
    assert torch.allclose(model(x), network(x), atol=1e-5)
    assert (model.shape, model.classes, model.parameters_held) == ((1, 8, 8), 10, sum(p.numel() for p in network.parameters()))
    assert len(model.notes) == 1
    onnx.checker.check_model(path)
