"""A child's life is bound to its parent's, and limited."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import EXIT_ORPHANED

LIMITED = """
import json, os, resource
from core import shim
shim.limit(memory=1 << 30, nice=3)
fields = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps([resource.getrlimit(resource.RLIMIT_CORE)[0], resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                  resource.getrlimit(resource.RLIMIT_DATA)[0], os.nice(0), int(fields["NoNewPrivs"])]))
try:
    bytearray(2 << 30)
except MemoryError:
    print("full")
"""

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import os, sys, time; from core import shim; shim.die_with_parent(int(sys.argv[1])); "
                          "print('bound', os.getpid(), flush=True); time.sleep(600)", str(__import__("os").getpid())])
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_limited_process_says_so_and_meets_its_memory_limit() -> None:
    before = os.nice(0)
    ended = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=60, check=True)
    limits, full = ended.stdout.splitlines()
    assert json.loads(limits) == [0, 512, 1 << 30, min(19, before + 3), 1]
    assert full == "full"


def test_a_child_whose_parent_is_another_process_ends_at_once() -> None:
    code = f"from core import shim; shim.die_with_parent({os.getpid() + 1}); print('alive')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (EXIT_ORPHANED, b"")


def test_a_child_dies_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    word, pid = parent.stdout.readline().split()
    assert word == "bound"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while alive(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(int(pid))


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
