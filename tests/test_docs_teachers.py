"""The page on teachers keeps its word: its lines of Python convert a checkpoint, and what it shows of a job is one."""

import json
import re
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from api.routes.assets import TeacherRequest
from core.spec import JobSpec

PAGE = (Path(__file__).parent.parent / "docs" / "teachers.md").read_text()


def test_the_pages_lines_convert_a_checkpoint_as_they_stand(tmp_path: Path) -> None:
    tied = torch.rand(3)
    torch.save({"a": tied, "b": tied}, tmp_path / "teacher.pth")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    lines = "\n".join(line.removeprefix("  ") for line in code.splitlines())
    subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, check=True, timeout=120)
    assert torch.equal(load_file(tmp_path / "teacher.safetensors")["b"], tied)


def test_the_pages_label_map_and_options_are_known() -> None:
    (shown,) = re.findall(r'```json\n(\{"teacher".*?)```', PAGE, re.DOTALL)
    fields = json.loads(shown.replace("…", "0"))
    assert JobSpec.model_validate({**fields, "student": {"architecture": "arc_0"}}).label_map == {"cat": 281, "dog": "golden retriever"}
    assert {"format", "normalization", "labels", "dataset", "weights", "input"} <= set(TeacherRequest.model_fields)
