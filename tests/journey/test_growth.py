"""The example of growth does what it says, on digits: teachers of five classes, larger students of ten, one dataset, one table."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.retort.service import environment, processes_of

pytestmark = pytest.mark.journey

EXAMPLE = Path(__file__).parents[2] / "docs" / "growth" / "growth.py"


def test_networks_of_three_families_grow_over_rest_from_teachers_of_fewer_classes(tmp_path: Path) -> None:
    quick = ("--folder", str(tmp_path), "--images", "60", "--epochs", "2")
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE), *quick], capture_output=True, text=True, timeout=300, env=environment(), check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = " ".join(ran.stdout.split())
    assert "the teachers' classes: 0, 1, 2, 3, 4; the students': 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in told
    for growth in ("a perceptron, widened", "a wide residual network, widened", "a residual network, deepened"):
        assert f"{growth}: anti_distillation: running" in told
        assert f"│ {growth} │" in told
    (folder,) = tmp_path.iterdir()
    assert processes_of(tmp_path) == {}
    assert os.listdir(folder / "service" / "jobs") == []
