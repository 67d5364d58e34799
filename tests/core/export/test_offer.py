"""Every format of a student that has learnt something, loaded in a fresh process and measured; what disagrees is not offered."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from core.anatomy import measure
from core.artifacts import save_weights
from core.data.rows import Rows
from core.events import Event, Log
from core.export import Facts, formats
from core.export.offer import DOCUMENTS, Offer, Weights
from core.export.trained import Trained
from core.frozen import Frozen
from core.networks import parse
from core.taps import Tapped
from tests.core.export.making import exports_of, facts_of, offered, rows_of, student_of, taught

ALL = ("safetensors", "onnx", "onnx_fp16", "onnx_int8", "torch_export", "int8")
FAMILIES = {
    "residual": {"family": "resnet", "depth": 8, "shortcut": "project", "input": [1, 8, 8], "classes": 10},
    "mlp": {"family": "mlp", "hidden": [32], "input": [1, 8, 8], "classes": 10},
}

PORTS = {"x": (1, 8, 8), "logits": (2,)}


class Made(NamedTuple):
    """A student and all that became of it."""

    folder: Path
    facts: Facts
    student: Tapped
    offers: Mapping[str, Offer]
    told: list[Event]

    @property
    def export(self) -> Path:
        return self.folder / "out" / "export"


@pytest.fixture(scope="module", params=list(FAMILIES))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    family = parse(FAMILIES[request.param])
    anatomy = measure(family)
    facts = facts_of(family=family, parameters=anatomy.parameters, flops=anatomy.flops, class_names=tuple("0123456789"))
    larger = parse({"family": "mlp", "hidden": [64], "input": [1, 8, 8], "classes": 10})
    teacher = Weights(larger, {"mean": [0.5], "std": [0.2]}, folder / "teacher.safetensors")
    save_weights(teacher.path, larger.build().state_dict())
    student = taught(facts)
    offers, told = offered(folder, student, facts, *ALL, teacher=teacher)
    return Made(folder, facts, student, offers, told)


def answers(made: Made, rows: Rows) -> tuple[Tensor, Tensor]:
    """The student's logits on some rows, and their labels."""
    batch = next(rows.batches(len(rows)))
    with torch.no_grad(), made.student.quiet():
        return made.student(batch.x).logits, batch.y


def test_every_format_of_both_kinds_of_network_is_offered_and_told_with_its_files(made: Made) -> None:
    assert {name: offer.refused for name, offer in made.offers.items()} == dict.fromkeys(ALL)
    told = exports_of(made.told)
    assert list(told) == [*ALL, DOCUMENTS]
    for name in ALL:
        assert tuple(file.name for file in told[name].files) == formats()[name].files
    for export in told.values():
        for file in export.files:
            content = (made.folder / file.path).read_bytes()
            assert (hashlib.sha256(content).hexdigest(), len(content)) == (file.sha256, file.bytes)
    assert {path.name for path in made.export.iterdir()} == {file.name for export in told.values() for file in export.files}
    assert not (made.folder / "out" / "verify").exists()


@pytest.mark.parametrize("name", ALL)
def test_the_figures_are_those_of_the_file_on_data_that_nobody_trained_on(made: Made, name: str) -> None:
    logits, y = answers(made, rows_of(1200, 300))
    facts = made.offers[name].facts
    assert facts["compared"] == facts["labelled"] == 300
    assert facts["student_accuracy"] == int((logits.argmax(1) == y).sum()) / 300 > 0.8
    assert facts["bytes"] == (made.export / facts["file"]).stat().st_size
    assert (facts["parameters"], facts["flops"]) == (made.facts.parameters, made.facts.flops)
    assert [(row["batch"], row["n"] >= 10, 0 < row["p50_ms"] <= row["p95_ms"]) for row in facts["latency"]] == [
        (1, True, True),
        (32, True, True),
    ]
    assert (facts["threads"], facts["device"]) == (1, "cpu")
    assert facts.get("calibrated_on") == (256 if name in ("onnx_int8", "int8") else None)
    assert ("warning" in facts) is (name in ("torch_export", "int8"))


@pytest.mark.parametrize("name", ["onnx", "onnx_fp16", "onnx_int8"])
def test_an_onnx_file_takes_data_in_its_own_range_and_any_batch_and_does_what_its_figures_say(made: Made, name: str) -> None:
    facts = made.offers[name].facts
    path = made.export / facts["file"]
    model = onnx.load(path)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert model.graph.input[0].type.tensor_type.elem_type == model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert model.opset_import[0].version >= 18
    logits, y = answers(made, rows_of(1200, 300))
    x = next(rows_of(1200, 300).batches(300)).x.contiguous().numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n in (1, 7, 300):
        assert session.run(None, {"x": x[:n]})[0].shape == (n, 10)
    got = session.run(None, {"x": x})[0]
    assert facts["max_abs_diff"] == pytest.approx(np.abs(got - logits.numpy()).max(), rel=1e-2, abs=2e-5)
    assert facts["top1_agreement"] == pytest.approx((got.argmax(1) == logits.numpy().argmax(1)).mean(), abs=0.01)
    assert facts["accuracy"] == pytest.approx((got.argmax(1) == y.numpy()).mean(), abs=0.01)


def test_lossless_formats_are_near_and_the_rounded_ones_not_equal(made: Made) -> None:
    apart = {name: made.offers[name].facts["max_abs_diff"] for name in ALL}
    assert max(apart[name] for name in ("safetensors", "onnx", "torch_export")) < 1e-4
    assert 1e-5 < apart["onnx_fp16"] < apart["onnx_int8"]
    assert apart["int8"] > 1e-2


def test_the_int8_files_hold_their_weights_in_eight_bits(made: Made) -> None:
    weights = [value for value in onnx.load(made.export / "model.int8.onnx").graph.initializer if len(value.dims) > 1]
    assert {value.data_type for value in weights if np.prod(value.dims) > 100} == {onnx.TensorProto.INT8}
    program = torch.export.load(made.export / "model.int8.pt2")
    large = {value.dtype for value in [*program.state_dict.values(), *program.constants.values()] if value.ndim > 1 and value.numel() > 100}
    assert large == {torch.int8}


def test_no_file_names_a_path_of_the_machine_that_made_it(made: Made) -> None:
    root = str(Path(__file__).parents[3]).encode()
    for path in made.export.iterdir():
        content = path.read_bytes()
        assert root not in content, path.name
        assert b"/core/networks" not in content, path.name
        assert str(made.folder).encode() not in content, path.name


def test_the_card_and_the_figures_have_all_formats_and_the_teacher_beside_them(made: Made) -> None:
    metrics = json.loads((made.export / "metrics.json").read_text())
    assert [each["format"] for each in metrics["exports"]] == list(ALL)
    assert [row["batch"] for row in metrics["teacher"]["latency"]] == [1, 32]
    page = (made.export / "README.md").read_text()
    assert all(f"### {name}\n" in page for name in ALL)
    assert "| the teacher | | | | | " in page


def test_a_frozen_teacher_is_measured_beside_the_student_too(tmp_path: Path) -> None:
    node = onnx.helper.make_node("GlobalAveragePool", ["x"], ["pooled"])
    flat = onnx.helper.make_node("Flatten", ["pooled"], ["one"])
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", *shape]) for name, shape in PORTS.items()]
    joined = onnx.helper.make_node("Concat", ["one", "one"], ["logits"], axis=1)
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node, flat, joined], "mean", ports[:1], ports[1:]), opset_imports=opset, ir_version=9
    )
    (tmp_path / "teacher.onnx").write_bytes(model.SerializeToString())
    facts = facts_of()
    teacher = Weights(Frozen(tmp_path / "teacher.onnx"), {"mean": [0.5], "std": [0.2]}, tmp_path / "teacher.onnx")
    offered(tmp_path, student_of(facts), facts, "safetensors", teacher=teacher)
    latency = json.loads((tmp_path / "out" / "export" / "metrics.json").read_text())["teacher"]["latency"]
    assert [(row["batch"], 0 < row["p50_ms"] <= row["p95_ms"]) for row in latency] == [(1, True), (32, True)]


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A student with one hidden unit that is 10,000 times as large as the others and that no output reads: eight bits have none left for
    those that matter; the exponent of float16 has."""
    family = parse(FAMILIES["mlp"])
    facts = facts_of(family=family, class_names=tuple("0123456789"))
    student = taught(facts)
    first, last = student.network.get_submodule("linear1"), student.network.get_submodule("fc")
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        first.bias[0] = 1e4
        last.weight[:, 0] = 0
    folder = tmp_path_factory.mktemp("wild")
    offers, told = offered(folder, student, facts, "safetensors", "onnx_fp16", "onnx_int8", "int8")
    return Made(folder, facts, student, offers, told)


def test_what_disagrees_is_refused_with_the_numbers_and_the_others_are_offered(wild: Made) -> None:
    refused = {name for name, offer in wild.offers.items() if offer.refused}
    assert refused == {"onnx_int8", "int8"}
    for name in ("onnx_int8", "int8"):
        offer = wild.offers[name]
        apart = round((1 - offer.facts["top1_agreement"]) * 300)
        assert apart > 15
        assert offer.refused == f"it gives another class than the student on {apart} of 300 test inputs; 5% are allowed"
    assert set(exports_of(wild.told)) == {"safetensors", "onnx_fp16", DOCUMENTS}
    assert {event.message.split()[2] for event in wild.told if isinstance(event, Log)} == refused
    names = {path.name for path in wild.export.iterdir()}
    assert not names & {"model.int8.onnx", "model.int8.pt2"}
    page = (wild.export / "README.md").read_text()
    assert "`onnx_int8` is not offered: it gives another class" in page


def test_a_file_that_changed_between_writing_and_loading_is_refused_and_the_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = facts_of(class_names=("zero", "one", "two"))
    serialize = onnx.ModelProto.SerializeToString

    def torn(trained: Trained, folder: Path) -> None:
        model = onnx.ModelProto.FromString(serialize(trained.onnx))
        bias = next(value for value in model.graph.initializer if list(value.dims) == [3])
        bias.raw_data = np.array([9, -9, 0], dtype=np.float32).tobytes()
        (folder / "model.onnx").write_bytes(serialize(model))

    _write_with(monkeypatch, "onnx", torn)
    offers, told = offered(tmp_path, student_of(facts), facts, "safetensors", "onnx")
    assert "logits differ from the student's by" in str(offers["onnx"].refused)
    assert offers["safetensors"].refused is None
    assert list(exports_of(told)) == ["safetensors", DOCUMENTS]


def _write_with(monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[Trained, Path], None]) -> None:
    """A format whose file comes out otherwise, as a disk or a library would have it."""
    known = {**formats(), name: dataclasses.replace(formats()[name], write=write)}
    monkeypatch.setattr("core.export.offer.formats", lambda: known)


def test_an_exporter_that_fails_costs_its_own_format_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(trained: Trained, folder: Path) -> None:
        raise ValueError("this operator is not known\nand so on")

    facts = facts_of()
    _write_with(monkeypatch, "torch_export", broken)
    offers, _ = offered(tmp_path, student_of(facts), facts, "torch_export", "safetensors")
    assert offers["torch_export"].refused == "it could not be written: ValueError: this operator is not known"
    assert offers["safetensors"].refused is None


def test_without_labels_the_answers_are_compared_and_no_accuracy_is_told(tmp_path: Path) -> None:
    facts = facts_of(test={"agreement": 0.9, "max_abs_diff": 2.5, "n": 300})
    offers, _ = offered(tmp_path, student_of(facts), facts, "safetensors", test=rows_of(1200, 300, classes=3, labelled=False))
    found = offers["safetensors"].facts
    assert (found["compared"], found["top1_agreement"]) == (300, 1)
    assert not {"accuracy", "student_accuracy", "labelled"} & found.keys()


def test_where_no_format_is_asked_for_the_card_comes_all_the_same(tmp_path: Path) -> None:
    facts = facts_of()
    offers, told = offered(tmp_path, student_of(facts), facts)
    assert offers == {}
    assert list(exports_of(told)) == [DOCUMENTS]
    assert "No file was asked for." in (tmp_path / "out" / "export" / "README.md").read_text()
