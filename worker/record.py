"""What a child tells: from the thread that reads it, through an inbox, into the history and the blobs."""

import logging
import threading
import time
from collections import deque

from core.blobs import BlobStore
from core.errors import Corrupt
from core.events import Checkpointed, Evaluated, Event, Exported, Inspected, Log, Phase, Refusal, Result, Step
from db import life
from db.crashpoint import crashpoint
from db.session import Database, Unavailable
from worker.lease import USELESS, Ended, Lease
from worker.ledger import BUFFERED, POINTS, Ledger
from worker.stage import JobFolder, Tick, keep

log = logging.getLogger(__name__)


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

    def __init__(self, database: Database, claim: life.Claim, lease: Lease, *, blobs: BlobStore, folder: JobFolder, flush: float) -> None:
        self.inbox = Inbox()
        self.heard = time.monotonic()
        self.exports: list[Exported] = []
        self.inspected: Inspected | None = None
        self.refusal: Refusal | None = None
        self.result: Result | None = None
        self._database = database
        self._claim = claim
        self._lease = lease
        self._blobs = blobs
        self._folder = folder
        self._every = flush
        self._ledger = Ledger()
        self._flushed = 0.0
        self._checkpoint: Checkpointed | None = None
        self._measured: dict[str, float] = {}

    def take_in(self, *, tick: Tick) -> None:
        """Take what came, and write what is due. A database that is away only means: later."""
        for event in self.inbox.take():
            self.heard = time.monotonic()
            self.take(event)
        urgent = self._checkpoint is not None or self._ledger.points >= POINTS
        due = time.monotonic() - self._flushed >= self._every or (urgent and not self._lease.is_away)
        if self._lease.stop in USELESS or not (due and (self._ledger or self._checkpoint)):
            return
        try:
            self._write()
            self._keep_checkpoint(tick)
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
                if isinstance(event, Evaluated):
                    self._measured = dict(event.values)
            case Checkpointed():
                self._checkpoint = event
            case Exported():
                self.exports.append(event)
            case Inspected():
                self.inspected = event
            case Refusal():
                self.refusal = event
            case Result():
                self.result = event

    def finish(self, *, tick: Tick) -> None:
        """Write all that is left, however long the database is away; `Ended` where it was too long, or the claim is lost."""
        if self.inbox.dropped:
            log.warning("job=%s told too much at once: %d points were dropped", self._claim.job.id, self.inbox.dropped)
        self._lease.insist(self._write)
        if self._lease.stop not in USELESS:
            self._lease.insist(lambda: self._keep_checkpoint(tick))
        if self._lease.stop == "lost":
            raise Ended("lost")

    def _write(self) -> None:
        self._flushed = time.monotonic()
        if self._ledger:
            held = life.record(self._database, self._claim, self._ledger.rows())
            self._lease.back()
            self._ledger.clear()
            if not held:
                self._lease.end("lost")

    def _keep_checkpoint(self, tick: Tick) -> None:
        """The blob first, a chunk a transaction; then one small fenced statement. That it fails does not fail the job: the next may do."""
        told = self._checkpoint
        if told is None or self._lease.stop in USELESS:
            return
        held = True

        def before_chunk() -> None:
            tick()
            crashpoint("checkpoint.chunk")

        try:
            blob = keep(self._folder.file(told.path), told.sha256, self._blobs, tick=before_chunk)
            held = life.keep_checkpoint(
                self._database, self._claim, blob=blob, done=told.done, fit=told.fit, step=told.step, values=self._measured
            )
        except (Corrupt, OSError) as error:
            log.warning("job=%s could not keep its checkpoint at %d: %s", self._claim.job.id, told.done, error)
            self._ledger.add(Log(f"the checkpoint at step {told.done} could not be kept: {error}", level="warning"))
        self._checkpoint = None
        if not held:
            self._lease.end("lost")
