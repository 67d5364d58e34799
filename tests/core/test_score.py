"""A teacher is measured before anybody learns from it: on arrival, and whenever it is asked for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save

from core.artifacts import load_into, load_weights
from core.data import Dataset, ingest, open_dataset
from core.errors import Refused
from core.events import Inspected
from core.networks import parse
from core.score import MOST, score, warnings_of
from core.taps import Tapped
from tests.core.folders import STUDENT, digits, fill, work
from tests.core.test_inspect import look

Weights = dict[str, torch.Tensor]
ARCHITECTURE = {"family": "mlp", "input": [1, 8, 8], "classes": 10, "hidden": []}
ORDER = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
"""Output k of the teacher below is for digit ORDER[k]."""
LABELS = [str(digit) for digit in ORDER]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits in canonical form, 1438 to train with and 359 to test with."""
    folder = tmp_path_factory.mktemp("digits")
    x, y = digits()
    np.savez(folder / "digits.npz", x=x, y=y)
    ingest(folder / "digits.npz", {"format": "npz"}, folder / "dataset.safetensors")
    return folder / "dataset.safetensors"


@pytest.fixture(scope="module")
def trained(data: Path) -> Weights:
    """A linear classifier of digits, fitted by least squares, whose outputs stand in ORDER."""
    rows = open_dataset(data).split("train")
    batch = next(rows.batches(len(rows)))
    x = torch.cat([batch.x.flatten(1), torch.ones(len(rows), 1)], 1)
    target = torch.nn.functional.one_hot(batch.y, 10).float()
    solved = torch.linalg.lstsq(x.T @ x + 0.1 * torch.eye(65), x.T @ target).solution
    names = list(parse(ARCHITECTURE).build().state_dict())
    weight, bias = 20 * solved[:64].T[ORDER], 20 * solved[64][ORDER]
    return dict(zip(names, (weight.contiguous(), bias.contiguous()), strict=True))


def by_hand(data: Path, trained: Weights) -> float:
    """The accuracy of that classifier: the digit of the largest output, counted."""
    rows = open_dataset(data).split("test")
    batch = next(rows.batches(len(rows)))
    weight, bias = trained.values()
    answers = torch.tensor(ORDER)[(batch.x.flatten(1) @ weight.T + bias).argmax(1)]
    return float((answers == batch.y).double().mean())


def inspected(folder: Path, data: Path, upload: bytes, **request: Any) -> Inspected:
    folder.joinpath("in").mkdir()
    folder.joinpath("in", "dataset.safetensors").symlink_to(data)
    found = look(folder, "teacher", {"architecture": ARCHITECTURE, "normalization": None, "dataset": "ds_1", **request}, upload)[1]
    assert isinstance(found, Inspected)
    return found


def test_on_arrival_its_outputs_are_put_in_order_and_counted(tmp_path: Path, data: Path, trained: Weights) -> None:
    found = inspected(tmp_path, data, save(trained), labels=LABELS)
    told = found.report["evaluation"]
    expected = by_hand(data, trained)
    assert expected > 0.9
    assert (told["dataset"], told["split"], told["n"], told["of"]) == ("ds_1", "test", 359, 359)
    assert told["accuracy"] == pytest.approx(expected)
    assert (told["near_chance"], found.report["warnings"]) == (False, [])


def test_a_teacher_near_chance_is_warned_of_with_likely_causes(tmp_path: Path, data: Path, trained: Weights) -> None:
    wrong = {name: -tensor for name, tensor in trained.items()}
    told = inspected(tmp_path, data, save(wrong), labels=LABELS).report
    assert told["evaluation"]["near_chance"]
    assert "normalization" in told["warnings"][0]


def test_what_the_names_deny_is_refused_at_the_dataset(tmp_path: Path, data: Path, trained: Weights) -> None:
    with pytest.raises(Refused, match="9 outputs, the dataset 10 classes"):
        inspected(tmp_path, data, save({name: tensor[:9] for name, tensor in trained.items()}), architecture={**ARCHITECTURE, "classes": 9})


def test_renamed_weights_are_written_anew_under_the_architectures_names(tmp_path: Path, data: Path, trained: Weights) -> None:
    (name, _) = trained
    layer = name.rpartition(".")[0]
    theirs = {f"module.net.head.{key.rpartition('.')[2]}": tensor for key, tensor in trained.items()}
    found = inspected(tmp_path, data, save(theirs), labels=LABELS, weights={"rename": {"net.head.": f"{layer}."}})
    assert found.report["weights"] == {"stripped": ["module."], "renamed": 2, "filled": 0}
    (file,) = found.files
    assert (file.path, file.bytes) == ("out/teacher.safetensors", found.report["bytes"])
    written = load_weights(tmp_path / file.path)
    assert all(torch.equal(written[key], tensor) for key, tensor in trained.items())
    network = parse(ARCHITECTURE).build()
    assert not load_into(network, tmp_path / file.path).is_changed


class Constant(torch.nn.Module):
    """Always the same answer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)


def test_of_a_large_split_ten_thousand_samples_from_all_of_it_are_measured(tmp_path: Path) -> None:
    """A split sorted by class: the first ten thousand alone would all be of one."""
    x = np.zeros((24_000, 1), np.float32)
    y = np.repeat([0, 1], 12_000)
    np.savez(tmp_path / "d.npz", x_train=x[::2000], y_train=y[::2000], x_test=x, y_test=y)
    ingest(tmp_path / "d.npz", {"format": "npz"}, tmp_path / "d")
    found = score(Tapped(Constant()), Dataset(tmp_path / "d"), dataset="ds_1")
    assert (found["n"], found["of"]) == (MOST, 24_000)
    assert (found["accuracy"], found["chance"]) == (pytest.approx(0.5, abs=1e-3), pytest.approx(0.5, abs=1e-3))
    assert found["near_chance"]
    assert "50.0%" in warnings_of(found)[0]


def as_onnx(trained: Weights) -> bytes:
    """The same classifier, as another framework might have written it."""
    weight, bias = trained.values()
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Gemm", ["flat", "w", "b"], ["z"], transB=1)],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weight.numpy(), "w"), numpy_helper.from_array(bias.numpy(), "b")],
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())


def test_an_onnx_teacher_scores_as_the_network_does_and_says_what_it_is(tmp_path: Path, data: Path, trained: Weights) -> None:
    upload = as_onnx(trained)
    onnx.checker.check_model(upload)
    report = inspected(tmp_path, data, upload, labels=LABELS, format="onnx", architecture={"family": "onnx", "input": None}).report
    assert report["evaluation"]["accuracy"] == pytest.approx(by_hand(data, trained))
    assert (report["format"], report["anatomy"]["frozen"], report["parameters"], report["bytes"]) == ("onnx", True, 650, len(upload))
    assert "no taps and gives no gradient" in report["notes"][0]


def test_a_real_child_evaluates_by_a_map(tmp_path: Path, data: Path, trained: Weights) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "teacher.onnx").write_bytes(as_onnx(trained))
    (tmp_path / "in" / "dataset.safetensors").symlink_to(data)
    described = {"architecture": {"family": "onnx", "input": None}, "normalization": None, "classes": None}
    answers = {str(digit): ORDER.index(digit) for digit in range(10)}
    task = {"kind": "evaluate", "teacher": described, "dataset": "ds_1", "label_map": answers}
    (tmp_path / "job.json").write_text(json.dumps(task))
    ended = work("evaluate", tmp_path)
    assert (ended.code, ended.log) == (0, "")
    assert ended.result["evaluation"]["accuracy"] == pytest.approx(by_hand(data, trained))


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_student_learns_from_a_teacher_whose_outputs_are_in_another_order(
    tmp_path: Path, data: Path, trained: Weights, is_whole: bool
) -> None:
    """Soft targets alone, no labels: were the logits not put in order, the student would be right on two digits of ten."""
    recipe = {"epochs": 8, "batch_size": 32, "optimizer": {"name": "sgd", "lr": 0.1}, "task_weight": 0.0}
    take = {"id": "ds_0", "validation": 0.0}
    folder = fill(tmp_path / "job", networks=(ARCHITECTURE, STUDENT), recipe=recipe, dataset=take, evaluate=["agreement", "fgsm"])
    task = json.loads((folder / "job.json").read_text())
    task["teacher"] |= {"classes": LABELS, "normalization": None}
    if is_whole:
        task["teacher"]["architecture"] = {"family": "onnx", "input": None}
        (folder / "in" / "teacher.safetensors").unlink()
        (folder / "in" / "teacher.onnx").write_bytes(as_onnx(trained))
    else:
        (folder / "in" / "teacher.safetensors").write_bytes(save(trained))
    (folder / "job.json").write_text(json.dumps(task))
    ended = work("run", folder)
    assert (ended.code, ended.log) == (0, "")
    assert ended.result["teacher"]["accuracy"] == pytest.approx(by_hand(data, trained))
    assert ended.result["test"]["agreement"] > 0.8
    assert ended.result["test"]["accuracy"] > 0.8
    assert set(ended.result["curves"]) == ({"student"} if is_whole else {"student", "teacher"})
