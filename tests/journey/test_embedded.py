"""The journey on one machine: `retort up`."""

import json
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.journey.in_and_out import InAndOut
from tests.journey.stacks import Stack, embedded
from tests.journey.story import Story, submit

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with embedded(tmp_path_factory.mktemp("embedded")) as running:
        yield running


class TestEmbedded(Story):
    """One folder, one command."""

    def test_a_finished_student_is_exported_later_and_the_bundle_holds_all_of_it(
        self, stack: Stack, assets: dict[str, Any], made: Path, tmp_path: Path
    ) -> None:
        job = submit(stack, assets, "--epochs", "2", "--take", "200", "--watch")["id"]
        [onnx] = stack.asked("export", job, "onnx")["data"]
        assert (onnx["status"], onnx["reason"]) == ("ready", None)
        assert onnx["facts"]["top1_agreement"] > 0.99
        shown = stack.retort("export", job).stdout
        assert "onnx" in shown
        assert "agreement" in shown
        assert stack.asked("export", job, "onyx", code=1)["error"]["errors"][0]["pointer"] == "/formats/0"

        path = stack.asked("download", job, "--bundle", "--to", str(tmp_path))["bundle"]
        with zipfile.ZipFile(path) as bundle:
            bundle.extractall(tmp_path / "student")
            names = set(bundle.namelist())
        assert names >= {
            "model.safetensors", "config.json", "preprocessor_config.json", "README.md", "metrics.json", "provenance.json", "network.py",
            "model.onnx", "SHA256SUMS",
        }  # fmt: skip
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path / "student", check=True)
        assert len((tmp_path / "student" / "SHA256SUMS").read_text().splitlines()) == len(names) - 1
        told = json.loads((tmp_path / "student" / "metrics.json").read_text())["exports"]
        assert [each["format"] for each in told] == ["safetensors", "onnx"]
        assert "model.onnx" in (tmp_path / "student" / "README.md").read_text()

        session = onnxruntime.InferenceSession(tmp_path / "student" / "model.onnx", providers=["CPUExecutionProvider"])
        digits = np.load(made / "digits.npz")
        x, y = digits["x_test"], digits["y_test"]
        [logits] = session.run(None, {session.get_inputs()[0].name: np.float32(x[:, None]) / 255})
        result = stack.asked("get", job)["result"]["test"]
        assert int((logits.argmax(1) == y).sum()) == pytest.approx(result["accuracy"] * result["n"], abs=2)


class TestInAndOut(InAndOut):
    """In and out: one folder, one command."""
