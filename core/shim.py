"""The first thing that a child runs: it ties its life to its parent's and limits itself, before anything heavy is imported.

This module imports no torch: the worker reads it.
"""

import ctypes
import faulthandler
import os
import resource
import sys
import threading
import time

from core.errors import EXIT_ORPHANED

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_SIGKILL = 9
_POLL_SECONDS = 1.0


def die_with_parent(pid: int) -> None:
    """End this process when its parent `pid` ends: by the kernel's signal on Linux, by polling elsewhere.

    The signal is bound to the parent's thread that made this process. A parent that is gone already ends the process now, with
    EXIT_ORPHANED. `pid` is compared, not 1: a subreaper may have adopted us.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    else:
        threading.Thread(target=_poll, args=(pid,), name="parent", daemon=True).start()
    if os.getppid() != pid:
        os._exit(EXIT_ORPHANED)


def limit(*, memory: int | None, nice: int) -> None:
    """No core files, few open files, no new privileges, a lower priority, and at most `memory` bytes of private data (None: no limit).

    The limit is on data, not on address space: a memory-mapped dataset costs nothing. CUDA reserves far more than it uses, so there it
    is None.
    """
    faulthandler.enable()
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, 512)
    if memory is not None:
        _lower(resource.RLIMIT_DATA, memory)
    if sys.platform == "linux":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if nice:
        os.nice(nice)


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (bound, bound))


def _prctl(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"prctl({option})")


def _poll(pid: int) -> None:
    while os.getppid() == pid:
        time.sleep(_POLL_SECONDS)
    os._exit(EXIT_ORPHANED)
