"""What is read, and what must be true of how it ended, for the corpus and the fuzzer alike."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import EXIT_REFUSED
from tests.hostile.reader import Outcome

MEMORY = 256 << 20
"""Bytes that a reader may take beyond what the process had before."""
SECONDS = 5.0
"""Of processor time."""
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}|Traceback|<class |<function | object at 0x|File \"")

MLP = {"family": "mlp", "input": [1, 8, 8], "classes": 10, "hidden": [16]}
TEACHER: Mapping[str, Any] = {"architecture": MLP, "normalization": {"mean": [0.3], "std": [0.4]}}


@dataclass(frozen=True, slots=True)
class Input:
    """One upload and what its uploader says of it; `asset` is what it becomes: "dataset", "teacher", "architecture" or "checkpoint"."""

    name: str
    asset: str
    data: bytes = b""
    request: Mapping[str, Any] = field(default_factory=dict)

    def lay(self, folder: Path) -> str:
        """Make its job folder; which command reads it."""
        (folder / "in").mkdir(parents=True)
        (folder / "in" / "upload").write_bytes(self.data)
        is_pickle = self.asset == "checkpoint"
        task = {
            "kind": "convert" if is_pickle else "inspect",
            "asset": "teacher" if is_pickle else self.asset,
            "request": dict(self.request),
        }
        (folder / "job.json").write_text(json.dumps({**task, "runtime": {"convert": "anyway"}} if is_pickle else task))
        return "convert" if is_pickle else "inspect"


def faults(outcome: Outcome, idle: int) -> list[str]:
    """What is wrong with how a reading ended; nothing for a result or a refusal by name. `idle` is the memory of a child without work."""
    found = list(outcome.deeds)
    if outcome.code not in (0, EXIT_REFUSED):
        found.append(f"it ended with {outcome.code}: {outcome.log[-300:]!r}")
    if outcome.code == EXIT_REFUSED:
        refusal = outcome.refusal or {}
        where, told = str(refusal.get("where", "")), f"{refusal.get('reason', '')} {refusal.get('hint', '')}"
        if not where.startswith("/") or not refusal.get("reason"):
            found.append(f"the refusal names no place or no reason: {refusal}")
        if _ADDRESS.search(told) or not told.isprintable() or len(told) > 2000:
            found.append(f"the refusal is not for people: {told[:400]!r}")
    if outcome.code == 0 and not any(event.get("event") == "result" for event in outcome.events):
        found.append("it ended well without a result")
    if outcome.peak - idle > MEMORY:
        found.append(f"it took {(outcome.peak - idle) >> 20} MiB")
    if outcome.seconds > SECONDS:
        found.append(f"it took {outcome.seconds:.1f} s of processor time")
    return found


def strays(folder: Path) -> list[str]:
    """Files in the folder above a job folder `folder`/job that no reader makes."""
    allowed = {"job", "job/in", "job/out", "job/in/upload", "job/job.json", "job/events", "job/log", "job/deeds"}
    made = {"job/out/dataset.safetensors", "job/out/preview.png", "job/out/weights.safetensors", "job/out/teacher.safetensors"}
    there = {os.path.relpath(os.path.join(above, name), folder) for above, inner, files in os.walk(folder) for name in (*inner, *files)}
    return sorted(there - allowed - made)
