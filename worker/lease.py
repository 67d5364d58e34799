"""Holding a claim: renewing it, reading the user's wish, and bearing a database that is away for a while."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from db import life
from db.session import Database, Full, Unavailable
from worker.settings import Settings
from worker.verdict import Stop

log = logging.getLogger(__name__)

T = TypeVar("T")

_PAUSE = 0.5

USELESS: frozenset[Stop] = frozenset({"cancel", "lost", "outage"})
"""Stops after which nothing that the child made is worth keeping."""


class Ended(Exception):
    """What was going on has no purpose any more, for this reason."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop)
        self.stop: Stop = stop


class Lease:
    """One claim, as long as it is held. `stop` says why the job must end, once it must.

    A lost claim outweighs everything: nothing may be written under it. A cancel outweighs the gentler stops, for it has nothing to save.
    """

    def __init__(self, database: Database, claim: life.Claim, settings: Settings, *, stopping: threading.Event) -> None:
        self.stop: Stop | None = None
        self._database = database
        self._claim = claim
        self._settings = settings
        self._stopping = stopping
        self._renew_at = time.monotonic() + settings.renew
        self._wish_at = time.monotonic() + settings.wish
        self._away_since: float | None = None

    def look(self) -> None:
        """Renew the lease or read the wish where it is time to; quick, and asked for again and again."""
        now = time.monotonic()
        if now >= self._renew_at:
            self._renew_at, self._wish_at = now + self._settings.renew, now + self._settings.wish
            self._ask(lambda: life.renew(self._database, self._claim, lease=self._settings.lease))
        elif now >= self._wish_at:
            self._wish_at = now + self._settings.wish
            self._ask(lambda: life.wish(self._database, self._claim))
        if self._stopping.is_set():
            self.end("shutdown")
        if self._away_since is not None and now - self._away_since > self._settings.outage:
            self.end("outage")

    def end(self, stop: Stop) -> None:
        """The job must end, for this reason; the first reason stays, unless the new one outweighs it."""
        if self.stop is None or stop == "lost" or (stop == "cancel" and self.stop in ("graceful", "pause", "shutdown", "storage")):
            if stop != self.stop:
                log.info("ending job=%s fence=%d: %s", self._claim.job.id, self._claim.fence, stop)
            self.stop = stop

    @property
    def is_away(self) -> bool:
        """Whether the database did not answer when it was asked last."""
        return self._away_since is not None

    def away(self, error: Unavailable) -> None:
        """The database did not answer. The job goes on: the fence protects its row, whoever holds it meanwhile."""
        if self._away_since is None:
            log.warning("the database is away, job=%s goes on: %s", self._claim.job.id, error)
            self._away_since = time.monotonic()

    def back(self) -> None:
        """The database answered."""
        if self._away_since is not None:
            log.info("the database is back after %.1f s, job=%s", time.monotonic() - self._away_since, self._claim.job.id)
            self._away_since = None

    def insist(self, action: Callable[[], T]) -> T:
        """Do it, again and again while the database is away or full; `Ended` once it was away for too long, or this worker has to go.

        A full one is waited for without end: there is nothing better to do, and no other worker could write more. It takes a renewal,
        which replaces what is there, sooner than what is to be added: the claim is held meanwhile.
        """
        since: float | None = None
        while True:
            try:
                done = action()
            except Unavailable as error:
                if since is None and isinstance(error, Full):
                    log.warning("the database is full, job=%s waits: %s", self._claim.job.id, error)
                since = since or self._away_since or time.monotonic()
                if isinstance(error, Full):
                    self.look()
                else:
                    self.away(error)
                bounded = self._stopping.is_set() or not isinstance(error, Full)
                patience = self._settings.grace if self._stopping.is_set() else self._settings.outage
                if bounded and time.monotonic() - since > patience:
                    raise Ended("outage") from error
                time.sleep(min(_PAUSE, self._settings.wish))
            else:
                self.back()
                return done

    def _ask(self, question: Callable[[], life.Renewal | None]) -> None:
        try:
            answer = question()
        except Full as error:  # no outage: whoever writes next sees how long it lasts
            log.warning("the lease of job=%s could not be renewed: %s", self._claim.job.id, error)
            return
        except Unavailable as error:
            self.away(error)
            return
        self.back()
        if answer is None:
            self.end("lost")
        elif answer.desired != "run":
            self.end("graceful" if answer.graceful else answer.desired)
        elif answer.deadline_passed:
            self.end("deadline")
