"""Named places where a process can be made to die, so that the laboratory meets each of them on purpose and not by luck.

RETORT_CRASH=name[:n[:kill|stop|raise]] names the place, the how-many-eth passage (1) and the way to go (kill). Without it nothing happens.
"""

import os
import signal
import threading
from collections.abc import Mapping
from typing import Literal, NoReturn, get_args

Way = Literal["kill", "stop", "raise"]

POINTS = (
    "api.after_commit",  # the job is committed, nobody was rung for it
    "api.before_reply",  # rung for, and the client does not know its id
    "claim.after_commit",
    "spawn.before",
    "spawn.after",
    "checkpoint.chunk",  # before each mebibyte of a checkpoint
    "checkpoint.before_manifest",  # the bytes are kept, the job does not know of them
    "checkpoint.after_manifest",
    "result.before",
    "result.after_commit",
    "yield.before",
    "reap.after",
    "reconcile.after_publish",  # the jobs count as announced, and nothing was rung
    "sweep.middle",  # between two batches of chunks that go
    "upload.middle",  # after each batch of an upload that is kept, before its sender hears of it
    "upload.before_ready",  # the bytes are kept, the upload does not know of them
)


class Crash(Exception):
    """What `raise` raises."""


class _Armed:
    """The one place that is armed in this process, and how often it was passed."""

    def __init__(self, asked: str) -> None:
        words = asked.split(":")
        words += ("1", "kill")[len(words) - 1 :]
        if len(words) != 3 or words[0] not in POINTS or not words[1].isdigit() or int(words[1]) < 1 or words[2] not in get_args(Way):
            _refuse(asked)
        self.name, n, self.way = words
        self._left = int(n)
        self._lock = threading.Lock()

    def passed(self) -> bool:
        """Whether this is the passage."""
        with self._lock:
            self._left -= 1
            return self._left == 0


def _refuse(asked: str) -> NoReturn:
    raise SystemExit(f"RETORT_CRASH={asked}: it is name[:n[:kill|stop|raise]], and the names are {', '.join(POINTS)}")


def _armed(environment: Mapping[str, str]) -> _Armed | None:
    asked = environment.get("RETORT_CRASH")
    return _Armed(asked) if asked else None


_ARMED = _armed(os.environ)


def crashpoint(name: str) -> None:
    """End this process here, where RETORT_CRASH asks for it."""
    if _ARMED is None or _ARMED.name != name or not _ARMED.passed():
        return
    if _ARMED.way == "raise":
        raise Crash(name)
    os.kill(os.getpid(), signal.SIGKILL if _ARMED.way == "kill" else signal.SIGSTOP)
