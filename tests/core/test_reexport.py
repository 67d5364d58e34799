"""A finished student in more formats: the real child on a folder that holds its weights, and nothing of its training."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from core.artifacts import load_into
from core.blobs import digest_of
from core.events import Exported, Phase
from core.export.offer import DOCUMENTS
from core.networks import parse
from tests.core.folders import NORMALIZATION, STUDENT, Ended, digits, fill, work


def again(trained: Path, folder: Path, *formats: str, **task: Any) -> Path:
    """The folder of an export job, as the API describes it."""
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    for name in ("dataset", "teacher"):
        shutil.copy(trained / "in" / f"{name}.safetensors", folder / "in")
    shutil.copy(trained / "out" / "export" / "model.safetensors", folder / "in" / "student.safetensors")
    before = json.loads((trained / "job.json").read_text())
    told = {name: before[name] for name in ("spec", "student", "teacher", "dataset", "runtime")}
    (folder / "job.json").write_text(json.dumps({"kind": "export", "formats": formats, **told, **task}))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    folder = fill(tmp_path_factory.mktemp("trained") / "job", exports=["safetensors"])
    ended = work("run", folder)
    assert (ended.code, ended.log) == (0, "")
    return folder, ended


def test_a_job_tells_in_its_result_what_became_of_its_exports(trained: tuple[Path, Ended]) -> None:
    result = trained[1].result
    (only,) = result["exports"]
    assert (only["format"], only["refused"], only["facts"]["compared"]) == ("safetensors", None, 359)
    assert only["facts"]["accuracy"] == result["test"]["accuracy"]
    assert result["bytes"] == only["facts"]["bytes"]


def test_the_flops_are_those_that_a_hand_counts(trained: tuple[Path, Ended]) -> None:
    # 64 inputs, 16 hidden units, 10 outputs for the student, 64 hidden units for the teacher; a multiplication and an addition are two.
    assert trained[1].result["flops"] == 2 * (64 * 16 + 16 * 10)
    assert trained[1].result["teacher_flops"] == 2 * (64 * 64 + 64 * 10)


def test_a_finished_student_is_written_in_more_formats_with_its_figures_on_the_card(trained: tuple[Path, Ended], tmp_path: Path) -> None:
    plain = {"job": "job_9", "accuracy": 0.05, "n": 359, "seed": 0}
    folder = again(trained[0], tmp_path / "more", "onnx", result=trained[1].result, baseline=plain, files={"model.safetensors": "ab" * 32})
    ended = work("export", folder)
    assert ended.code == 0, ended.log
    assert [event.phase for event in ended.events if isinstance(event, Phase)] == ["staging", "export"]
    assert [event.format for event in ended.events if isinstance(event, Exported)] == ["onnx", DOCUMENTS]
    (only,) = ended.result["exports"]
    assert (only["format"], only["refused"], only["facts"]["top1_agreement"]) == ("onnx", None, 1.0)

    x = torch.from_numpy(digits()[0][:20, None]).float() / 255
    network = parse(STUDENT).build().eval()
    load_into(network, folder / "in" / "student.safetensors")
    with torch.no_grad():
        expected = network((x - NORMALIZATION["mean"][0]) / NORMALIZATION["std"][0])
    session = onnxruntime.InferenceSession(folder / "out" / "export" / "model.onnx", providers=["CPUExecutionProvider"])
    torch.testing.assert_close(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), expected, atol=1e-5, rtol=1e-5)

    metrics = json.loads((folder / "out" / "export" / "metrics.json").read_text())
    assert [each["format"] for each in metrics["exports"]] == ["safetensors", "onnx"]
    assert metrics["student"]["accuracy"] == trained[1].result["test"]["accuracy"]
    assert metrics["gain"] == pytest.approx(trained[1].result["test"]["accuracy"] - 0.05)
    page = (folder / "out" / "export" / "README.md").read_text()
    assert "`model.safetensors`" in page
    assert "`model.onnx`" in page
    first, second = (json.loads((each / "out/export/provenance.json").read_text())["digests"] for each in (trained[0], folder))
    assert first == second
    assert set(first) == {"teacher", "dataset", "architecture", "spec"}
    files = json.loads((folder / "out/export/provenance.json").read_text())["files"]
    assert files == {"model.safetensors": "ab" * 32, "model.onnx": digest_of(folder / "out/export/model.onnx")}


def test_a_folder_with_the_least_is_enough(trained: tuple[Path, Ended], tmp_path: Path) -> None:
    folder = again(trained[0], tmp_path / "least", "torch_export", teacher=None)
    (folder / "in" / "teacher.safetensors").unlink()
    ended = work("export", folder)
    assert ended.code == 0, ended.log
    assert ended.result["exports"][0]["refused"] is None


def test_a_format_that_does_not_exist_is_refused_where_it_was_asked_for(trained: tuple[Path, Ended], tmp_path: Path) -> None:
    ended = work("export", again(trained[0], tmp_path / "unknown", "onnx", "pickle"))
    assert ended.refusal.where == "/formats/1"
    assert "torch_export" in ended.refusal.hint
