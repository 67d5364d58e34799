"""What a laboratory remembers: the jobs that were accepted, the processes that it started, and every fault."""

import json
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A job that the service said it took, and what must become of it."""

    id: str
    tenant: str
    steps: int | None
    """Of its curve; None where it does not tell each."""
    sha256: str | None
    """Of its student, trained without an interruption; None where nobody knows."""
    ends: frozenset[str]
    """The states in which it may be found at rest."""
    key: str | None
    """The idempotency key it was submitted with, which is also its name."""


@dataclass(eq=False, slots=True)
class Process:
    """A worker or an API that was started here."""

    name: str
    popen: subprocess.Popen[bytes]
    plain: bool
    """Started as the service starts it: nothing armed, nothing taken away."""
    frozen: bool = False

    @property
    def alive(self) -> bool:
        """Whether it runs, frozen or not."""
        return self.popen.poll() is None


@dataclass(slots=True)
class Log:
    """What was done to the service, in the order of time."""

    file: Path
    scenario: str = ""
    began: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)

    def write(self, fault: str, target: str, **more: Any) -> None:
        """Note a fault."""
        self.counts[fault] += 1
        line = {"at": round(time.monotonic() - self.began, 3), "scenario": self.scenario, "fault": fault, "target": target, **more}
        with self.file.open("a") as out:
            out.write(json.dumps(line) + "\n")
