"""The example of transfer learning does what it says, on digits: a teacher of five classes, a student of five others, one table."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.retort.service import environment, processes_of

pytestmark = pytest.mark.journey

EXAMPLE = Path(__file__).parents[2] / "docs" / "transfer" / "transfer.py"


def test_the_example_of_transfer_learning_ends_with_its_table_and_leaves_nothing_running(tmp_path: Path) -> None:
    quick = ("--folder", str(tmp_path), "--images", "60", "--epochs", "6", "--teacher-epochs", "3")
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE), *quick], capture_output=True, text=True, timeout=240, env=environment(), check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = " ".join(ran.stdout.split())
    assert "the teacher's classes: 0, 1, 2, 3, 4; the student's: 5, 6, 7, 8, 9" in told
    assert "kd is refused for this teacher: the method 'kd' compares logits" in told
    assert "output 0 is '0' there and '5' here" in told
    assert all(line in told for line in ("alone", "with ab", "with fitnet", "fewer than three seeds say nothing of others"))
    (folder,) = tmp_path.iterdir()
    assert processes_of(tmp_path) == {}
    assert os.listdir(folder / "service" / "jobs") == []
