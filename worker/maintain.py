"""What a worker does for everybody, on one thread: it says that it lives, takes back lost jobs, rings for forgotten ones, and tidies up."""

import logging
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

from celery import Celery

from db import garbage, life, wake, workers
from db.blobs import has_room
from db.crashpoint import crashpoint
from db.session import Unavailable
from worker.calibrate import Calibrator
from worker.slots import Slots
from worker.stage import is_roomy, prune
from worker.supervise import Means

log = logging.getLogger(__name__)

_HOUR = 3600.0
_ABANDONED = 24 * _HOUR
"""Bytes that nobody finished writing, and nobody touched for so long, belong to a process that died."""
_DEAD = 4
"""A worker that missed so many heartbeats is not rung for."""
EXIT_DEAF = 70
"""How a worker ends that hears no ring any more: whoever keeps it running starts it again."""


class Maintainer:
    """Duties, each with its own period. One that fails is logged and comes again; none ends the thread."""

    def __init__(self, means: Means, slots: Slots, app: Celery, calibrator: Calibrator) -> None:
        settings = means.settings
        self._means = means
        self._slots = slots
        self._calibrator = calibrator
        self._app = app
        self._seen_at, self._good_since = -math.inf, math.inf
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maintain", daemon=True)
        self._duties: dict[str, tuple[float, Callable[[], None]]] = {
            "heartbeat": (settings.renew, self._heartbeat),
            "reap": (settings.reap, self._reap),
            "reconcile": (settings.reconcile, self._reconcile),
            "expire": (settings.reap, self._expire),
            "listen": (settings.poll, self._listen),
            "prune": (6 * settings.reap, lambda: prune(means.cache, settings.cache)),
            "sweep": (_HOUR, self._sweep),
            "room": (settings.storage_pause / 2, self._look_for_room),
        }

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, timeout: float) -> None:
        """End, and say goodbye."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._say_goodbye()

    def _run(self) -> None:
        due = dict.fromkeys(self._duties, 0.0)
        while not self._ended.wait(max(0.0, min(due.values()) - time.monotonic())):
            for name, (period, duty) in self._duties.items():
                if time.monotonic() < due[name]:
                    continue
                try:
                    duty()
                except Unavailable as error:
                    self._seen_at, self._good_since = -math.inf, math.inf
                    log.warning("%s: the database is away: %s", name, error)
                except Exception:
                    log.exception("%s failed", name)
                due[name] = time.monotonic() + period

    def _heartbeat(self) -> None:
        settings = self._means.settings
        workers.heartbeat(
            self._means.database, id=self._means.home.worker, host=socket.gethostname(), pid=os.getpid(), queues=settings.queues,
            device=settings.device, slots=settings.slots, threads=settings.threads_per_job, busy=self._slots.busy,
            calibration=self._calibrator.known,
        )  # fmt: skip
        now = time.monotonic()
        # The amnesty begins anew after every gap: a database that was frozen, or this process, looks like no error to anybody.
        if now - self._seen_at > max(settings.lease / 2, 2 * settings.renew):
            self._good_since = now
        self._seen_at = now

    def _reap(self) -> None:
        settings = self._means.settings
        since = min(time.monotonic() - self._good_since, life.up_for(self._means.database))
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
        """Some of everything that nothing needs: what is left comes with the next round."""
        database = self._means.database
        found = {
            "uploads that expired": garbage.expire_uploads(database),
            "jobs' checkpoints": garbage.forget_finished(database, older=self._means.settings.checkpoints_kept),
            "blobs that nothing names": garbage.collect(database, older=_ABANDONED),
            "blobs that nobody finished": garbage.sweep(database, older=_ABANDONED),
        }
        if any(found.values()):
            log.info("swept %s", ", ".join(f"{n} {what}" for what, n in found.items() if n))

    def _look_for_room(self) -> None:
        """Let the jobs go on that found none, where there is some: on this worker's disk, and in the database."""
        settings, database = self._means.settings, self._means.database
        tenant = life.shelved(database, settings.queues)
        if tenant is None:
            return
        if not is_roomy(settings.data, settings.min_free):
            prune(self._means.cache, 0)
        folders = {settings.data, *([database.file.parent] if database.file else []), *([settings.blobs] if settings.blobs else [])}
        if not all(is_roomy(folder, settings.min_free) for folder in folders) or not has_room(database, tenant):
            log.warning("there is no room yet for the jobs that wait for some")
            return
        for job in life.unshelve(database, settings.queues):
            log.info("unshelved job=%s: there is room", job.id)

    def _listen(self) -> None:
        """End this process where it hears no ring any more, while nothing runs in it."""
        means, slots = self._means, self._slots
        if means.stopping.is_set() or slots.busy or not slots.ear.is_deaf(lambda: wake.ring(self._app, means.settings.queues)):
            return
        if slots.retire():
            log.critical("this worker hears no ring, though the broker takes them: it ends with code %d, to be started again", EXIT_DEAF)
            self._say_goodbye()
            means.home.close()
            os._exit(EXIT_DEAF)  # what Celery does at its end may wait for the very consumer that hangs

    def _say_goodbye(self) -> None:
        try:
            workers.gone(self._means.database, self._means.home.worker)
        except Unavailable as error:
            log.warning("could not say goodbye: %s", error)

    def _expire(self) -> None:
        for job in life.expire(self._means.database, ttl=self._means.settings.queue_ttl):
            log.warning("expired job=%s: no worker took it", job.id)
