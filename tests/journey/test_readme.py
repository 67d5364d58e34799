"""The README's journey with curl runs as it stands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.retort.service import up

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.journey


def test_the_journey_with_curl_ends_with_a_student_whose_digests_hold(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / "docs" / "demo" / "teacher.py"), str(tmp_path)], check=True, capture_output=True, timeout=300
    )
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (script,) = re.findall(
        r"<!-- tests/journey/test_readme.py runs this block as it stands -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    with up(tmp_path / "retort-data") as service:
        at_hand = script.replace("http://127.0.0.1:8000", service.url)
        assert at_hand != script
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", at_hand], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "event: done" in done.stdout
    assert "model.safetensors: OK" in done.stdout
    assert json.loads((tmp_path / "metrics.json").read_text())
