"""Live histories: what happens to a job, read from the database once for all who watch it in this process."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio
import anyio.to_thread

from api.problems import Problem
from db import history, jobs
from db.access import Tenant
from db.history import Event
from db.life import Job
from db.session import Database, Unavailable
from db.states import TERMINAL

log = logging.getLogger(__name__)

_KEPT = 500
"""Events that a feed holds for its listeners; whoever is further behind reads the database for himself."""
_PAGE = 500


class Feed:
    """One job, watched: its newest events, and whether it has ended."""

    def __init__(self, job: Job) -> None:
        self.listeners = 0
        self.floor = self.head = job.event_seq
        self.state = job.state
        self.recent: deque[Event] = deque()
        self.changed = asyncio.Event()
        self.watch: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether no further event can come."""
        return self.state in TERMINAL

    def take(self, job: Job, events: list[Event]) -> None:
        """Add what is new, and wake the listeners."""
        self.recent.extend(events)
        while len(self.recent) > _KEPT:
            self.floor = self.recent.popleft().seq
        if events:
            self.head = events[-1].seq
        if self.head >= job.event_seq:
            self.state = job.state
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Feeds:
    """The watched jobs of this process; at most `most` streams of one tenant."""

    def __init__(self, database: Database, *, poll: float, most: int) -> None:
        self._database = database
        self._poll = poll
        self._most = most
        self._threads = anyio.CapacityLimiter(4)
        self._feeds: dict[str, Feed] = {}
        self._streams: Counter[str] = Counter()

    @contextmanager
    def stream(self, tenant: Tenant) -> Iterator[None]:
        """Count a stream of this tenant while it is open."""
        if self._streams[tenant.id] >= self._most:
            raise Problem(429, f"{self._most} live streams are open already", code="too_many_streams", hint="close one, or poll the job")
        self._streams[tenant.id] += 1
        try:
            yield
        finally:
            self._streams[tenant.id] -= 1

    async def follow(self, tenant: Tenant, job: Job, *, after: int) -> AsyncIterator[Event]:
        """Every event of the job from the one after `after` on, as it happens, until the job has ended."""
        feed = self._feeds.get(job.id)
        if feed is None:
            feed = self._feeds[job.id] = Feed(job)
            feed.watch = asyncio.create_task(self._watch(feed, tenant, job.id))
        feed.listeners += 1
        try:
            while True:
                changed, is_over = feed.changed, feed.is_over
                if after < feed.floor:
                    page = await self._page(tenant, job.id, after)
                else:
                    page = [event for event in feed.recent if event.seq > after]
                for event in page:
                    after = event.seq
                    yield event
                if page:
                    continue
                if is_over:
                    return
                await changed.wait()
        finally:
            feed.listeners -= 1
            if not feed.listeners and feed.watch is not None:
                feed.watch.cancel()
                self._feeds.pop(job.id, None)

    async def _watch(self, feed: Feed, tenant: Tenant, id: str) -> None:
        """Look for what is new, again and again, until the job has ended."""

        def look() -> tuple[Job, list[Event]] | None:
            job = jobs.get_job(self._database, tenant, id)
            if job is None:
                return None
            is_news = job.event_seq > feed.head
            return job, history.events(self._database, tenant, id, after=feed.head, limit=_PAGE) if is_news else []

        while not feed.is_over:
            try:
                found = await anyio.to_thread.run_sync(look, limiter=self._threads)
            except Unavailable as error:
                log.warning("a live stream waits for the database: %s", error)
            else:
                if found is not None:
                    feed.take(*found)
            if not feed.is_over:
                await asyncio.sleep(self._poll)

    async def _page(self, tenant: Tenant, id: str, after: int) -> list[Event]:
        """A page of what happened before anyone here watched; waits while the database cannot be reached."""

        def read() -> list[Event]:
            return history.events(self._database, tenant, id, after=after, limit=_PAGE)

        while True:
            try:
                return await anyio.to_thread.run_sync(read, limiter=self._threads)
            except Unavailable as error:
                log.warning("a live stream waits for the database: %s", error)
            await asyncio.sleep(self._poll)
