"""Bytes on their way in: one batch is received while the one before it is hashed and stored, and the sender is held back by the slowest."""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.types import Receive

from api.problems import Problem
from db.blobs import BATCH
from db.crashpoint import crashpoint
from db.places import CHUNK
from db.session import Unavailable
from db.uploads import Evicted, Upload, Writer

log = logging.getLogger(__name__)

T = TypeVar("T")
_HASHES = 256
_SPARE = 4
_SILENT = 4
"""A sender that missed so many beats is gone."""


@dataclass(frozen=True, slots=True)
class _Hashed:
    """How far a blob was hashed by this process."""

    blob: str
    bytes: int
    hasher: Any


class Receiving:
    """The uploads that are on their way in this process: `most` of them, on threads of their own.

    The digest of an unfinished upload is remembered here; another process, or this one after a restart, reads the stored bytes again.
    """

    def __init__(self, *, most: int, idle: float, beat: float) -> None:
        self._most = most
        self._active = 0
        self._threads = anyio.CapacityLimiter(3 * most)
        self._hashed: OrderedDict[str, _Hashed] = OrderedDict()
        self._spare: list[memoryview] = []
        self.idle = idle
        self.beat = beat

    def lend(self) -> memoryview:
        """Room for a batch: one that is given back, for the system would keep most of what was freed."""
        return self._spare.pop() if self._spare else memoryview(bytearray(BATCH))

    @property
    def stale(self) -> float:
        """So long after its last sign of life a sender counts as gone."""
        return _SILENT * self.beat

    async def thread(self, work: Callable[..., T], *words: Any) -> T:
        """Do it on a thread."""
        return await anyio.to_thread.run_sync(work, *words, limiter=self._threads)

    @asynccontextmanager
    async def line(self, take: Callable[[], Writer]) -> AsyncIterator["Line"]:
        """A line into the upload whose writer `take` is, until the end of the block; a Problem where it is evicted or falls silent."""
        if self._active >= self._most:
            raise Problem(503, f"{self._most} uploads are on their way already", code="too_many_uploads", hint="try again soon")
        self._active += 1
        try:
            writer = await self.thread(take)
            known = self._hashed.pop(writer.upload.id, None)
            if known is None or (known.blob, known.bytes) != (writer.blob, writer.offset):
                known = None
            hasher = known.hasher if known else hashlib.sha256() if writer.offset == 0 else None
            line = Line(self, writer, hasher)
            with anyio.CancelScope() as scope:
                watch = asyncio.create_task(line.watch(scope))
                try:
                    yield line
                except Evicted:
                    raise _evicted() from None
                finally:
                    watch.cancel()
                    with anyio.CancelScope(shield=True):
                        await self._let_go(line)
            if line.given_up:
                raise line.given_up
        finally:
            self._active -= 1

    async def _let_go(self, line: "Line") -> None:
        writer = line.writer
        self._spare = (self._spare + line.give_back())[:_SPARE]
        if line.hasher is not None and not line.is_broken:
            self._hashed[writer.upload.id] = _Hashed(writer.blob, writer.offset, line.hasher)
            while len(self._hashed) > _HASHES:
                self._hashed.popitem(last=False)
        try:
            await self.thread(writer.release)
        except Unavailable as error:
            log.warning("the upload %s counts as busy for some seconds more: %s", writer.upload.id, error)


class Line:
    """The bytes of one request, on their way into an upload."""

    def __init__(self, receiving: Receiving, writer: Writer, hasher: Any) -> None:
        self.writer = writer
        self.hasher = hasher
        self.given_up: Exception | None = None
        self.is_broken = False
        self._ending = asyncio.Event()
        self._receiving = receiving
        self._heard = self._begun = time.monotonic()
        self._batch, self._other = receiving.lend(), receiving.lend()
        self._held = 0
        self._received = writer.offset
        self._storing: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def take(self, receive: Receive) -> None:
        """Store what comes, up to the declared end; a Problem if more comes. What came before a line broke, or an error, is kept.

        The messages are read as the server gives them: this loop is what most of an upload costs, and every layer more is felt.
        """
        declared = self.writer.upload.bytes
        try:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Problem(400, "the sender hung up before all bytes came", hint="ask for the offset, and go on from there")
                self._heard = time.monotonic()
                piece, more = memoryview(message.get("body", b"")), message.get("more_body", False)
                left = declared - self._received - self._held
                rest = piece[:left]
                while rest := rest[self._fill(rest) :]:
                    await self._hand_over()
                    self._heard = time.monotonic()  # the store is no fault of the sender's
                if len(piece) > left:
                    raise Problem(422, f"more than the declared {declared} bytes came", code="length_mismatch", hint="declare a new upload")
        finally:
            with anyio.CancelScope(shield=True):  # where the store failed meanwhile, that is what is told
                await self._hand_over()
                await self._settle()

    async def finish(self) -> Upload:
        """The completed upload; a Problem if the bytes are not all there, or others than were declared."""
        upload = self.writer.upload
        if self.writer.offset != upload.bytes:
            raise Problem(
                422, f"{self.writer.offset} bytes came, declared were {upload.bytes}", code="length_mismatch", hint="send the rest",
                headers={"Upload-Offset": str(self.writer.offset)},
            )  # fmt: skip
        digest = self.hasher.hexdigest() if self.hasher else await self._receiving.thread(self.writer.digest)
        self._ending.set()
        crashpoint("upload.before_ready")
        return await self._receiving.thread(self.writer.complete, digest)

    async def watch(self, scope: anyio.CancelScope) -> None:
        """Say that the sender lives and store what it sent, however slow it is; end the block of the line once it is evicted, silent for
        too long, or cannot be stored.
        """
        beat, idle = self._receiving.beat, self._receiving.idle
        while self.given_up is None:
            await asyncio.sleep(min(beat, idle / 2))
            if self._ending.is_set():
                return
            if time.monotonic() - self._heard > idle:
                self.given_up = Problem(408, f"nothing came for {idle:g} seconds", hint="ask for the offset, and go on from there")
            try:
                if time.monotonic() - self._begun > beat:
                    await self._hand_over()
                await self._receiving.thread(self.writer.live)
            except Evicted:
                if self._ending.is_set():  # it was completed meanwhile
                    return
                self.given_up = _evicted()
            except Exception as error:
                if self.is_broken or not isinstance(error, Unavailable):
                    self.given_up = error
                else:
                    log.warning("the upload %s: %s", self.writer.upload.id, error)
        scope.cancel()

    def give_back(self) -> list[memoryview]:
        """The room for batches, unless a thread may still read it. Nothing is taken after that."""
        lent = [self._batch, self._other] if self._storing is None else []
        self._batch = self._other = memoryview(b"")
        return lent

    def _fill(self, piece: memoryview) -> int:
        """Put what fits into the batch, and say how many bytes that were: none where it is full."""
        if self._held == 0:
            self._begun = time.monotonic()
        room = BATCH - self._received % CHUNK  # batches end where a mebibyte does
        taken = min(len(piece), room - self._held)
        self._batch[self._held : self._held + taken] = piece[:taken]
        self._held += taken
        return taken

    async def _hand_over(self) -> None:
        """Let the batch be stored, once the one before it is."""
        async with self._turn:
            await self._settle()
            if self._held:
                self._storing = asyncio.create_task(self._store(self._batch[: self._held]))
                self._received += self._held
                self._batch, self._other, self._held = self._other, self._batch, 0

    async def _settle(self) -> None:
        if self._storing is not None:
            await asyncio.shield(self._storing)
            self._storing = None

    async def _store(self, data: memoryview) -> None:
        try:
            hashing = [self._receiving.thread(self.hasher.update, data)] if self.hasher else []
            await asyncio.gather(self._receiving.thread(self._append, data), *hashing)
        except BaseException:
            self.is_broken = True
            raise

    def _append(self, data: memoryview) -> None:
        self.writer.append(data)
        crashpoint("upload.middle")


def _evicted() -> Problem:
    return Problem(
        409, "another request has taken this upload over", code="upload_evicted", hint="only one may send it: ask for the offset first"
    )
