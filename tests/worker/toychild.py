"""A child that speaks the process contract and trains nothing: what it does, and how it dies, stands in its job.json under "toy"."""

import ctypes
import errno
import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from core.errors import EXIT_DIVERGED, EXIT_OUT_OF_MEMORY, EXIT_REFUSED, EXIT_UNRESUMABLE, EXIT_YIELDED
from core.events import Checkpointed, Evaluated, Event, Exported, File, Inspected, Log, Phase, Refusal, Result, Step, encode
from core.shim import die_with_parent

STOP = threading.Event()
SIZE = 0  # of a checkpoint, at least
ERRORS = {
    "raise": ValueError("the toy is broken on purpose"),
    "memory": MemoryError(),
    "fill": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
}
FOLDER = Path()  # a child is started in its job folder


def tell(event: Event) -> None:
    """One event."""
    os.write(1, (encode(event) + "\n").encode())


def listen() -> None:
    """Commands."""
    rest = b""
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        if any(json.loads(line)["command"] == "stop" for line in lines):
            STOP.set()


def written(name: str, content: bytes) -> File:
    """A file of this child's making."""
    path = FOLDER / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content)
    return File(path.name, name, sha256(content).hexdigest(), len(content))


def keep(done: int, weight: int = 0) -> None:
    """A checkpoint, so many bytes heavier than it need be."""
    file = written(f"checkpoint/{done:08}.safetensors", json.dumps({"done": done}).encode().ljust(SIZE) + b" " * weight)
    tell(Checkpointed(0, done, done, file.path, file.sha256, file.bytes))


def die(how: str) -> None:
    """One of the ways to go."""
    sys.stderr.write(f"the toy is about to {how}\n")
    sys.stderr.flush()
    if how in ERRORS:
        raise ERRORS[how]
    match how:
        case "segfault":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "leave":
            os._exit(0)
        case "hang":
            threading.Event().wait()
        case "hog":
            held = bytearray(os.urandom(1)) * (400 << 20)
            tell(Log(f"holding {len(held)} bytes"))
            threading.Event().wait()
        case "refuse":
            tell(Refusal("/methods/0/temperature", "a toy has no temperature", "leave it out", "incompatible_pair"))
            sys.exit(EXIT_REFUSED)
        case "starve":
            tell(Refusal("/recipe/batch_size", "out of memory", "a smaller batch", "oom_gpu"))
            sys.exit(EXIT_OUT_OF_MEMORY)
        case "diverge":
            tell(Refusal("/recipe", "the loss is not finite at step 3", "a smaller step", "diverged"))
            sys.exit(EXIT_DIVERGED)
        case "babble":
            os.write(1, b"x" * (9 << 20) + b"\nnot json\n{}\n")


def run(toy: dict[str, Any], runtime: dict[str, Any]) -> None:
    """Steps, with the checkpoints and the death that were ordered."""
    steps = int(toy.get("steps", 10))
    resumed = FOLDER / "in" / "checkpoint.safetensors"
    done = json.loads(resumed.read_text())["done"] if resumed.exists() else 0
    if done and done == toy.get("unreadable"):
        tell(Refusal("", "the checkpoint cannot be read", "", "internal_error"))
        sys.exit(EXIT_UNRESUMABLE)
    (FOLDER / "in" / "grandchild").write_text(str(subprocess.Popen(["sleep", "600"]).pid) if toy.get("grandchild") else "")
    began = done
    tell(Phase("train", 0, steps))
    while done < steps:
        if STOP.is_set() and not toy.get("deaf"):
            keep(done, toy.get("weight", 0))
            sys.exit(EXIT_YIELDED)
        if toy.get("die") and done - (began if toy.get("afresh") else 0) == toy.get("at", 3):
            die(toy["die"])
        done += 1
        tell(Step("train", 0, done // 5, done, done, steps, {"loss": 1 / done}, 10.0))
        if toy.get("every") and done % toy["every"] == 0:
            keep(done, toy.get("weight", 0))
        time.sleep(toy.get("pause", 0.0))
    tell(Evaluated(0, 1, done, "test", {"accuracy": 0.5}, {"fgsm": {"epsilon": [0.0, 0.1], "accuracy": [0.5, 0.25]}}))
    weights = written("out/export/model.safetensors", (b"weights" * 1000).ljust(toy.get("weights", 0)))
    if toy.get("lie"):
        weights = replace(weights, **toy["lie"])
    tell(Exported("safetensors", [weights], {"max_abs_diff": 0.0}))
    seen = {"environment": dict(os.environ), "arguments": sys.argv[1:], "files": sorted(path.name for path in (FOLDER / "in").iterdir())}
    tell(Result({"done": done, **seen, "runtime": runtime}))


def inspect(toy: dict[str, Any]) -> None:
    """Read the upload, and make a file of it."""
    tell(Phase("inspect"))
    if toy.get("die"):
        die(toy["die"])
    content = (FOLDER / "in" / "upload").read_bytes()
    made = {"dataset": "out/dataset.safetensors", "preview": "out/preview.png"}  # the order says nothing, the names do
    tell(
        Inspected(
            {"length": len(content)},
            [replace(written(path, f"{name} {content.decode()}".encode()), name=name) for name, path in made.items()],
        )
    )
    tell(Result({}))


def export(task: dict[str, Any]) -> None:
    """Write the student in each format, but for those that are said to differ from it."""
    tell(Phase("export"))
    student, said = (FOLDER / "in" / "student.safetensors").read_bytes(), []
    for format in task["formats"]:
        refused = task["toy"].get("refuse", {}).get(format)
        if refused is None:
            tell(Exported(format, [written(f"out/export/model.{format}", student.upper())], {"max_abs_diff": 0.0}))
        said.append({"format": format, "refused": refused, "facts": {"n": 10}})
    tell(Result({"exports": said}))


def main() -> None:
    """What `python -m core run|inspect|export DIR` is to a real child."""
    global SIZE  # noqa: PLW0603 -- one process does one job
    task = json.loads((FOLDER / "job.json").read_text())
    SIZE = task["toy"].get("size", 0)
    faulthandler.enable()
    if "--parent" in sys.argv:
        die_with_parent(int(sys.argv[sys.argv.index("--parent") + 1]))
    deaf = task["toy"].get("deaf")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else lambda *_: STOP.set())
    threading.Thread(target=listen, daemon=True).start()
    if sys.argv[1] == "run":
        run(task["toy"], task["runtime"])
    elif sys.argv[1] == "export":
        export(task)
    else:
        inspect(task["toy"])


if __name__ == "__main__":
    main()
