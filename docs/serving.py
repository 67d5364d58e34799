"""What the examples share: a service of their own that is gone at the end, and what to say when something failed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from retort import Job, RetortError
from retort.render import error
from retort.session import console


class Failed(Exception):
    """The example cannot go on; the message says why and names a log."""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, str]]:
    """The address and the key of a service whose data lie in this folder, stopped at the end."""
    log = folder.with_name("up.log")
    command = [sys.executable, "-m", "retort", "up", str(folder), "--port", "0", "--slots", "2", "--threads", "1", "--json"]
    with log.open("wb") as sink, running(command, stdout=subprocess.PIPE, log=sink) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline() or "{}")
        if "url" not in ready:
            process.wait()
            raise Failed(f"the service did not start:\n{log.read_text()[-3000:]}\nlog: {log}")
        yield ready["url"], json.loads(Path(ready["key_file"]).read_text())["key"]


@contextmanager
def running(command: list[str], *, stdout: Any, log: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone at the end: asked first, killed if it does not hear. Ctrl-C reaches it through us alone."""
    environment = {**os.environ, "RETORT_PARENT": str(os.getpid())}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=log, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(90)
        finally:  # too slow, or someone pressed Ctrl-C again: what the service started dies with it
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def succeeded(*jobs: Job) -> None:
    """Failed, with the reason, unless all jobs succeeded."""
    for job in jobs:
        if job.status != "succeeded":
            raise Failed(f"{job.id} ({job.name}) {job.status}: {job.problem.get('reason', job.raw.get('message'))}")


def played(beside: Path, example: Callable[[Path, Console], None]) -> int:
    """An example in a new folder beside others, told in words however it ends: its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    told, folder = console(), beside.resolve() / datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        example(folder, told)
    except KeyboardInterrupt:
        told.print("\ninterrupted; everything is stopped")
        return 130
    except Failed as wrong:
        told.print(f"the example failed: {wrong}\nlogs: {folder / 'service' / 'logs'}")
        return 1
    except RetortError as wrong:
        told.print(error(wrong))
        told.print(f"logs: {folder / 'service' / 'logs'}")
        return 1
    return 0
