"""What a worker does for everybody, on one thread: it says that it lives, takes back lost jobs, rings for forgotten ones, and tidies up."""

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

from celery import Celery

from db import life, wake, workers
from db.blobs import sweep
from db.crashpoint import crashpoint
from db.session import Unavailable
from worker.slots import Slots
from worker.stage import prune
from worker.supervise import Means

log = logging.getLogger(__name__)

_HOUR = 3600.0
_ABANDONED = 24 * _HOUR
"""Bytes that nobody finished writing, and nobody touched for so long, belong to a process that died."""
_DEAD = 4
"""A worker that missed so many heartbeats is not rung for."""


class Maintainer:
    """Duties, each with its own period. One that fails is logged and comes again; none ends the thread."""

    def __init__(self, means: Means, slots: Slots, app: Celery) -> None:
        settings = means.settings
        self._means = means
        self._slots = slots
        self._app = app
        self._good_since: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maintain", daemon=True)
        self._duties: dict[str, tuple[float, Callable[[], None]]] = {
            "heartbeat": (settings.renew, self._heartbeat),
            "reap": (settings.reap, self._reap),
            "reconcile": (settings.reconcile, self._reconcile),
            "expire": (settings.reap, self._expire),
            "prune": (6 * settings.reap, lambda: prune(means.cache, settings.cache)),
            "sweep": (_HOUR, self._sweep),
        }

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, timeout: float) -> None:
        """End, and say goodbye."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        try:
            workers.gone(self._means.database, self._means.home.worker)
        except Unavailable as error:
            log.warning("could not say goodbye: %s", error)

    def _run(self) -> None:
        due = dict.fromkeys(self._duties, 0.0)
        while not self._ended.wait(max(0.0, min(due.values()) - time.monotonic())):
            for name, (period, duty) in self._duties.items():
                if time.monotonic() < due[name]:
                    continue
                try:
                    duty()
                    if self._good_since is None:
                        self._good_since = time.monotonic()
                except Unavailable as error:
                    self._good_since = None  # amnesty: nobody could renew while it was away
                    log.warning("%s: the database is away: %s", name, error)
                except Exception:
                    log.exception("%s failed", name)
                due[name] = time.monotonic() + period

    def _heartbeat(self) -> None:
        settings = self._means.settings
        workers.heartbeat(
            self._means.database, id=self._means.home.worker, host=socket.gethostname(), pid=os.getpid(), queues=settings.queues,
            device=settings.device, slots=settings.slots, threads=settings.threads_per_job, busy=self._slots.busy,
        )  # fmt: skip

    def _reap(self) -> None:
        settings = self._means.settings
        since = time.monotonic() - self._good_since if self._good_since is not None else 0.0
        for job in life.reap(self._means.database, max_crashes=settings.max_crashes, since=since, lease=settings.lease):
            crashpoint("reap.after")
            log.warning("reaped job=%s state=%s: its worker is lost", job.id, job.state)

    def _reconcile(self) -> None:
        """Ring for what nobody rang for, once for each idle slot that could take it: a ring that nobody hears would lie in the broker."""
        settings = self._means.settings
        waiting = life.unpublished(self._means.database, stale=settings.stale)
        if not waiting:
            return
        crashpoint("reconcile.after_publish")
        idle: Counter[str] = Counter()
        for worker in workers.living(self._means.database, within=_DEAD * settings.renew):
            for name in worker.queues:
                idle[name] += worker.slots - worker.busy
        rings = [name for name in idle for _ in range(min(idle[name], waiting.get(name, 0) + waiting.get("any", 0)))]
        if rings:
            log.info("ringing %s for %s", ",".join(rings), dict(waiting))
            wake.ring(self._app, rings)

    def _sweep(self) -> None:
        if swept := sweep(self._means.database, older=_ABANDONED):
            log.info("swept %d blobs that nobody finished", swept)

    def _expire(self) -> None:
        for job in life.expire(self._means.database, ttl=self._means.settings.queue_ttl):
            log.warning("expired job=%s: no worker took it", job.id)
