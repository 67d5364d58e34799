"""What this worker's device does in a second, measured once by a child when the worker starts, and kept in its data folder."""

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version
from platform import node
from typing import Any

from core.events import Result
from worker.child import environment
from worker.home import mark
from worker.slots import Slots
from worker.stage import JobFolder
from worker.supervise import Means

log = logging.getLogger(__name__)

_LONGEST = 120.0
_LOOK = 0.1


class Calibrator:
    """Measures in the background; `known` is None until it is done, and where it failed: then nothing is foreseen of this worker's jobs.

    A measurement beside which a job ran says too little of the machine: it is told, and not kept for the next start.
    """

    def __init__(self, means: Means, slots: Slots) -> None:
        settings = means.settings
        self.known: Mapping[str, Any] | None = None
        self._means, self._slots = means, slots
        self._file = settings.data / f"calibration-{settings.device}-{settings.threads_per_job}.json"
        self._of = {"host": node(), "torch": version("torch"), "service": version("retort-service"), "device": settings.device}
        self._thread = threading.Thread(target=self._run, name="calibrate", daemon=True)

    def start(self) -> None:
        """Begin, unless a setting says not to."""
        if self._means.settings.calibrate:
            self._thread.start()

    def close(self, timeout: float) -> None:
        """Wait until the child is gone; `stopping` must be set."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self.known = self._kept() or self._measured()
        except Exception:  # jobs run as well without it
            log.exception("the calibration failed: no time is foreseen of this worker's jobs")

    def _kept(self) -> Mapping[str, Any] | None:
        """What an earlier start of this very service on this machine measured."""
        try:
            found = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return None
        known: Mapping[str, Any] | None = found["calibration"] if found.get("of") == self._of else None
        return known

    def _measured(self) -> Mapping[str, Any] | None:
        settings, folder = self._means.settings, JobFolder(self._means.home.path / "calibration")
        command = [
            *settings.child, "calibrate", "--device", settings.device, "--threads", str(settings.threads_per_job),
            "--parent", str(os.getpid()), "--nice", str(settings.nice),
        ]  # fmt: skip
        gpu = 0 if settings.device == "cuda" else None
        child = self._means.spawner.start(
            command, folder=folder.path, environment=environment(folder.path, threads=settings.threads_per_job, gpu=gpu)
        )
        try:
            mark(folder, child.pid)
            deadline = time.monotonic() + _LONGEST
            while (ending := child.ended()) is None:  # what it tells is one line, and waits in the pipe
                if self._means.stopping.wait(_LOOK) or time.monotonic() > deadline:
                    break
            child.end()
            told = next((event.values for event in child.events() if isinstance(event, Result)), None)
            if self._means.stopping.is_set():
                return None
            if told is None or ending is None or ending.exit_code:
                log.warning("the calibration ended as %s, and no time is foreseen of this worker's jobs: %s", ending, folder.tail())
                return None
        finally:
            child.end()
            folder.remove()
        log.info("calibrated %s", settings.device)
        if not self._slots.has_worked:
            part = self._file.with_suffix(".part")
            part.write_text(json.dumps({"of": self._of, "calibration": told}))
            part.replace(self._file)
        return told
