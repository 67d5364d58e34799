"""A child's line to its supervisor: events out on a private copy of standard output, commands in on standard input, SIGTERM as "stop".

This module imports no torch: the line stands before anything heavy is loaded.
"""

import json
import os
import signal
import sys
import threading
import time
from typing import Self

from core.errors import EXIT_YIELDED, RetortError
from core.events import Event, Log, encode

_LONGEST_COMMAND = 1 << 16
_PULSE_SECONDS = 30.0


class Stopped(RetortError):
    """The supervisor asked the child to stop; whatever there was to keep is kept."""


class Wire:
    """Events go out with `tell`; `stop` and `checkpoint` are flags that commands raise, to be looked at between two pieces of work.

    While there is nothing to lose, a stop ends the process at once, wherever it is: in an import, a compilation, a long evaluation.
    `holding` says that there is something, and that the stop waits until it is kept.
    """

    def __init__(self, out: int) -> None:
        self.holding = False
        self._out = out
        self._told = time.monotonic()
        self.stop = threading.Event()
        self.checkpoint = threading.Event()

    @classmethod
    def open(cls) -> Self:
        """Take standard output for events alone: what anybody prints from now on goes to standard error. Hear commands and SIGTERM."""
        sys.stdout.flush()
        out = os.dup(1)
        os.dup2(2, 1)
        wire = cls(out)
        signal.signal(signal.SIGTERM, lambda number, frame: wire._stop())
        threading.Thread(target=wire._listen, name="commands", daemon=True).start()
        return wire

    def tell(self, event: Event) -> None:
        """Send one event, whole."""
        line = memoryview((encode(event) + "\n").encode())
        while line:
            line = line[os.write(self._out, line) :]
        self._told = time.monotonic()

    def pulse(self, doing: str) -> None:
        """A sign of life from long work that has nothing to tell, at most every half minute; and the place where a stop is seen.

        Raises Stopped where one was asked for.
        """
        if self.stop.is_set():
            raise Stopped
        if time.monotonic() - self._told > _PULSE_SECONDS:
            self.tell(Log(doing, "debug"))

    def _listen(self) -> None:
        # os.read, not sys.stdin: a daemon thread that holds the lock of a buffered stream makes the interpreter abort at its end.
        rest = b""
        while data := os.read(0, 4096):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-_LONGEST_COMMAND:]
            for line in lines:
                self.obey(line)
                if self.stop.is_set():
                    self._stop()

    def _stop(self) -> None:
        self.stop.set()
        if not self.holding:
            os._exit(EXIT_YIELDED)

    def obey(self, line: bytes) -> None:
        """Raise the flag of one command; a line that is no command is reported on standard error and changes nothing."""
        try:
            command = json.loads(line)["command"]
        except (ValueError, TypeError, LookupError, RecursionError):
            command = None
        match command:
            case "stop":
                self.stop.set()
            case "checkpoint":
                self.checkpoint.set()
            case _:
                sys.stderr.write(f"not a command: {line[:200]!r}\n")
