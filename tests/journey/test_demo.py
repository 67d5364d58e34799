"""`make demo` does what the README promises: one table, and a student that anyone can check."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.retort.service import environment, processes_of

pytestmark = pytest.mark.journey

DEMO = Path(__file__).parents[2] / "docs" / "demo" / "demo.py"


def test_the_demo_ends_with_the_number_that_the_service_reported(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(DEMO), str(tmp_path)], capture_output=True, text=True, timeout=300, env=environment(), check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "the same number" in ran.stdout
    assert all(name in ran.stdout for name in ("teacher", "baseline", "distilled", "600 test images"))
    (folder,) = tmp_path.iterdir()
    assert (folder / "student" / "model.safetensors").is_file()
    assert processes_of(tmp_path) == {}
    assert os.listdir(folder / "service" / "jobs") == []
