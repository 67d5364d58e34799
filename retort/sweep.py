"""One sweep as it was when the service was last asked, and what can be done with it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from retort.connection import Connection
from retort.errors import TookTooLong
from retort.values import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A search over job specs; `status` is "running", "succeeded", "failed" or "cancelled". `raw` is the service's whole answer."""

    id: str
    name: str
    status: str
    is_terminal: bool
    raw: Mapping[str, Any] = field(repr=False)
    connection: Connection = field(repr=False, compare=False)

    @classmethod
    def of(cls, raw: Json, connection: Connection) -> "Sweep":
        """The sweep of an answer."""
        return cls(id=raw["id"], name=raw["name"], status=raw["status"], is_terminal=raw["is_terminal"], raw=raw, connection=connection)

    @property
    def progress(self) -> Mapping[str, Any]:
        """How many trials there are of each outcome; nothing for a sweep out of a list."""
        return self.raw.get("progress") or {}

    @property
    def best(self) -> Mapping[str, Any]:
        """The best trial so far: `trial`, `job`, `params`, `value`; nothing before one has completed."""
        return self.raw.get("best") or {}

    @property
    def result(self) -> Mapping[str, Any]:
        """`best`, `reruns` with fresh seeds, and `importances`, of a sweep that succeeded; else nothing."""
        return self.raw.get("result") or {}

    @property
    def problem(self) -> Mapping[str, Any]:
        """Why the sweep failed, with `code`, `reason`, `hint`; else nothing."""
        return self.raw.get("problem") or {}

    def refresh(self) -> "Sweep":
        """The sweep as it is now."""
        return Sweep.of(self.connection.request("GET", f"/v1/sweeps/{self.id}"), self.connection)

    def wait(self, *, timeout: float | None = None, interval: float = 1.0) -> "Sweep":
        """The sweep once it has ended, asked for every `interval` seconds; `TookTooLong` after `timeout` seconds, without touching it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        sweep = self.refresh()
        while not sweep.is_terminal:
            if deadline is not None and time.monotonic() > deadline:
                raise TookTooLong(f"{self.id} still runs after {timeout:g} s; it goes on")
            time.sleep(interval)
            sweep = sweep.refresh()
        return sweep

    def trials(self) -> list[Json]:
        """Every trial with `params`, `value`, `outcome` and the id of its `job`; the re-runs of the best last."""
        return list(self.connection.request("GET", f"/v1/sweeps/{self.id}/jobs")["data"])

    def cancel(self) -> "Sweep":
        """End the sweep, and with it every job of it that has not ended."""
        return Sweep.of(self.connection.act(f"/v1/sweeps/{self.id}/cancel"), self.connection)
