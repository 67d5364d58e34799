"""The process contract: `python -m core run|inspect|convert|evaluate|export DIR` works on one job folder, `python -m core methods` prints
the catalogue, or writes a page about each method, `python -m core families` prints one about networks, `python -m core calibrate` measures
the machine and prints what it does.

Events go to standard output, one line of JSON each; commands come on standard input; all else that is printed goes to standard
error. The exit code says how it ended, see `core/errors.py`; any other code than those is a crash, with its traceback on standard error.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

from core import shim
from core.blobs import NO_ROOM
from core.errors import (
    EXIT_DIVERGED,
    EXIT_NO_ROOM,
    EXIT_OUT_OF_MEMORY,
    EXIT_REFUSED,
    EXIT_UNRESUMABLE,
    EXIT_YIELDED,
    Diverged,
    Refused,
    Unresumable,
)
from core.events import Refusal, Result
from core.isolation import leave_network
from core.wire import Stopped, Wire

_COMMANDS = (
    ("run", "train, evaluate and export a student"),
    ("inspect", "look into an upload"),
    ("convert", "turn a PyTorch checkpoint into safetensors"),
    ("evaluate", "measure a teacher on a dataset"),
    ("export", "write a finished student in more formats"),
)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says and give the exit code."""
    asked = _parser().parse_args(arguments)
    if asked.command == "methods":
        return _methods(asked.pages)
    if asked.command == "families":
        return _families()
    has_network = not (asked.command == "convert" and leave_network())  # first of all, for a thread would hinder it
    if asked.parent is not None:
        shim.die_with_parent(asked.parent)
    if asked.command == "calibrate":
        return _calibrate(asked.device, asked.threads, asked.nice)
    folder: Path = asked.folder.resolve()
    try:
        task = json.loads((folder / "job.json").read_text())
    except (OSError, ValueError) as wrong:
        _parser().error(f"{folder} is no job folder: {wrong}")
    runtime = task.pop("runtime", None) or {}
    shim.limit(memory=asked.memory if runtime.get("device", "cpu") == "cpu" else None, nice=asked.nice)
    return _work(asked.command, folder, task, {**runtime, "has_network": has_network}, Wire.open())


def _work(command: str, folder: Path, task: dict[str, Any], runtime: dict[str, Any], wire: Wire) -> int:
    try:
        # Imported here: torch takes seconds, and the wire must hear a stop meanwhile.
        if command == "inspect":
            from core.inspect import inspect

            inspect(folder, task, wire)
        elif command == "convert":
            from core.convert import convert

            convert(folder, task, runtime.get("convert", "off"), wire, has_network=runtime["has_network"])
        elif command == "evaluate":
            from core.score import examine

            examine(folder, task, wire)
        else:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
            from core.runtime import Runtime

            if command == "export":
                from core.reexport import reexport as work
            else:
                from core.job import distil as work
            work(folder, task, Runtime.model_validate(runtime), wire)
    except Refused as refused:
        wire.tell(Refusal(refused.where, refused.reason, refused.hint, refused.code))
        return EXIT_REFUSED
    except Diverged as diverged:
        wire.tell(
            Refusal(
                "/recipe",
                str(diverged),
                "a smaller learning rate (a transfer fit's is its method's `lr`, else the recipe's), a warmup, or clip the gradient",
                "diverged",
            )
        )
        return EXIT_DIVERGED
    except Stopped:
        return EXIT_YIELDED
    except Exception as error:
        told = _last_word(command, error)
        if told is None:
            raise
        code, last = told
        wire.tell(last)
        return code
    return 0


def _last_word(command: str, error: Exception) -> tuple[int, Refusal] | None:
    """The exit code and the last event for what is no defect and nobody's wish; None for any other error."""
    if isinstance(error, Unresumable):
        return EXIT_UNRESUMABLE, Refusal("", str(error), "nothing: the job goes on from the checkpoint before it", "internal_error")
    if _is_full(error):  # told, and not only written to the log, which may lie on the same disk
        return EXIT_NO_ROOM, Refusal("", f"the worker's disk is full: {error}", code="storage_full")
    if code := _memory(error):
        where, hint = ("/recipe/batch_size", "a smaller batch_size, with accumulate, needs less") if command == "run" else ("/upload", "")
        return EXIT_OUT_OF_MEMORY, Refusal(
            where, f"out of memory: {str(error).splitlines()[0] if str(error) else 'nothing is left'}", hint, code
        )
    return None


def _is_full(error: Exception) -> bool:
    """Whether a disk is full, by the number or, of a library that hides it, by the words."""
    return (isinstance(error, OSError) and error.errno in NO_ROOM) or "No space left on device" in str(error)


def _memory(error: Exception) -> str | None:
    """The code of an error that says memory is used up; None for any other."""
    if isinstance(error, MemoryError):
        return "oom_host"
    if type(error).__name__ == "OutOfMemoryError":
        return "oom_gpu"
    if not isinstance(error, RuntimeError):
        return None
    # What torch's CPU allocator says is a plain RuntimeError.
    return "oom_host" if "DefaultCPUAllocator" in str(error) or "not enough memory" in str(error) else None


def _methods(folder: Path | None) -> int:
    from core.methods import catalogue
    from core.pages import pages

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages(catalogue()).items():
            (folder / name).write_text(text, encoding="utf-8")
        return 0
    listed = {name: {"reference": method.reference, "parameters": method.model_json_schema()} for name, method in catalogue().items()}
    sys.stdout.write(json.dumps(listed, indent=2) + "\n")
    return 0


def _families() -> int:
    from core.networks import families
    from core.pages import families_page

    sys.stdout.write(families_page(families()))
    return 0


def _calibrate(device: Literal["cpu", "cuda"], threads: int, nice: int) -> int:
    shim.limit(memory=None, nice=nice)
    wire = Wire.open()
    from core.calibrate import calibrate
    from core.runtime import Runtime

    wire.tell(Result(calibrate(Runtime(device=device, threads=threads)).model_dump(mode="json")))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m core", description="Retort's engine: one process, one job folder.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, does in _COMMANDS:
        command = commands.add_parser(name, help=does, description=does)
        command.add_argument("folder", type=Path, metavar="DIR", help="the job folder, with job.json and in/")
        command.add_argument("--parent", type=int, metavar="PID", help="die when this parent dies")
        command.add_argument("--memory", type=int, metavar="BYTES", help="at most this much private memory (on the CPU only)")
        command.add_argument("--nice", type=int, default=0, metavar="N", help="lower the priority")
    does = "measure the machine, and print what it does as one event"
    calibrate = commands.add_parser("calibrate", help=does, description=does)
    calibrate.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    calibrate.add_argument("--threads", type=int, default=2, metavar="N", help="of one job")
    calibrate.add_argument("--parent", type=int, metavar="PID", help="die when this parent dies")
    calibrate.add_argument("--nice", type=int, default=0, metavar="N", help="lower the priority")
    does = "print every method with the JSON schema of its parameters"
    methods = commands.add_parser("methods", help=does, description=does)
    methods.add_argument("--pages", type=Path, metavar="DIR", help="write a page about each method into this folder instead")
    does = "print a page about every family of networks and every layer of a declared one"
    commands.add_parser("families", help=does, description=does)
    return parser


if __name__ == "__main__":
    sys.exit(main())
