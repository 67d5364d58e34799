"""The whole service on one machine: the migration, then the API and a worker as child processes that end with this one."""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import httpx

from retort.errors import Misused, RetortError
from retort.folder import Folder

HOST = "127.0.0.1"
_START = 120.0
_GRACE = {"worker": 60.0, "api": 15.0}
_TICK = 0.1
_LAST_LINES = 15
_SOON = {"RETORT_LEASE": "20", "RETORT_RENEW": "5"}
"""On one machine with its database beside it no answer is long in coming: what was running when the whole service was killed is
taken up again so much sooner."""
_AGAIN = 70
"""How a worker ends that wants to be started again: it hears no ring any more."""
_PACE = 30.0
"""Between two starts of it."""
_REFUSED = 2
"""How `python -m migrations` ends where the database was made by a later version; its last line says so."""


class ChildDied(RetortError):
    """A part of the service ended by itself; the message says how, with its last lines, and names its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a person may choose."""

    port: int = 8000
    slots: int = 1
    threads: int | None = None
    device: str = "cpu"


class Stop:
    """Whether someone asked for the end: once to stop in order, twice to stop at once."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1

    @contextlib.contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Take SIGINT, SIGTERM and SIGHUP, and give them back at the end."""
        before = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass(slots=True)
class Child:
    """One process of the service and the log that it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """`ChildDied` where the process is gone."""
        code = self.process.poll()
        if code is not None:
            raise ChildDied(f"the {self.name} {_ending(code)}{last_lines(self.log)}")

    def stop(self, stop: Stop) -> None:
        """SIGTERM, then SIGKILL after its grace or when someone is impatient."""
        if self.process.poll() is None:
            self.process.terminate()
            deadline, asked = time.monotonic() + _GRACE[self.name], stop.asked
            while self.process.poll() is None and time.monotonic() < deadline and stop.asked <= max(asked, 1):
                time.sleep(_TICK)
            if self.process.poll() is None:
                self.process.kill()
        self.process.wait()


def up(folder: Folder, options: Options, *, ready: Callable[[str], None], say: Callable[[str], None]) -> None:
    """Serve until someone asks for the end; `ready` is called once with the address when the API answers.

    `Misused` where the folder or the port cannot be used, `ChildDied` where a part of the service ends by itself. Whatever
    happens, every child is gone when this returns.
    """
    missing = [name for name in ("api", "worker", "migrations") if importlib.util.find_spec(name) is None]
    if missing:
        raise Misused(
            f"the service itself is not installed here: no {', '.join(missing)}",
            hint="run `retort up` from the environment of a Retort checkout",
        )
    folder.prepare()
    with folder.locked(), Stop().listening() as stop:
        known = folder.known()
        port = _free_port(options.port)
        environment = _environment(folder, options, port)
        _migrate(folder, environment, stop)
        url = f"http://{HOST}:{port}"
        children: list[Child] = []
        try:
            if not stop.asked:
                key = str(known.get("key") or _new_key(folder, environment))
                children.append(_start("api", folder, environment))
                children.append(_start("worker", folder, environment))
            if not stop.asked and _answers(url, children, stop):
                key = _checked(url, key, folder, environment)
                folder.write_service(url=url, key=key)
                ready(url)
            while not stop.asked and not _is_orphan():
                children[:] = [_kept(child, folder, environment, say) for child in children]
                time.sleep(_TICK)
            say("stopping: running jobs are handed back and go on at the next start (once more to stop at once)")
        finally:
            # The worker first: it hands its jobs back while the database is still served.
            for child in reversed(children):
                child.stop(stop)


def make_key(folder: Folder, *, tenant: str, name: str, environment: dict[str, str] | None = None) -> str:
    """A new key, made in the database of the folder (or of `environment`) without asking any service."""
    command = [sys.executable, "-m", "api", "key", "--tenant", tenant, "--name", name]
    made = subprocess.run(command, env=environment or _base(folder), capture_output=True, text=True, check=False, start_new_session=True)
    if made.returncode != 0:
        raise ChildDied(f"making a key failed: python -m api {_ending(made.returncode)}:\n{_indented(made.stderr.splitlines())}")
    return str(json.loads(made.stdout)["key"])


def last_lines(log: Path) -> str:
    """The end of a log, for a message, and where the rest of it is."""
    return f"; its last lines:\n{_indented(_lines(log))}\nThe whole log: {log}"


def _lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16384))
        return file.read().decode(errors="replace").splitlines() or ["(nothing)"]


def _indented(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for line in lines[-_LAST_LINES:])


def _base(folder: Folder) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("RETORT_URL", "RETORT_API_KEY")}
    return {
        **inherited,
        "RETORT_DATABASE_URL": folder.database_url,
        "RETORT_BROKER_URL": folder.broker_url,
        "RETORT_DATA": str(folder.path),
        "RETORT_PARENT": str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
    }


def _environment(folder: Folder, options: Options, port: int) -> dict[str, str]:
    environment = {
        **_SOON,
        **_base(folder),
        "RETORT_HOST": HOST,
        "RETORT_PORT": str(port),
        "RETORT_SLOTS": str(options.slots),
        "RETORT_DEVICE": options.device,
        "RETORT_QUEUES": "gpu,cpu" if options.device == "cuda" else "cpu",
    }
    if options.threads is not None:
        environment["RETORT_THREADS"] = str(options.threads)
    return environment


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as wrong:
            raise Misused(
                f"port {port} cannot be used: {wrong.strerror or wrong}",
                hint=f"choose another, for example --port {port + 1}, or --port 0 for any",
            ) from wrong
        return int(probe.getsockname()[1])


def _migrate(folder: Folder, environment: dict[str, str], stop: Stop) -> None:
    log = folder.logs / "migrations.log"
    log.unlink(missing_ok=True)
    migration = _start("migrations", folder, environment).process
    while migration.poll() is None:
        if stop.asked > 1:
            migration.kill()
        time.sleep(_TICK)
    if migration.returncode == 0 or stop.asked:
        return
    if migration.returncode == _REFUSED:
        raise Misused(f"{folder.path} cannot be served by this version: {_lines(log)[-1]}", hint="or name another folder: `retort up DIR`")
    ending = f"the migration {_ending(migration.returncode)}{last_lines(log)}"
    raise ChildDied(f"the database in {folder.path} could not be brought to this version: {ending}")


def _start(name: str, folder: Folder, environment: dict[str, str]) -> Child:
    log = folder.logs / f"{name}.log"
    with log.open("ab") as sink:
        # A session of its own: Ctrl-C in the terminal reaches this process alone, and it stops the others in order.
        process = subprocess.Popen(
            [sys.executable, "-m", name],
            cwd=folder.path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,  # the database and the logs are their owner's, also in a folder that others may enter
        )
    return Child(name, process, log)


def _kept(child: Child, folder: Folder, environment: dict[str, str], say: Callable[[str], None]) -> Child:
    """The child, or its successor where it ended to be started again and the pace allows it; `ChildDied` where it is gone otherwise."""
    if child.process.poll() != _AGAIN:
        child.check()
    elif time.monotonic() - child.started > _PACE:
        say(f"the {child.name} ended to be started again; its log says why: {child.log}")
        return _start(child.name, folder, environment)
    return child


def _new_key(folder: Folder, environment: dict[str, str]) -> str:
    return make_key(folder, tenant="local", name="retort up", environment=environment)


def _answers(url: str, children: list[Child], stop: Stop) -> bool:
    """Whether the API answers; False where the end was asked for first."""
    deadline = time.monotonic() + _START
    with httpx.Client(trust_env=False, timeout=5.0) as http:
        while not stop.asked:
            for child in children:
                child.check()
            with contextlib.suppress(httpx.TransportError):
                if http.get(f"{url}/readyz").status_code == httpx.codes.OK:
                    return True
            if time.monotonic() > deadline:
                raise ChildDied(f"the API did not answer within {_START:g} s{last_lines(children[0].log)}")
            time.sleep(_TICK)
    return False


def _checked(url: str, key: str, folder: Folder, environment: dict[str, str]) -> str:
    """The key if the service still knows it, else a new one: someone may have revoked it, or begun the database anew."""
    known = httpx.get(f"{url}/v1/me", headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=30.0)
    return _new_key(folder, environment) if known.status_code == httpx.codes.UNAUTHORIZED else key


def _is_orphan() -> bool:
    """Whether a program that started this one, and said so by RETORT_PARENT, is gone."""
    parent = os.environ.get("RETORT_PARENT", "")
    return parent.isdigit() and os.getppid() != int(parent)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit status {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
