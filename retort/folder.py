"""The data folder of a service on one machine: whose it is, of which version, and who serves it now."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retort.errors import Misused
from retort.version import __version__

_OURS = frozenset({"service.json", "retort.db", "lock", "logs", "broker", "jobs", "cache"})


class Folder:
    """Where `retort up` keeps everything."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.logs = self.path / "logs"
        self.service = self.path / "service.json"
        self.database_url = f"sqlite:///{self.path / 'retort.db'}"
        self.broker_url = f"filesystem://{self.path / 'broker'}"

    def prepare(self) -> None:
        """Make the folder; `Misused` where it cannot be written, or is plainly something else."""
        if any(character in str(self.path) for character in "?#%"):
            raise Misused(f"{self.path}: the database's address cannot hold a '?', '#' or '%'", hint="name another folder: `retort up DIR`")
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = {each.name for each in self.path.iterdir()}
            if found and not found & _OURS:
                raise Misused(
                    f"{self.path} holds other things ({', '.join(sorted(found)[:3])}) and was not made by `retort up`",
                    hint="name an empty or a new folder: `retort up DIR`",
                )
            for part in (self.logs, self.path / "broker", self.path / "jobs", self.path / "cache"):
                part.mkdir(exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as wrong:
            raise Misused(f"cannot write in {self.path}: {wrong.strerror or wrong}", hint="name another folder: `retort up DIR`") from wrong

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; `Misused` where another `retort up` does. The lock goes with its process, however that ends."""
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as held:
                file.seek(0)
                who = file.read().strip() or "another process"
                raise Misused(
                    f"{self.path} is already served by {who}",
                    hint="use that one (`retort ls` finds it), stop it first, or name another folder",
                ) from held
            self._sign(file, f"process {os.getpid()}")
            try:
                yield
            finally:
                file.truncate(0)

    def _sign(self, file: Any, text: str) -> None:
        file.seek(0)
        file.truncate()
        file.write(text)
        file.flush()

    def known(self) -> dict[str, Any]:
        """What service.json holds, nothing where there is none; `Misused` where a newer Retort wrote it."""
        try:
            known = json.loads(self.service.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as wrong:
            raise Misused(f"cannot use {self.service}: {wrong}", hint="move it away; a new key is made then") from wrong
        made = str(known.get("version", "0")) if isinstance(known, dict) else "0"
        if _parts(made) > _parts(__version__):
            raise Misused(
                f"{self.path} was made by Retort {made}; this is {__version__}, which would not understand it",
                hint=f"use Retort {made} or newer, or name another folder",
            )
        return known if isinstance(known, dict) else {}

    def write_service(self, *, url: str, key: str) -> None:
        """Tell the commands on this machine where the service is; only the owner can read it, from its first byte on."""
        part = self.service.with_suffix(".part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"url": url, "key": key, "version": __version__}, file)
        part.replace(self.service)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))
