"""One claim from its first moment to its last: stage, start the child, listen, hold the lease, and end the job as the child ended."""

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.blobs import Directory
from core.errors import Corrupt
from core.events import Event, Phase
from db import life
from db.access import Tenant
from db.blobs import Blobs
from db.crashpoint import crashpoint
from db.places import CorruptBlob
from db.session import Database
from db.states import OF_AN_ASSET
from worker.child import Child, Ending, Spawner, environment
from worker.home import Home, mark
from worker.lease import USELESS, Ended, Lease
from worker.record import Recorder, patience
from worker.settings import Settings
from worker.settle import Settlement, shelve
from worker.stage import JobFolder, NoRoom, room, stage
from worker.verdict import Stop, Verdict, judge

log = logging.getLogger(__name__)

COMMANDS = {"distil": "run", "inspect": "inspect", "convert": "convert", "evaluate": "evaluate", "export": "export"}
"""The child's command for each kind of work."""

RESUMED = "in/checkpoint.safetensors"
"""Where a child finds the checkpoint that it is to go on from."""

_UNEXPLAINED = ("internal_error", "native_crash")
_NOTHING = 1 << 16
"""So few free bytes of a disk are none."""
_TICK = 0.05
_MEASURE = 1.0
_DRAIN = 5.0


@dataclass(frozen=True, slots=True)
class Means:
    """What every supervisor of this process works with."""

    settings: Settings
    database: Database
    spawner: Spawner
    home: Home
    cache: Directory
    stopping: threading.Event


def supervise(means: Means, claim: life.Claim, *, slot: int) -> None:
    """Work on a claim until it has ended. Raises nothing: what goes wrong goes into the job and into the log."""
    job = claim.job
    log.info("claimed job=%s fence=%d kind=%s attempt=%d", job.id, claim.fence, job.kind, job.attempt)
    try:
        try:
            with room():
                folder = means.home.folder(job.id, claim.fence)
        except NoRoom as full:
            shelve(means.settings, means.database, claim, full, stopping=means.stopping)
            return
        try:
            Supervisor(means, claim, folder, slot=slot).run()
        finally:
            folder.remove()
    except Ended as ended:
        log.warning("gave up job=%s fence=%d: %s", job.id, claim.fence, ended.stop)
    except Exception:
        log.exception("could not end job=%s fence=%d: its lease will run out", job.id, claim.fence)


class Supervisor:
    """See `supervise`. One thread does everything here; another only reads the child's output into the recorder's inbox."""

    def __init__(self, means: Means, claim: life.Claim, folder: JobFolder, *, slot: int) -> None:
        settings, database = means.settings, means.database
        self._means = means
        self._settings = settings
        self._database = database
        self._claim = claim
        self._job = claim.job
        self._checkpoint = claim.job.checkpoint
        self._folder = folder
        self._slot = slot
        self._blobs = Blobs(database, Tenant(claim.job.tenant))
        self._lease = Lease(database, claim, settings, stopping=means.stopping)
        self._recorder = Recorder(database, claim, self._lease, blobs=self._blobs, folder=folder, settings=settings)
        self._settlement = Settlement(settings, database, claim, self._lease, self._blobs, folder, self._recorder, self._tick)
        self._child: Child | None = None
        self._ticked = self._measured = time.monotonic()
        self._stop_since: float | None = None
        self._sent: set[str] = set()

    def run(self) -> None:
        """Do the work; `Ended` where the claim was lost or the database stayed away. The child is dead before the job says so."""
        ending = Ending(None, None, 0)
        try:
            try:
                with room():
                    self._prepare()
                    ending = self._watch(self._start())
                    verdict = self._judge(ending)
                    if verdict.action == "complete":
                        verdict = self._settlement.complete(ending)
                    elif verdict.action == "fall back":
                        self._fall_back(verdict.reason)
            finally:
                if self._child:
                    self._child.end()
        except Ended as ended:
            late = ended.stop == "deadline"
            verdict = Verdict("fail", "deadline", "the job used up its seconds", "/limits/seconds") if late else Verdict("yield")
        except NoRoom as full:
            log.warning("job=%s found no room: %s", self._job.id, full)
            verdict = Verdict("shelve", "storage_full", str(full)[:1000])
        except (OSError, KeyError, Corrupt, CorruptBlob) as error:
            log.warning("job=%s could not be worked on here: %r", self._job.id, error)
            reason = f"the worker could not prepare or keep the job's files: {error!r}"[:1000]
            verdict = Verdict("retry", "internal_error", reason)
        except Exception as error:
            log.exception("job=%s met a defect of the worker", self._job.id)
            verdict = Verdict("retry", "internal_error", f"the worker met a defect of its own: {error!r}"[:1000])
        if self._lease.stop in ("lost", "outage"):
            raise Ended(self._lease.stop)
        if verdict.action != "complete":
            self._settlement.hand_back(verdict, ending)

    def _prepare(self) -> None:
        settings = self._settings
        self._recorder.take(Phase("staging"))
        self._recorder.take_in(tick=self._tick)
        self._stage(self._job.inputs["blobs"])
        while self._checkpoint:
            try:
                self._stage({RESUMED: self._checkpoint["blob"]})
                break
            except (KeyError, Corrupt, CorruptBlob) as error:
                self._fall_back(f"its bytes cannot be read: {error!r}")
        rules: dict[str, Any] = {"checkpoint_seconds": settings.checkpoint, "report_seconds": settings.report}
        if self._job.kind == "convert":
            rules["convert"] = settings.convert
        self._folder.write_job(self._job.inputs["task"], {"device": self._device, "threads": settings.threads_per_job, **rules})

    def _stage(self, blobs: Mapping[str, str]) -> None:
        self._lease.insist(lambda: stage(blobs, self._blobs, self._means.cache, self._folder, tick=self._tick))

    def _fall_back(self, reason: str) -> None:
        """The checkpoint that the job was to go on from is forgotten: it goes on from the one before, or from the start."""
        bad = self._checkpoint
        if bad is None:
            raise Corrupt(f"a child that was given no checkpoint could not read it: {reason}")
        log.warning("job=%s falls back from its checkpoint at %d: %s", self._job.id, bad["done"], reason)
        now = self._lease.insist(lambda: life.fall_back(self._database, self._claim, done=bad["done"], reason=reason))
        if now is None:
            self._lease.end("lost")
            raise Ended("lost")
        self._checkpoint = now.checkpoint

    @property
    def _device(self) -> str:
        return "cuda" if self._settings.device == "cuda" and self._job.queue != "cpu" else "cpu"

    def _start(self) -> Child:
        settings, folder, on_gpu = self._settings, self._folder.path, self._device == "cuda"
        command = [*settings.child, COMMANDS[self._job.kind], str(folder), "--parent", str(os.getpid()), "--nice", str(settings.nice)]
        if settings.memory and not on_gpu:
            command += ["--memory", str(settings.memory)]
        surroundings = environment(folder, threads=settings.threads_per_job, gpu=self._slot if on_gpu else None)
        self._tick()
        crashpoint("spawn.before")
        self._child = child = self._means.spawner.start(command, folder=folder, environment=surroundings)
        mark(self._folder, child.pid)
        crashpoint("spawn.after")
        log.info("child started job=%s pid=%d", self._job.id, child.pid)
        self._recorder.heard = self._ticked = time.monotonic()
        return child

    def _watch(self, child: Child) -> Ending:
        inbox = self._recorder.inbox
        reader = threading.Thread(target=_read, args=(child, inbox.put), name=f"read-{child.pid}", daemon=True)
        reader.start()
        while (ending := child.ended()) is None:
            self._recorder.take_in(tick=self._tick)
            self._look(child)
            inbox.wait(_TICK)
        reader.join(_DRAIN)  # its group is dead, so the pipe ends; only a process that left the group could hold it open
        self._recorder.take_in(tick=self._tick)
        return ending

    def _tick(self) -> None:
        """Between two chunks of a copy; `Ended` where the copy has lost its purpose. Without a living child any stop is one at once."""
        child = self._child
        if child and child.ending is None:
            self._look(child)
        else:
            self._lease.look()
        if self._lease.stop and (child is None or self._lease.stop in USELESS):
            raise Ended(self._lease.stop)

    def _look(self, child: Child) -> None:
        """Hold the lease, hold the child to its limits, and end it step by step where it must end."""
        self._lease.look()
        now = time.monotonic()
        if now - self._ticked > self._settings.silence / 2:
            self._recorder.heard = now  # this process was frozen, or a statement hung: the child may have told much meanwhile
        self._ticked = now
        if now - self._recorder.heard > patience(self._settings.silence, self._recorder.gaps):
            self._lease.end("stalled")
        if now - self._measured > _MEASURE:
            self._measured = now
            self._folder.bound_log()
            if self._settings.memory and (child.memory() or 0) > self._settings.memory:
                self._lease.end("memory")
        if self._lease.stop:
            self._escalate(child, self._lease.stop, now)

    def _escalate(self, child: Child, stop: Stop, now: float) -> None:
        if self._stop_since is None:
            self._stop_since = now
        waited = now - self._stop_since
        grace = self._settings.cancel_grace if stop in ("cancel", "deadline", "stalled") else self._settings.grace
        if stop in ("lost", "outage", "memory") or waited >= 1.5 * grace:
            child.signal(signal.SIGKILL)
        elif stop == "stalled":
            self._once("abort", lambda: child.signal(signal.SIGABRT))  # the child's fault handler writes where every thread hangs
        elif waited >= grace:
            self._once("term", lambda: child.signal(signal.SIGTERM))
        else:
            self._once("stop", lambda: child.command("stop"))

    def _once(self, name: str, action: Callable[[], None]) -> None:
        if name not in self._sent:
            self._sent.add(name)
            action()

    def _judge(self, ending: Ending) -> Verdict:
        told = self._recorder
        finished = told.result is not None and (self._job.kind not in OF_AN_ASSET or told.inspected is not None)
        tail, memory = self._folder.tail(), self._settings.memory
        verdict = judge(ending, stop=self._lease.stop, refusal=told.refusal, finished=finished, tail=tail, memory=memory)
        if self._lease.stop == "storage" and verdict.action == "shelve":
            verdict = replace(verdict, reason=f"{verdict.reason}: {told.no_room}")
        if verdict.action == "retry" and verdict.code in _UNEXPLAINED and shutil.disk_usage(self._folder.path).free < _NOTHING:
            verdict = Verdict("shelve", "storage_full", f"the worker's disk is full, where {verdict.reason}")  # and so is its log
        log.info(
            "child ended job=%s exit=%s signal=%s rss=%d MiB: %s %s",
            self._job.id, ending.exit_code, ending.signal, ending.max_rss >> 20, verdict.action, verdict.code or "",
        )  # fmt: skip
        return verdict


def _read(child: Child, put: Callable[[Event], None]) -> None:
    for event in child.events():
        put(event)
