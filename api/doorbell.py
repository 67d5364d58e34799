"""The API's side of the workers' doorbell: rings after the commit, on a thread of its own, and never makes a request wait."""

import logging
import queue
import threading
from collections.abc import Iterable

from db import wake, workers
from db.session import Database, Unavailable

log = logging.getLogger(__name__)

_WAITING = 64
"""Rings that may wait while the broker is slow. More are dropped: a ring only says "try to claim", and the workers' own look-round finds
what nobody rang for."""


class Doorbell:
    """Rings the queues that a living worker listens to (a ring that nobody takes would lie in the broker for good)."""

    def __init__(self, broker_url: str, database: Database, *, timeout: float, living: float) -> None:
        self._timeout = timeout
        self._app = wake.doorbell(broker_url, socket_timeout=timeout)
        self._database = database
        self._living = living
        self._rings: queue.Queue[frozenset[str] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
        self._thread.start()

    def ring(self, queues: Iterable[str]) -> None:
        """Ask for a ring; returns at once."""
        try:
            self._rings.put_nowait(frozenset(queues))
        except queue.Full:
            log.warning("the broker is slow: a ring was dropped, the workers will find the job themselves")

    def reach(self) -> None:
        """Talk to the broker once; raises whatever its driver raises when it cannot be reached."""
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=self._timeout)

    def close(self) -> None:
        """Ring what was asked for, then stop."""
        self._rings.put(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while (queues := self._rings.get()) is not None:
            try:
                living = workers.living(self._database, within=self._living)
            except Unavailable as error:
                log.warning("no ring, for the database cannot be reached: %s", error)
                continue
            heard = {each for worker in living for each in worker.queues if each in queues or "any" in queues}
            if heard:
                wake.ring(self._app, sorted(heard))
