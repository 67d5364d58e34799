"""A job in a real child from a network of timm to a declared one, as far as the export."""

import subprocess
import sys
from pathlib import Path

from core.events import Exported
from tests.core.declared import residual
from tests.core.folders import fill, work

TEACHER = {"family": "timm", "name": "test_resnet", "input": [1, 8, 8], "classes": 10}
STUDENT = {"family": "graph", "input": [1, 8, 8], "classes": 10, "nodes": residual(10)}


def test_a_network_of_timm_teaches_a_declared_one_whose_export_is_plain_pytorch(tmp_path: Path) -> None:
    pairs = [["act1", "relu4"], ["layer1", "relu5"]]
    folder = fill(
        tmp_path / "job",
        networks=(TEACHER, STUDENT),
        methods=[{"name": "at", "pairs": pairs}, {"name": "kd"}],
        recipe={"epochs": 1, "batch_size": 32},
    )
    ended = work("run", folder)
    assert ended.code == 0, ended.log
    (exported,) = (event for event in ended.events if isinstance(event, Exported) and event.format == "safetensors")
    assert exported.facts["top1_agreement"] == 1
    program = "import sys; sys.path.insert(0, '.'); from network import build; print(type(build().get_submodule('add2')).__name__)"
    export = folder / "out" / "export"
    told = subprocess.run([sys.executable, "-I", "-c", program], cwd=export, check=True, timeout=300, capture_output=True, text=True)
    assert told.stdout.strip() == "Add"
