"""This worker's own folder of job folders, and the removal of what dead workers left beside it."""

import fcntl
import logging
import os
import signal
from pathlib import Path
from typing import IO

from worker.stage import JobFolder, remove

log = logging.getLogger(__name__)


class Home:
    """A folder under `jobs/`, held by a lock for as long as this process lives.

    The lock, not a process id, says whether a folder's owner still lives: that holds across containers that share a volume.
    """

    def __init__(self, jobs: Path, worker: str) -> None:
        jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.worker = worker
        self.path = jobs / worker
        self.path.mkdir(mode=0o700)
        self._lock = _lock(self.path)
        for other in jobs.iterdir():
            if other == self.path or not other.is_dir() or (lock := _lock(other)) is None:
                continue
            with lock:
                log.info("removing what a dead worker left in %s", other)
                for folder in other.iterdir():
                    if folder.is_dir():
                        _end_leftover(folder)
                remove(other)

    def folder(self, job: str, fence: int) -> JobFolder:
        """A new folder for one attempt at a job."""
        return JobFolder(self.path / f"{job}.{fence}")

    def close(self) -> None:
        """Leave nothing behind."""
        remove(self.path)
        if self._lock is not None:
            self._lock.close()


def mark(folder: JobFolder, pid: int) -> None:
    """Write down which process works in a folder, so that a later worker can end it if nobody else did."""
    (folder.path / "pid").write_text(f"{pid} {_birth(pid)}")


def _end_leftover(folder: Path) -> None:
    """Kill the group of a child that outlived its worker: the parent-death signal reaches no grandchildren, and Linux alone has it."""
    try:
        pid, birth = (folder / "pid").read_text().split(" ", 1)
    except (OSError, ValueError):
        return
    if birth and birth == _birth(int(pid)):
        log.warning("child %s outlived its worker: it is killed", pid)
        os.killpg(int(pid), signal.SIGKILL)


def _birth(pid: int) -> str:
    """When a living process started, in words that no other shares: the boot and the clock tick; empty if it is dead, or nobody can say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if facts[0] in "ZX" else f"{boot} {facts[19]}"


def _lock(folder: Path) -> IO[bytes] | None:
    file = (folder / "lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
