"""The words of a job's life: its kinds, its states, the user's wish, and the one list of codes that say how a job ended.

    submit ──▶ queued ──claim──▶ running ──complete──▶ succeeded
                 ▲ │ ▲              │ │ │ └─ permanent error, deadline ──▶ failed
                 │ │ └─ yield, reap, retry ┘ └─ crash budget spent ──▶ quarantined
          resume │ └─ pause ──▶ paused ◀── pause, then yield ── running
                 └───────────────┘        shelve, unshelve: a pause by the service, while there is no room; its code is storage_full
                                          cancel: from queued, paused, quarantined at once; from running by the supervisor ──▶ cancelled

Who moves a job out of each state: queued — a supervisor (claim), the API (pause, cancel), the maintainer (expire);
running — its supervisor, or the maintainer once the lease ran out (reap); paused — the API (resume, cancel), or the maintainer
where the service itself had paused it (unshelve);
quarantined — the API (release, cancel); succeeded, failed, cancelled — nobody, a trigger sees to it.
"""

from typing import Literal, get_args

Kind = Literal["distil", "inspect", "convert", "evaluate", "export"]
State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled", "quarantined"]
Desired = Literal["run", "pause", "cancel"]
CancelMode = Literal["graceful", "now"]
Keep = Literal["checkpoint", "nothing"]
AssetKind = Literal["teacher", "architecture", "dataset"]
Code = Literal[
    "invalid_input", "incompatible_pair", "teacher_near_chance", "oom_host", "oom_gpu", "diverged", "native_crash", "stalled",
    "worker_lost", "storage_full", "deadline", "cancelled", "no_worker", "internal_error",
]  # fmt: skip
Fault = Literal["user", "system"]
SweepState = Literal["running", "succeeded", "failed", "cancelled"]

OF_AN_ASSET: frozenset[Kind] = frozenset({"inspect", "convert"})
"""The kinds of work that decide what becomes of an asset."""
KINDS: tuple[Kind, ...] = get_args(Kind)
STATES: tuple[State, ...] = get_args(State)
CANCEL_MODES: tuple[CancelMode, ...] = get_args(CancelMode)
KEEPS: tuple[Keep, ...] = get_args(Keep)
CODES: tuple[Code, ...] = get_args(Code)
SWEEP_STATES: tuple[SweepState, ...] = get_args(SweepState)
TERMINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})

_USER: frozenset[Code] = frozenset(
    {"invalid_input", "incompatible_pair", "teacher_near_chance", "oom_host", "oom_gpu", "diverged", "deadline", "cancelled"}
)


def fault_of(code: Code) -> Fault:
    """Whose fault an ending with this code is."""
    return "user" if code in _USER else "system"
