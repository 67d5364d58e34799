"""The process contract: commands, exit codes, and what a supervisor can tell from them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.__main__ import main
from core.errors import EXIT_DIVERGED, EXIT_ORPHANED, EXIT_OUT_OF_MEMORY, EXIT_REFUSED
from core.events import Phase
from tests.core.folders import fill, inspection, work


def test_methods_prints_every_method_with_its_schema() -> None:
    ended = subprocess.run([sys.executable, "-I", "-m", "core", "methods"], capture_output=True, timeout=120, check=True)
    listed = json.loads(ended.stdout)
    assert "temperature" in listed["kd"]["parameters"]["properties"]
    assert "Hinton" in listed["kd"]["reference"]


def test_a_folder_without_a_job_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", str(tmp_path)])
    assert ended.value.code == 2
    assert "is no job folder" in capsys.readouterr().err


def test_a_whole_job_tells_its_phases_and_ends_with_a_result(tmp_path: Path) -> None:
    ended = work("run", fill(tmp_path / "job"), "--parent", str(os.getpid()), "--nice", "1", "--memory", str(4 << 30))
    assert (ended.code, ended.log) == (0, "")
    assert [event.phase for event in ended.events if isinstance(event, Phase)] == ["staging", "train", "evaluate", "export"]
    assert ended.result["test"]["n"] == 359


def test_a_job_that_cannot_be_is_refused_at_its_field(tmp_path: Path) -> None:
    ended = work("run", fill(tmp_path / "job", methods=[{"name": "kd", "temperature": 0}]))
    assert (ended.code, ended.refusal.where, ended.refusal.code) == (EXIT_REFUSED, "/methods/0/temperature", "invalid_input")


def test_a_loss_that_explodes_is_told_as_diverged(tmp_path: Path) -> None:
    recipe = {"epochs": 50, "batch_size": 32, "optimizer": {"name": "sgd", "lr": 100, "nesterov": False}, "schedule": {"name": "constant"}}
    ended = work("run", fill(tmp_path / "job", recipe=recipe))
    assert (ended.code, ended.refusal.where, ended.refusal.code) == (EXIT_DIVERGED, "/recipe", "diverged")


def test_an_unforeseen_error_is_a_crash_with_its_traceback(tmp_path: Path) -> None:
    ended = inspection(tmp_path, "nonsense", {})
    assert ended.code == 1
    assert "Traceback" in ended.log
    assert "there is no asset 'nonsense'" in ended.log


def test_a_child_of_another_parent_does_nothing(tmp_path: Path) -> None:
    ended = work("run", fill(tmp_path / "job"), "--parent", str(os.getpid() + 1))
    assert (ended.code, ended.events) == (EXIT_ORPHANED, [])


@pytest.mark.skipif(sys.platform != "linux", reason="the memory limit is Linux's")
def test_a_network_too_large_for_the_memory_limit_is_told_as_such(tmp_path: Path) -> None:
    folder = fill(tmp_path / "job", methods=[], teacher=None)
    task = json.loads((folder / "job.json").read_text())
    task["student"]["architecture"]["hidden"] = [16384, 16384]
    (folder / "job.json").write_text(json.dumps(task))
    ended = work("run", folder, "--memory", str(700 << 20))
    assert (ended.code, ended.refusal.code, ended.refusal.where) == (EXIT_OUT_OF_MEMORY, "oom_host", "/recipe/batch_size")
