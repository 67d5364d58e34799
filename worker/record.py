"""What a child tells: from the thread that reads it, through an inbox, into the history and the blobs."""

import logging
import statistics
import threading
import time
from collections import deque
from collections.abc import Sequence

from core.blobs import BlobStore
from core.errors import Corrupt
from core.events import Checkpointed, CheckpointFailed, Evaluated, Event, Exported, Inspected, Log, Phase, Refusal, Result, Step
from db import life
from db.crashpoint import crashpoint
from db.session import Database, Full, Unavailable
from worker.lease import USELESS, Ended, Lease
from worker.ledger import BUFFERED, POINTS, Ledger
from worker.settings import Settings
from worker.stage import JobFolder, NoRoom, Tick, keep

log = logging.getLogger(__name__)


_SHARE = 20
"""A checkpoint is stored at most every 20 times as long as the last one took to store, as the child bounds the writing of it."""
_GAPS = 50
_SLOW = 20


def patience(silence: float, gaps: Sequence[float]) -> float:
    """For how many seconds a child may tell nothing: `silence`, or 20 times the median of the latest `gaps` where its steps are long."""
    return max(silence, _SLOW * statistics.median(gaps)) if gaps else silence


class Inbox:
    """Events from the thread that reads a child to the thread that supervises it.

    Bounded, and never in the child's way: when it is full, the oldest point or log line goes. What changes a state never goes.
    """

    def __init__(self, limit: int = BUFFERED) -> None:
        self.dropped = 0
        self._changed = threading.Condition()
        self._limit = limit
        self._events: deque[Event] = deque()

    def put(self, event: Event) -> None:
        """Add an event, and wake whoever waits."""
        with self._changed:
            if len(self._events) >= self._limit:
                for place, old in enumerate(self._events):
                    if isinstance(old, Step | Log):
                        del self._events[place]
                        self.dropped += 1
                        break
            self._events.append(event)
            self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        """Until something is there, or the time is up."""
        with self._changed:
            if not self._events:
                self._changed.wait(timeout)

    def take(self) -> list[Event]:
        """All that came since the last time, in order."""
        with self._changed:
            taken = list(self._events)
            self._events.clear()
            return taken


class Recorder:
    """Everything one child told, and what of it is not written yet.

    A point is written before the checkpoint behind it is kept: a job that resumes there must not lack it.
    """

    def __init__(
        self, database: Database, claim: life.Claim, lease: Lease, *, blobs: BlobStore, folder: JobFolder, settings: Settings
    ) -> None:
        self.inbox = Inbox()
        self.heard = time.monotonic()
        self.gaps = deque[float](maxlen=_GAPS)
        self.progressed = False
        self.exports: list[Exported] = []
        self.inspected: Inspected | None = None
        self.refusal: Refusal | None = None
        self.result: Result | None = None
        self.no_room = ""
        self._database = database
        self._claim = claim
        self._lease = lease
        self._blobs = blobs
        self._folder = folder
        self._settings = settings
        self._ledger = Ledger()
        self._flushed = 0.0
        self._checkpoint: Checkpointed | None = None
        self._store_at = 0.0
        self._pause = settings.flush
        self._failing_since: float | None = None
        self._full_since: float | None = None
        self._measured: dict[str, float] = {}

    def take_in(self, *, tick: Tick) -> None:
        """Take what came, and write what is due. A database that is away only means: later."""
        if came := self.inbox.take():
            now = time.monotonic()
            self.gaps.append(now - self.heard)
            self.heard = now
        for event in came:
            self.take(event)
        now = time.monotonic()
        if any(since is not None and now - since > self._settings.storage_patience for since in (self._failing_since, self._full_since)):
            self._lease.end("storage")
        ready = self._checkpoint is not None and now >= self._store_at
        urgent = ready or self._ledger.points >= POINTS
        due = now - self._flushed >= self._settings.flush or (urgent and self._full_since is None and not self._lease.is_away)
        if self._lease.stop in USELESS or not (due and (self._ledger or ready)):
            return
        try:
            self._write()
            if ready:
                self._keep_checkpoint(tick)
        except Full as full:
            self._ledger.bound()
            if self._full_since is None:
                log.warning("job=%s goes on, and what it tells finds no room: %s", self._claim.job.id, full)
                self._full_since, self.no_room = time.monotonic(), f"the database is full: {full}"
        except Unavailable as error:
            self._lease.away(error)
            self._ledger.bound()
        except Ended as ended:
            log.info("job=%s left a checkpoint aside: %s", self._claim.job.id, ended.stop)

    def take(self, event: Event) -> None:
        """Take one event."""
        match event:
            case Log(level="debug"):
                pass  # a sign of life, which `heard` has noted
            case Phase() | Step() | Evaluated() | Log():
                self._ledger.add(event)
                if isinstance(event, Evaluated) and event.split == "validation":
                    self._measured = dict(event.values)
            case Checkpointed():
                self._checkpoint = event
            case CheckpointFailed():
                self._fail(event)
            case Exported():
                self.exports.append(event)
            case Inspected():
                self.inspected = event
            case Refusal():
                self.refusal = event
            case Result():
                self.result = event

    def finish(self, *, tick: Tick) -> None:
        """Write all that is left, however long the database is away; `Ended` where it was too long, or the claim is lost.

        A last checkpoint that finds no room is not waited for: the one before stands.
        """
        if self.inbox.dropped:
            log.warning("job=%s told too much at once: %d points were dropped", self._claim.job.id, self.inbox.dropped)
        self._lease.insist(self._write)
        if self._lease.stop not in USELESS:
            self._lease.insist(lambda: self._keep_checkpoint(tick))
            self._lease.insist(self._write)
        if self._lease.stop == "lost":
            raise Ended("lost")

    def _write(self) -> None:
        self._flushed = time.monotonic()
        if self._ledger:
            held = life.record(self._database, self._claim, self._ledger.rows())
            self._lease.back()
            self._full_since = None
            self._ledger.clear()
            if not held:
                self._lease.end("lost")

    def _keep_checkpoint(self, tick: Tick) -> None:
        """The blob first, a chunk a transaction; then one small fenced statement. That it fails does not fail the job: the next may do.

        Where there is no room it is tried again, after pauses that grow; a newer one takes its place meanwhile.
        """
        told = self._checkpoint
        if told is None or self._lease.stop in USELESS:
            return
        held, began = True, time.monotonic()

        def before_chunk() -> None:
            tick()
            crashpoint("checkpoint.chunk")

        try:
            blob = keep(self._folder.file(told.path), told.sha256, self._blobs, tick=before_chunk)
            held = life.keep_checkpoint(
                self._database, self._claim, blob=blob, done=told.done, fit=told.fit, step=told.step, values=self._measured
            )
            self.progressed = held
            self._failing_since, self._pause = None, self._settings.flush
        except (NoRoom, Full) as full:
            self._fail(CheckpointFailed(told.done, str(full)))
            self._store_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, self._settings.storage_pause)
            return
        except KeyError as gone:  # another job had the same bytes and forgot them in this moment: they are written again
            log.info("job=%s writes its checkpoint at %d again: %s was taken apart", self._claim.job.id, told.done, gone)
            return self._keep_checkpoint(tick)
        except (Corrupt, OSError) as error:
            log.warning("job=%s could not keep its checkpoint at %d: %s", self._claim.job.id, told.done, error)
            self._ledger.add(Log(f"the checkpoint at step {told.done} could not be kept: {error}", level="warning"))
        self._checkpoint = None
        self._store_at = time.monotonic() + _SHARE * (time.monotonic() - began)
        if not held:
            self._lease.end("lost")

    def _fail(self, failed: CheckpointFailed) -> None:
        """A checkpoint was not kept for want of room: the history says so, and patience begins to run out."""
        log.warning("job=%s has no checkpoint at %d: %s", self._claim.job.id, failed.done, failed.reason)
        self._ledger.add(failed)
        self.no_room = failed.reason
        if self._failing_since is None:
            self._failing_since = time.monotonic()
