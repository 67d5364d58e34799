"""The lines of docs/downloads.md do what the page says, in a shell, against a real service."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx

from db.session import Database
from tests.api.lab import ONE_DATABASE, User, finished

PAGE = Path(__file__).parent.parent.parent / "docs" / "downloads.md"
WEIGHTS = bytes(range(256)) * 10_000

pytestmark = ONE_DATABASE


def test_the_lines_of_the_page_work(http: httpx.Client, user: User, submitted: dict[str, Any], database: Database, tmp_path: Path) -> None:
    finished(database, user, submitted["id"], {("safetensors", "model.safetensors"): WEIGHTS, ("card", "README.md"): b"# card\n"})
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL))
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS[:1_500_000])  # what an earlier try left
    known = {"RETORT_URL": str(http.base_url), "RETORT_API_KEY": user.key, "JOB": submitted["id"], "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-euc", lines], cwd=tmp_path, env=known, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS
    assert (tmp_path / "head.bin").read_bytes() == WEIGHTS[:1024]
    assert {each.name for each in (tmp_path / "student").iterdir()} == {"model.safetensors", "README.md", "SHA256SUMS"}
    assert json.loads((tmp_path / "export.json").read_text())["kind"] == "export"
    assert {each["format"]: each["status"] for each in json.loads((tmp_path / "exports.json").read_text())["data"]} == {
        "safetensors": "ready",
        "onnx": "processing",
    }
