"""A worker measures its device when it starts: told with the heartbeat, kept for the next start, and harmless where it fails."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from db.workers import living
from tests.worker.lab import Lab, lives, until

MEASURES = """
import json, pathlib, sys, time
place = pathlib.Path({place!r})
with (place / "asked").open("a") as asked:
    asked.write(json.dumps(sys.argv[1:]) + "\\n")
if {hangs!r}:
    (place / "pid").write_text(str(__import__("os").getpid()))
    time.sleep(600)
if {code!r} == 0:
    print(json.dumps({{"event": "result", "values": {{"device": "cpu", "start": 1.5}}}}), flush=True)
sys.exit({code!r})
"""


@pytest.fixture
def child(tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """Makes the command of a child that says what it measured, and writes down that it was asked."""

    def make(*, code: int = 0, hangs: bool = False) -> tuple[str, ...]:
        script = tmp_path / "measures.py"
        script.write_text(MEASURES.format(place=str(tmp_path), code=code, hangs=hangs))
        return (sys.executable, "-I", str(script))

    return make


def asked(tmp_path: Path) -> list[list[str]]:
    file = tmp_path / "asked"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def told(lab: Lab) -> Any:
    found = living(lab.database, within=60)
    return found[0].calibration if found else None


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_what_was_measured_is_told_and_measured_once_for_each_number_of_threads(
    lab: Lab, child: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    for _ in range(2):
        with lab.worker(calibrate=True, child=child()) as process:
            assert until(lambda: told(lab)) == {"device": "cpu", "start": 1.5}
            lab.leave(process)
    assert len(asked(tmp_path)) == 1
    with lab.worker(calibrate=True, child=child(), threads=2) as process:
        assert until(lambda: told(lab))
        lab.leave(process)
    assert [words[words.index("--threads") + 1] for words in asked(tmp_path)] == ["1", "2"]
    assert list((tmp_path / "lab" / "worker" / "jobs").iterdir()) == []


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_measurement_that_fails_is_logged_and_tried_again_at_the_next_start(
    lab: Lab, child: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    log = lab.folder / "worker.log"
    for name in ("first", "second"):
        with lab.worker(calibrate=True, child=child(code=3)) as process:
            until(lambda: "the calibration ended" in log.read_text())
            assert told(lab) is None
            assert lab.leave(process) == 0
        log.rename(lab.folder / name)
    assert len(asked(tmp_path)) == 2


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_worker_that_leaves_while_it_measures_takes_the_child_with_it(
    lab: Lab, child: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    with lab.worker(calibrate=True, child=child(hangs=True)) as process:
        pid = int(until(lambda: (tmp_path / "pid").read_text() if (tmp_path / "pid").exists() else ""))
        assert lab.leave(process) == 0
    until(lambda: not lives(pid))


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_setting_keeps_it_from_measuring(lab: Lab, child: Callable[..., tuple[str, ...]], tmp_path: Path) -> None:
    with lab.worker(calibrate=False, child=child()) as process:
        until(lambda: living(lab.database, within=60))
        lab.leave(process)
    assert asked(tmp_path) == []
