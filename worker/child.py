"""Child processes: one long-lived thread starts them all, and a `Child` hears, commands, measures and ends one of them."""

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from core.events import Event, decode

log = logging.getLogger(__name__)

LINE = 8 << 20
"""The longest line a child may tell, in bytes: the anatomy of a network with thousands of weights is the longest that any tells."""
_KILLED = 0.01


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: the exit code or the signal, and the most memory it held, in bytes."""

    exit_code: int | None
    signal: int | None
    max_rss: int


class Child:
    """A running child process, the leader of a session and a process group of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self.ending: Ending | None = None
        self._process = process

    def events(self) -> Iterator[Event]:
        """What the child tells, until its output ends. Lines that are no event, or too long for one, are left aside and logged once."""
        complained = False
        with _pipe(self._process.stdout) as out:
            while line := out.readline(LINE):
                if not line.endswith(b"\n"):
                    while (rest := out.readline(LINE)) and not rest.endswith(b"\n"):
                        pass
                try:
                    event = decode(line.decode("utf-8", "replace"))
                except ValueError:
                    if not complained:
                        log.warning("child %d told something that is no event: %r", self.pid, line[:200])
                    complained = True
                    continue
                yield event

    def command(self, name: str) -> None:
        """Tell the child to "stop" or to "checkpoint"; a child that is gone, or reads nothing, hears nothing."""
        commands = _pipe(self._process.stdin)
        try:
            os.write(commands.fileno(), json.dumps({"command": name}).encode() + b"\n")
        except (BrokenPipeError, BlockingIOError) as error:
            log.info("child %d did not take the command %s: %s", self.pid, name, error)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child and to everything it started."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            log.debug("child %d and all it started are gone already", self.pid)

    def ended(self) -> Ending | None:
        """How the child ended, once it has; asked again and again by its one supervisor."""
        if self.ending is None:
            if hasattr(os, "waitid"):
                if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    return None
                self.signal(signal.SIGKILL)  # what it started; before it is reaped, while the group's number is surely still its own
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self._process.returncode = code  # it was reaped here: Popen must not wait for the number again
                scale = 1 if sys.platform == "darwin" else 1024
                self.ending = Ending(code if code >= 0 else None, -code if code < 0 else None, usage.ru_maxrss * scale)
        return self.ending

    def memory(self) -> int | None:
        """The private memory that the child holds now, in bytes; None where the system does not say. Mapped files do not count."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return None
        for line in status.splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        return None

    def end(self) -> None:
        """Kill the child if it lives, and wait until it is dead."""
        while self.ended() is None:
            self.signal(signal.SIGKILL)
            time.sleep(_KILLED)
        _pipe(self._process.stdin).close()


class Spawner:
    """The thread that starts every child of this process.

    The parent-death signal that a child asks for is bound to the *thread* that started it: started from a thread that ends with
    its job, or from a pool that may shrink, a child would be killed in the middle of its work. This thread ends with the process.
    """

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[tuple[Callable[[], Child], Future[Child]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="spawner", daemon=True).start()

    def start(self, command: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> Child:
        """A new child in `folder`, its errors in child.log there; OSError if the system refuses to start it."""
        outcome: Future[Child] = Future()
        self._orders.put((lambda: _start(command, folder, environment), outcome))
        return outcome.result()

    def _run(self) -> None:
        while True:
            order, outcome = self._orders.get()
            try:
                outcome.set_result(order())
            except BaseException as error:
                outcome.set_exception(error)


def _start(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Child:
    with (folder / "child.log").open("ab") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )
    os.set_blocking(_pipe(process.stdin).fileno(), False)  # a child that reads nothing must not hold its supervisor up
    return Child(process)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "every child is started with its pipes"
    return pipe


def environment(folder: Path, *, threads: int, gpu: int | None) -> dict[str, str]:
    """What a child may know of ours: no credentials, its own home, a fixed number of threads, and one GPU or none.

    `gpu` is the number of the slot; where the worker itself may use only some GPUs, it counts among those.
    """
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    mine = "" if gpu is None else visible[gpu % len(visible)] if visible else str(gpu)
    passed = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    many = str(threads)
    return {
        **passed,
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "USER": "retort",
        "LANG": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": mine,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "OMP_NUM_THREADS": many,
        "MKL_NUM_THREADS": many,
        "OPENBLAS_NUM_THREADS": many,
        "MKL_DYNAMIC": "FALSE",
        "THP_MEM_ALLOC_ENABLE": "1",  # torch takes large tensors in huge pages: a batch in half the time of its page faults
    }
