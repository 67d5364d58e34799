"""What a journey begins with: a teacher trained outside Retort, and what a job needs, uploaded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.journey.story", "tests.journey.in_and_out")

from tests.journey.stacks import Stack  # noqa: E402 - the rewriting comes first

TEACHER = Path(__file__).parents[2] / "docs" / "demo" / "teacher.py"
STUDENT = '{"family": "convnet", "channels": [8, 16], "input": [1, 8, 8], "classes": 10}'


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher trained outside Retort, and its data."""
    folder = tmp_path_factory.mktemp("teacher")
    subprocess.run([sys.executable, str(TEACHER), str(folder)], check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def assets(stack: Stack, made: Path) -> dict[str, Any]:
    """What a job needs, uploaded and inspected."""
    described = json.loads((made / "teacher.json").read_text())
    mean, std = (str(described["normalization"][name][0]) for name in ("mean", "std"))
    normalized = ("--mean", mean, "--std", std)
    return {
        "teacher": stack.asked("upload", "teacher", str(made / "teacher.safetensors"), "--architecture", str(made / "teacher.json")),
        "student": stack.asked("upload", "architecture", STUDENT, *normalized),
        "dataset": stack.asked("upload", "dataset", str(made / "digits.npz")),
        "normalization": described["normalization"],
    }
