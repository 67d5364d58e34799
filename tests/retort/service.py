"""`retort up` as a person starts it: a process of its own, with a folder of its own; and what of it is left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RETORT = [sys.executable, "-m", "retort"]
PATIENCE = 90.0


@dataclass
class Up:
    """A running `retort up`."""

    process: subprocess.Popen[str]
    folder: Path
    url: str

    def ends(self, number: int) -> tuple[int, str]:
        """Send a signal and wait: the exit code, and what it wrote to standard error."""
        self.process.send_signal(number)
        _, told = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, told


@contextmanager
def up(folder: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Up]:
    """The service, once it answers; whatever the test did, nothing of it is left. `env` is added to its environment."""
    process = subprocess.Popen(
        [*RETORT, "up", str(folder), "--port", "0", "--threads", "1", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(env),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield Up(process, folder, json.loads(line)["url"])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        wait_until(lambda: not processes_of(folder))


def call(*words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """One call of the command, as a person types it."""
    return subprocess.run(
        [*RETORT, *words], capture_output=True, text=True, env=environment(env), cwd=cwd, timeout=300, check=False, stdin=subprocess.DEVNULL
    )


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would point the command elsewhere, and no worker measures the machine beside a test."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RETORT_")}
    return plain | {"RETORT_CALIBRATE": "false"} | dict(more or {})


def processes_of(folder: Path) -> dict[int, str]:
    """Every process that has this folder in its command line or its environment, but this one's own family of tests."""
    mark, found = os.fsencode(folder), {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes()
            if mark in words or mark in (entry / "environ").read_bytes():
                found[int(entry.name)] = words.replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # it ended meanwhile, or it belongs to someone else
    return found


def wait_until(holds: Callable[[], Any], patience: float = PATIENCE) -> None:
    """Wait for a condition; fail if it does not come."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"it did not happen within {patience:g} s"
        time.sleep(0.05)
