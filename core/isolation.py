"""What a process takes from itself before it opens bytes that nobody vouches for: memory, the network, other programs.

This contains a fault in a parser; it is no sandbox: the process still reads what its user may read, and the kernel is the same one.
"""

import ctypes
import os
import platform
import re
import resource
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_FILTER, _TSYNC = 1, 1
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# socket, connect, bind, sendto, execve, execveat, ptrace, process_vm_readv, process_vm_writev, bpf, keyctl, io_uring_setup, mount, and
# fork and vfork where there are such calls; clone3 hides its flags in memory, so it is answered as by a kernel that lacks it.
_DENIED = {
    "x86_64": (41, 42, 49, 44, 59, 322, 101, 310, 311, 321, 250, 425, 165, 57, 58),
    "aarch64": (198, 203, 200, 206, 221, 281, 117, 270, 271, 280, 219, 425, 40),
}
_CLONE, _CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000
_EPERM, _ENOSYS = 1, 38
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


def leave_network() -> bool:
    """Enter a network namespace of one's own, without any way out; whether that was possible. Before any thread is started."""
    if sys.platform != "linux":
        return False
    # With a user namespace, which any user may have where the system allows it at all; a container often does not.
    return bool(ctypes.CDLL(None, use_errno=True).unshare(_NEW_USER | _NEW_NET) == 0)


def forbid_calls() -> bool:
    """No new connections, programs and processes for any thread of this process, for good; whether the kernel took the filter."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _SECCOMP:
        return False
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        return False
    program = ctypes.create_string_buffer(_program(machine))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", (len(program) - 1) // 8, ctypes.addressof(program)))
    return bool(library.syscall(_SECCOMP[machine], ctypes.c_uint(_FILTER), ctypes.c_uint(_TSYNC), head) == 0)


def _program(machine: str) -> bytes:
    """The filter as the kernel reads it: eight bytes a step; a jump skips so many steps where its test holds, else so many."""
    steps = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, _ARCH[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":  # the same calls under other numbers
        steps += [(_JUMP_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    for number in _DENIED[machine]:
        steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    steps += [(_JUMP_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    # A new thread is a clone too, and numerical libraries start some.
    steps += [(_JUMP_EQUAL, 0, 3, _CLONE[machine]), (_LOAD, 0, 0, 16), (_JUMP_SET, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    steps += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def limit_files(most: int) -> None:
    """No file that this process writes grows beyond so many bytes."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bound, hard))


@contextmanager
def bounded(more: int) -> Iterator[None]:
    """At most `more` bytes of private memory beyond what this process holds now: what asks for more meets a MemoryError, or its library's.

    Only on Linux, where the limit counts what is mapped; an operator's own limit, where it is lower, stays.
    """
    held = _held()
    if held is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = held + more
    if soft == resource.RLIM_INFINITY or wanted < soft:
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _held() -> int | None:
    """The private memory of this process as the limit counts it, in bytes; None where the system does not say."""
    status = Path(f"/proc/{os.getpid()}/status")
    found = re.search(r"^VmData:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found[1]) * 1024 if found else None
