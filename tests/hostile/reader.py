"""Reads hostile inputs in forks of one process that has everything imported: each is a fresh child with figures and a witness of its own.

    python -m tests.hostile.reader      a line of JSON in: {"command", "folder"}; a line out: the `Outcome`

What a fork runs is `core.__main__.main`, the process contract itself. An audit hook of Python's, which nothing in the process can take
away, notes each file that is opened for writing outside the folder, each program, connection and unpickled name; and each change of the
environment is noted at the end. Only the imports, which cost seconds, are shared.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SECONDS = 20
"""The processor time after which the kernel ends a child: far beyond what is allowed, so that it is seen and not only cut."""
_MEMORY = 2 << 30
_NEVER = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.putenv", "os.unsetenv", "os.kill", "os.chmod", "os.chown",
    "os.link", "os.symlink", "subprocess.Popen", "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "urllib.Request",
    "pickle.find_class", "pty.spawn", "ftplib.connect", "http.client.connect", "webbrowser.open", "code.__new__",
)  # fmt: skip
_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.utime", "shutil.rmtree", "shutil.copyfile", "shutil.move")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one child ended: its exit code (minus the signal's number), its seconds of processor time, its highest resident memory in bytes,
    what it told, what it wrote on standard error, and what it did that no reader does.
    """

    code: int
    seconds: float
    peak: int
    events: tuple[Mapping[str, Any], ...]
    log: str
    deeds: tuple[str, ...]

    @property
    def refusal(self) -> Mapping[str, Any] | None:
        """The refusal that it ended with, as it stands on the wire."""
        last = self.events[-1] if self.events else {}
        return last if last.get("event") == "refusal" else None


class Reader:
    """The process that forks the children. A context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def read(self, command: str, folder: Path) -> Outcome:
        """Run a command on a job folder, and tell how that ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write((json.dumps({"command": command, "folder": str(folder)}) + "\n").encode())
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        return Outcome(**{**told, "events": tuple(told["events"]), "deeds": tuple(told["deeds"])})


def _serve() -> None:
    """Answer line by line; the answers go to the standard output that there was at the start."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import_all()
    for line in sys.stdin:
        asked = json.loads(line)
        out.write(json.dumps(asdict(_forked(asked["command"], Path(asked["folder"])))) + "\n")
        out.flush()


def import_all() -> None:
    """What a child would import, optional packages too, and what its first use of them would make."""
    import onnx.checker  # noqa: F401
    import onnxruntime
    import PIL.Image
    import pyarrow.parquet  # noqa: F401
    import torch

    import core.convert
    import core.inspect  # noqa: F401
    from core.data import FORMATS
    from core.networks import families
    from core.networks.timm import library

    torch.set_num_threads(1)
    for name in FORMATS:
        importlib.import_module(f"core.data.{name}")
    families()
    library()
    PIL.Image.init()
    onnxruntime.set_default_logger_severity(3)


def _forked(command: str, folder: Path) -> Outcome:
    pid = os.fork()
    if pid == 0:
        _child(command, folder)
    _, status, usage = os.wait4(pid, 0)
    told = (folder / "events").read_text(errors="replace").splitlines()
    deeds = tuple((folder / "deeds").read_text(errors="replace").splitlines()) if (folder / "deeds").exists() else ()
    return Outcome(
        os.waitstatus_to_exitcode(status),
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
        tuple(json.loads(line) for line in told),
        (folder / "log").read_text(errors="replace"),
        deeds,
    )


def _child(command: str, folder: Path) -> None:
    """Become the child: its events, its log and its deeds go into files of the folder; never returns."""
    code = 70
    try:
        for number, name, how in (
            (0, os.devnull, os.O_RDONLY),
            (1, folder / "events", os.O_RDWR | os.O_CREAT),
            (2, folder / "log", os.O_RDWR | os.O_CREAT),
        ):
            os.dup2(os.open(name, how, 0o600), number)
        deeds = os.open(folder / "deeds", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_DATA, (_held() + _MEMORY, resource.RLIM_INFINITY))
        before = dict(os.environ)
        os.chdir(folder)
        watch(folder, deeds)
        from core.__main__ import main

        code = main([command, str(folder)])
        if dict(os.environ) != before:
            os.write(deeds, b"the environment was changed\n")
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def watch(folder: Path, deeds: int) -> None:
    """Note from now on, in a file, what no reader does. `folder` is where it may write."""
    inside = (str(folder), os.devnull)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event in _NEVER:
            os.write(deeds, f"{event} {str(given)[:200]!r}\n".encode())
        elif event == "open" and isinstance(given[0], str | bytes) and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR):
            if not os.path.realpath(os.fsdecode(given[0])).startswith(inside):
                os.write(deeds, f"writes {os.fsdecode(given[0])!r}\n".encode())
        elif event in _CHANGES and not os.path.realpath(os.fsdecode(given[0])).startswith(inside):
            os.write(deeds, f"{event} {given[0]!r}\n".encode())

    sys.addaudithook(hook)


def _held() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))


if __name__ == "__main__":
    _serve()
