"""A child's line to its supervisor."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import EXIT_YIELDED
from core.events import Log, decode
from core.wire import Stopped, Wire

OPENED = """
import os, sys, time
from core.events import Log
from core.wire import Wire
class Held(Wire):
    def __init__(self, out):
        super().__init__(out)
        self.holding = HOLDING
wire = Held.open()
print("noise of a library")
os.system("echo noise of a program")
wire.tell(Log("hello"))
"""


def child(code: str, commands: bytes = b"", *, holding: bool = True) -> subprocess.CompletedProcess[bytes]:
    program = OPENED.replace("HOLDING", str(holding)) + code
    return subprocess.run([sys.executable, "-c", program], input=commands, capture_output=True, timeout=60, check=False)


def test_what_others_print_never_reaches_the_events() -> None:
    ended = child("")
    assert [decode(line) for line in ended.stdout.decode().splitlines()] == [Log("hello")]
    assert sorted(ended.stderr.decode().splitlines()) == ["noise of a library", "noise of a program"]


def test_a_stop_and_a_checkpoint_are_heard_between_lines_that_are_no_commands() -> None:
    commands = b'nonsense\n{"command":"dance"}\n[]\n{"command":"checkpoint"}\n{"command":"stop"}\n'
    ended = child("wire.stop.wait(30) or sys.exit(1)\nsys.exit(0 if wire.checkpoint.is_set() else 2)", commands)
    assert ended.returncode == 0
    assert ended.stderr.decode().count("not a command") == 3


def test_the_end_of_the_input_alone_means_nothing() -> None:
    assert child("time.sleep(0.2)\nsys.exit(3 if wire.stop.is_set() else 0)").returncode == 0


@pytest.mark.parametrize(("order", "command"), [("os.kill(os.getpid(), 15)", b""), ("pass", b'{"command":"stop"}\n')])
def test_a_stop_ends_a_child_at_once_while_it_has_nothing_to_lose(order: str, command: bytes) -> None:
    ended = child(f"{order}\ntime.sleep(60)", command, holding=False)
    assert (ended.returncode, ended.stderr.decode().count("Traceback")) == (EXIT_YIELDED, 0)


def test_a_sigterm_is_a_stop() -> None:
    assert child("os.kill(os.getpid(), 15)\nsys.exit(0 if wire.stop.is_set() else 4)").returncode == 0


def test_a_pulse_sees_the_stop(tmp_path: Path) -> None:
    wire = Wire(os.open(tmp_path / "events", os.O_CREAT | os.O_WRONLY))
    wire.pulse("working")
    wire.stop.set()
    with pytest.raises(Stopped):
        wire.pulse("working")
    assert (tmp_path / "events").read_bytes() == b""


def test_the_line_stands_without_torch() -> None:
    code = "import sys, core.wire, core.shim, core.blobs, core.errors, core.events; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
