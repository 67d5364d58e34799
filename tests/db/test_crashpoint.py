"""The named places to die: each is in the code, nothing else is, and a wrong name is refused at the start."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from db.crashpoint import POINTS

ROOT = Path(__file__).parents[2]
CALL = re.compile(r"""crashpoint\(["']([^"']+)["']\)""")
PASS_THREE_TIMES = """
from db.crashpoint import crashpoint
for i in range(3):
    crashpoint("spawn.after")
    crashpoint("spawn.before")
    print(i, flush=True)
"""


def passing(asked: str | None) -> subprocess.CompletedProcess[str]:
    """A process that passes two points three times."""
    environment = {name: value for name, value in os.environ.items() if name != "RETORT_CRASH"}
    armed = {} if asked is None else {"RETORT_CRASH": asked}
    return subprocess.run([sys.executable, "-c", PASS_THREE_TIMES], env=environment | armed, capture_output=True, text=True, check=False)


def test_every_name_is_called_at_one_place_and_every_call_has_a_name() -> None:
    called = [name for part in ("api", "db", "worker") for file in (ROOT / part).rglob("*.py") for name in CALL.findall(file.read_text())]
    assert sorted(called) == sorted(POINTS)


def test_without_the_variable_nothing_happens() -> None:
    assert passing(None).stdout.split() == ["0", "1", "2"]


@pytest.mark.parametrize(("asked", "told"), [("spawn.before", []), ("spawn.before:1", []), ("spawn.after:3:kill", ["0", "1"])])
def test_the_nth_passage_kills(asked: str, told: list[str]) -> None:
    done = passing(asked)
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, told)


def test_a_point_can_raise_in_place_of_killing() -> None:
    done = passing("spawn.after:2:raise")
    assert (done.returncode, done.stdout.split()) == (1, ["0"])
    assert "db.crashpoint.Crash: spawn.after" in done.stderr


def test_a_point_can_stop_the_process_where_it_is() -> None:
    with subprocess.Popen([sys.executable, "-c", PASS_THREE_TIMES], env={**os.environ, "RETORT_CRASH": "spawn.after:1:stop"}) as process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
        finally:
            process.kill()


@pytest.mark.parametrize("asked", ["lunch", "spawn.after:0", "spawn.after:x", "spawn.after:1:explode", "spawn.after:1:kill:2"])
def test_what_nobody_knows_is_refused_at_the_start_with_the_names(asked: str) -> None:
    done = passing(asked)
    assert (done.returncode, done.stdout) == (1, "")
    assert all(name in done.stderr for name in POINTS)
