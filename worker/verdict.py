"""How an attempt ended: from what the process left behind to one word of the list in `db/states.py`, and to what happens to the job."""

import os
import re
import signal
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import EXIT_DIVERGED, EXIT_NO_ROOM, EXIT_OUT_OF_MEMORY, EXIT_REFUSED, EXIT_UNRESUMABLE, EXIT_YIELDED
from core.events import Refusal
from db.states import CODES, Code, fault_of
from worker.child import Ending

Stop = Literal["cancel", "graceful", "pause", "shutdown", "lost", "stalled", "deadline", "memory", "outage", "storage"]
"""Why a supervisor ends a child: the user's wish (`graceful`: to cancel it once it has kept a checkpoint), the worker's own end, a lost
claim, or a limit."""

Action = Literal["complete", "fail", "retry", "yield", "shelve", "fall back"]

LINES = 50
_NEAR = 0.9
_STARVED = 2
"""A process that the system killed for want of memory may have paid for another's hunger: it is tried once more, whatever
`max_crashes` says. One that ran out by its own account, or went over its limit, would do so again, and is not tried again unchanged."""

_TOLD: dict[int | None, tuple[Action, Code]] = {
    EXIT_REFUSED: ("fail", "invalid_input"),
    EXIT_DIVERGED: ("fail", "diverged"),
    EXIT_OUT_OF_MEMORY: ("retry", "oom_host"),
    EXIT_NO_ROOM: ("shelve", "storage_full"),
    EXIT_UNRESUMABLE: ("fall back", "internal_error"),
}
"""Exit codes that come with a last word of the child, which names the code itself; else it is this one."""

_GPU_MEMORY = re.compile(r"OutOfMemoryError|CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED")
_HOST_MEMORY = re.compile(r"\bMemoryError\b|std::bad_alloc|can't allocate memory|Cannot allocate memory")
_NATIVE = re.compile(r"CUDA error|device-side assert|CUDNN_STATUS_\w+ERROR")
_DISK = re.compile(r"No space left on device")
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}

_HINTS: dict[Code, str] = {
    "oom_host": "take a smaller batch, a smaller network, or a worker with more memory",
    "oom_gpu": "take a smaller batch or a smaller network",
    "native_crash": "look at the last lines; if they name no cause, try another worker",
    "stalled": "look at the last lines: the job told nothing for too long",
    "deadline": "allow more seconds in /limits/seconds, or train less",
    "diverged": "take a smaller learning rate, or look at the data's range",
    "storage_full": "make room there: the job goes on by itself once there is some",
    "worker_lost": "something outside Retort ended the process: look at the machine's own log",
    "internal_error": "this is a defect of Retort or of its installation: the last lines say where",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to the job, and the words for it. `where` is a JSON pointer into what the user sent."""

    action: Action
    code: Code | None = None
    reason: str = ""
    where: str = ""
    hint: str = ""
    most: int | None = None
    """The crashes of this kind that are too many; None: as for any other."""

    def problem(self, tail: str) -> dict[str, Any]:
        """What the user is told, with the last lines of what the child wrote."""
        code = self.code or "internal_error"
        return {
            "code": code,
            "fault": fault_of(code),
            "where": self.where,
            "reason": self.reason,
            "hint": self.hint or _HINTS.get(code, ""),
            "lines": tail.splitlines()[-LINES:],
        }

    def max_crashes(self, most: int) -> int:
        """How many crashes of this kind are too many."""
        starved = 1 if self.code in ("oom_host", "oom_gpu") else most
        return min(most, starved if self.most is None else self.most)


def judge(ending: Ending, *, stop: Stop | None, refusal: Refusal | None, finished: bool, tail: str, memory: int | None) -> Verdict:
    """The verdict on a child that is dead.

    `stop` is why we ended it, if we did; `finished` whether its last event was a `Result` (an inspection: after an `Inspected`);
    `memory` the limit it lived under in bytes, None for that of the machine.
    """
    if ending.exit_code == 0 and finished:
        return Verdict("yield" if stop in ("cancel", "graceful") else "complete")
    if stop and (ours := _of_stop(ending, stop)):
        return ours
    return _of_code(ending, refusal, tail) if ending.signal is None else _of_signal(ending, ending.signal, tail, memory)


def _of_stop(ending: Ending, stop: Stop) -> Verdict | None:
    verdicts: dict[Stop, Verdict] = {
        "stalled": Verdict("retry", "stalled", "the job told nothing for too long and was ended"),
        "deadline": Verdict("fail", "deadline", "the job used up its seconds", "/limits/seconds"),
        "memory": Verdict("retry", "oom_host", "the job held more memory than it may and was ended"),
        "storage": Verdict("shelve", "storage_full", "what the job does could not be kept for too long"),
    }
    crashed = ending.exit_code != EXIT_YIELDED and ending.signal not in (signal.SIGTERM, signal.SIGKILL)
    if stop in ("graceful", "pause", "shutdown") and crashed:
        return None  # it ended by itself, at the same moment
    return verdicts.get(stop, Verdict("yield"))


def _of_code(ending: Ending, refusal: Refusal | None, tail: str) -> Verdict:
    if ending.exit_code == EXIT_YIELDED:
        return Verdict("yield")
    if refusal and ending.exit_code in _TOLD:
        return _told(*_TOLD[ending.exit_code], refusal)
    if named := _named_in(tail):
        full = "the worker's disk is full: " if named == "storage_full" else ""
        return Verdict(_then(named), named, full + _last_line(tail))
    if ending.exit_code == 0:
        return Verdict("retry", "internal_error", "the process ended as if all were well, but left no result")
    return Verdict("retry", "internal_error", f"the process ended with exit code {ending.exit_code}: {_last_line(tail)}")


def _of_signal(ending: Ending, number: int, tail: str, memory: int | None) -> Verdict:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if number == signal.SIGKILL and ending.max_rss >= _NEAR * (memory or _machine_memory()):
        return Verdict("retry", "oom_host", "the system ended the process for want of memory", most=_STARVED)
    if number in _CRASHES:
        named = _named_in(tail)
        return Verdict(_then(named), named or "native_crash", f"the process crashed ({name})")
    return Verdict("retry", "worker_lost", f"the process was ended from outside ({name})")


def _told(action: Action, otherwise: Code, refusal: Refusal) -> Verdict:
    code = next((code for code in CODES if code == refusal.code), otherwise)
    return Verdict(action, code, refusal.reason, refusal.where, refusal.hint)


def _then(named: Code | None) -> Action:
    """What happens to a job whose process named what ended it."""
    return "shelve" if named == "storage_full" else "retry"


def _named_in(tail: str) -> Code | None:
    for pattern, code in _NAMED:
        if pattern.search(tail[-4096:]):
            return code
    return None


_NAMED: tuple[tuple[re.Pattern[str], Code], ...] = (
    (_GPU_MEMORY, "oom_gpu"),
    (_HOST_MEMORY, "oom_host"),
    (_DISK, "storage_full"),
    (_NATIVE, "native_crash"),
)


def _last_line(tail: str) -> str:
    lines = [line for line in tail.splitlines() if line.strip()]
    return lines[-1].strip()[:500] if lines else "it wrote nothing"


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
