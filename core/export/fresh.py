"""Processes that know nothing of the training: they load what was exported, and tell what they found."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from core.export import verify

_SECONDS = 600
"""A process that needs longer is ended, and what it was loading is not offered."""
_LOOK_SECONDS = 0.05
_PASSED = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "HOME", "TMPDIR", "LANG")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is loaded: the `lines` that define `predict`, run in `folder`; `compare` whether its answers should be the student's."""

    name: str
    folder: str
    lines: str
    takes: Literal["torch", "numpy"]
    compare: bool = True


def examine(
    subjects: Sequence[Subject],
    held: Path,
    scratch: Path,
    *,
    threads: int,
    present: Sequence[int] | None,
    look: Callable[[str], None],
) -> dict[str, Mapping[str, Any]]:
    """What was found of each subject by its name; {"error": "..."} of one that could not be loaded, whatever it did to its process.

    One process for those that PyTorch runs and one for the others; where one ends early, what it was at is at fault, and another goes on
    with the rest. `look` is called while they work, and what it raises ends them. They get no credentials, no GPU and `threads` threads.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for kind in ("torch", "numpy"):
        waiting = [subject for subject in subjects if subject.takes == kind]
        while waiting:
            request = {"held": str(held), "threads": threads, "present": present, "seconds": _SECONDS}
            ending = _run({**request, "subjects": [asdict(subject) for subject in waiting]}, scratch, look)
            for answer in _told(scratch):
                found[answer["name"]] = answer["found"] if "found" in answer else {"error": answer["error"]}
            waiting = [subject for subject in waiting if subject.name not in found]
            if waiting:
                found[waiting.pop(0).name] = {"error": ending}
    return found


def _run(request: Mapping[str, Any], scratch: Path, look: Callable[[str], None]) -> str:
    """How a process that works on a request ended, in words."""
    told = scratch / "told.jsonl"
    told.unlink(missing_ok=True)
    asked = scratch / "request.json"
    asked.write_text(json.dumps({**request, "told": str(told)}))
    many = str(request["threads"])
    surroundings = {name: os.environ[name] for name in _PASSED if name in os.environ}
    surroundings |= {"OMP_NUM_THREADS": many, "MKL_NUM_THREADS": many, "OPENBLAS_NUM_THREADS": many, "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        [sys.executable, "-I", "-B", str(Path(verify.__file__)), str(asked)],
        stdin=subprocess.DEVNULL,
        stdout=2,  # where the lines print, nobody listens for events
        stderr=2,
        cwd=scratch,
        env=surroundings,
    ) as process:
        try:
            while True:
                try:
                    code = process.wait(_LOOK_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    look("verifying the exports")
        except BaseException:
            process.kill()
            raise
    if code == -signal.SIGALRM:
        return f"the process that loaded it needed more than {_SECONDS} seconds"
    return f"the process that loaded it was ended by signal {-code}" if code < 0 else f"the process that loaded it ended with code {code}"


def _told(scratch: Path) -> Iterator[dict[str, Any]]:
    told = scratch / "told.jsonl"
    for line in told.read_text().splitlines() if told.exists() else ():
        yield json.loads(line)
