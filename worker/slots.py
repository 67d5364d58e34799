"""The slots of this worker: a wake, and the worker's own look round, take one, claim, supervise, and go on to the next claim."""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable

from db import life
from db.crashpoint import crashpoint
from db.session import Unavailable
from worker.ear import Ear
from worker.supervise import Means, supervise

log = logging.getLogger(__name__)


class Slots:
    """So many jobs at the same time, and no more. A slot's number also chooses the GPU."""

    def __init__(self, means: Means) -> None:
        self.ear = Ear(means.settings.deaf)
        self.has_worked = False
        """Whether anything was ever claimed here."""
        self._means = means
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(means.settings.slots):
            self._free.put(slot)
        self._lock = threading.Lock()
        self._wakes = 0
        self._threads: set[threading.Thread] = set()

    @property
    def busy(self) -> int:
        """How many slots are taken."""
        return self._means.settings.slots - self._free.qsize()

    def wake(self) -> None:
        """Somebody rang."""
        self.ear.heard()
        self.serve()

    def serve(self, *, rung: bool = True) -> None:
        """Take a slot or return; then claim and supervise until there is nothing left to claim."""
        with self._lock:
            self._wakes += 1
        while not self._means.stopping.is_set():
            try:
                slot = self._free.get_nowait()
            except queue.Empty:
                return
            heard = self._wakes
            try:
                self._work(slot, rung=rung)
            finally:
                self._free.put(slot)
            if heard == self._wakes:  # else somebody woke us after our last claim, and found no slot
                return

    def start(self) -> None:
        """Begin to look round: now, and then every `poll` seconds. It needs no broker."""
        self._begin(self._poll, name="poll")

    def close(self, timeout: float) -> None:
        """Wait for the supervisors that no task of Celery waits for, all together for so long; `stopping` must be set."""
        deadline = time.monotonic() + timeout
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def retire(self) -> bool:
        """Take every slot for good, so that nothing is claimed any more; where one is busy, False and nothing has changed."""
        taken: list[int] = []
        try:
            for _ in range(self._means.settings.slots):
                taken.append(self._free.get_nowait())
        except queue.Empty:
            for slot in taken:
                self._free.put(slot)
            return False
        return True

    def _work(self, slot: int, *, rung: bool) -> None:
        while not self._means.stopping.is_set() and (claim := self._claim()):
            crashpoint("claim.after_commit")
            self.has_worked = True
            if not rung:
                self.ear.missed()
            rung = True  # what comes after the first job was not looked for
            self._help()  # where one job waits, more may
            supervise(self._means, claim, slot=slot)

    def _claim(self) -> life.Claim | None:
        settings = self._means.settings
        try:
            return life.claim(self._means.database, worker=self._means.home.worker, queues=settings.queues, lease=settings.lease)
        except Unavailable as error:
            log.warning("no claim, for the database is away: %s", error)
            return None

    def _poll(self) -> None:
        while not self._means.stopping.is_set():
            self._help(rung=False)
            self._means.stopping.wait(self._means.settings.poll * random.uniform(2 / 3, 4 / 3))

    def _help(self, *, rung: bool = True) -> None:
        if not self._free.empty():
            self._begin(lambda: self.serve(rung=rung), name="slot")

    def _begin(self, work: Callable[[], None], *, name: str) -> None:
        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()
