"""Checkpoints of one job on disk: written whole or not at all, at a steady cadence and on command, the last two kept."""

import hashlib
import time
from pathlib import Path

from core.artifacts import settle
from core.bench import Bench
from core.blobs import NO_ROOM
from core.events import Checkpointed, CheckpointFailed
from core.wire import Wire

_KEPT = 2
_SHARE = 20
"""A checkpoint is taken at most every 20 times as long as the last one took to write, so that writing costs 5 % at most."""


class Checkpoints:
    """Keeps what a bench freezes to in `folder`/checkpoint; `look` is the control point of a job.

    `seconds` apart, or as the cadence above allows; 0 means after every step. A full disk costs a checkpoint, not the job.
    """

    def __init__(self, folder: Path, wire: Wire, *, seconds: float) -> None:
        self._folder, self._wire, self._seconds = folder / "checkpoint", wire, seconds
        self._folder.mkdir(exist_ok=True)
        for stale in self._folder.glob("*.part"):
            stale.unlink()
        self._last, self._cost = time.monotonic(), 0.0
        self._bench: Bench | None = None
        self._kept: tuple[int, int] | None = None

    def keep(self, bench: Bench) -> None:
        """Between two steps: take a checkpoint where one is due or asked for. Raises Stopped, after one, where a stop was asked for."""
        self._bench = bench
        due = time.monotonic() - self._last >= (max(self._seconds, _SHARE * self._cost) if self._seconds else 0)
        if (due or self._wire.checkpoint.is_set()) and not self._wire.stop.is_set():  # a stop takes its own
            self._wire.checkpoint.clear()
            self._write(bench)
        self.look()

    def finish(self) -> None:
        """After the last step, before what follows the training: a checkpoint, so that no step is repeated whatever happens now."""
        if self._bench is not None:
            self._write(self._bench)
        self._wire.holding = self._bench is not None and self._kept != _place(self._bench)
        self.look()

    def look(self, doing: str = "working") -> None:
        """Between two pieces of other work: raises Stopped where a stop was asked for, after a checkpoint if training has begun."""
        if self._wire.stop.is_set() and self._bench is not None:
            self._write(self._bench)
        self._wire.pulse(doing)

    def _write(self, bench: Bench) -> None:
        """Unless it is kept already. A full disk costs a checkpoint."""
        if self._kept == _place(bench):
            return
        began = time.monotonic()
        frozen = bench.freeze()
        path = self._folder / f"{bench.done:08d}.safetensors"
        part = path.with_suffix(".part")
        try:
            part.write_bytes(frozen)
            settle(part, path)
        except OSError as full:
            part.unlink(missing_ok=True)
            if full.errno not in NO_ROOM:
                raise
            self._wire.tell(CheckpointFailed(bench.done, f"the worker's disk is full: {full.strerror}"))
        else:
            for old in sorted(self._folder.glob("*.safetensors"))[:-_KEPT]:
                old.unlink()
            digest = hashlib.sha256(frozen).hexdigest()
            self._wire.tell(Checkpointed(bench.fit, bench.step, bench.done, f"checkpoint/{path.name}", digest, len(frozen)))
            self._kept = _place(bench)
        self._last = time.monotonic()
        self._cost = self._last - began


def _place(bench: Bench) -> tuple[int, int]:
    """Between which two events a bench stands: each step and each evaluation moves it."""
    return bench.done, bench.told
