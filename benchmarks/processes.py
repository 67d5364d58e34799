"""A service started for a measurement, and what its processes hold in memory (Linux)."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from retort import Client
from retort.session import find_service


@dataclass(frozen=True, slots=True)
class Service:
    """A running `retort up` and its folder."""

    folder: Path
    process: int

    def client(self) -> Client:
        """A client with the first key."""
        url, key = find_service(None, None, self.folder)
        return Client(url, key=key)

    @property
    def url(self) -> str:
        """Where it listens."""
        return find_service(None, None, self.folder)[0]

    @property
    def key(self) -> str:
        """Its first key."""
        return find_service(None, None, self.folder)[1]

    def part(self, name: str) -> int:
        """The process that runs `python -m <name>`."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _parent(entry) == self.process:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[1:3] == [b"-m", name.encode()]:
                    return int(entry.name)
        raise LookupError(f"no process of {self.process} runs {name}")


@contextmanager
def service(folder: Path, *, threads: int) -> Iterator[Service]:
    """`retort up` in a folder, on a free port; stopped at the end."""
    command = [sys.executable, "-m", "retort", "up", str(folder), "--port", "0", "--threads", str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        while not (folder / "service.json").exists():
            if process.poll() is not None:
                raise RuntimeError(f"retort up ended with {process.returncode}")
            time.sleep(0.1)
        yield Service(folder, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


def forget_peak(process: int) -> None:
    """Start counting the peak memory of a process anew."""
    Path(f"/proc/{process}/clear_refs").write_text("5")


def resident(process: int) -> tuple[int, int]:
    """The resident memory of a process in bytes: now, and its peak since `forget_peak`."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    now, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def _parent(entry: Path) -> int:
    try:
        # The command's name may hold spaces and brackets: the numbers follow the last bracket.
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1
