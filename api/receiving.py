"""Bytes on their way in: from the socket into the blob store, a mebibyte at a time, with the sender held back while the store writes."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio
import anyio.from_thread
import anyio.to_thread

from api.problems import Problem
from core.blobs import CHUNK, BlobStore, Digest
from db.crashpoint import crashpoint


class Receiving:
    """The uploads that are on their way in this process: one sender for each upload, and `most` in all, on threads of their own."""

    def __init__(self, *, most: int, idle: float) -> None:
        self._most = most
        self._idle = idle
        self._threads = anyio.CapacityLimiter(most)
        self._busy: set[str] = set()

    @contextmanager
    def alone(self, upload: str) -> Iterator[None]:
        """Hold the upload against a second sender."""
        if upload in self._busy:
            raise Problem(423, f"another request is sending {upload} at this moment", code="upload_busy", hint="wait until it ends")
        if len(self._busy) >= self._most:
            raise Problem(503, f"{self._most} uploads are on their way already", code="too_many_uploads", hint="try again soon")
        self._busy.add(upload)
        try:
            yield
        finally:
            self._busy.discard(upload)

    def is_busy(self, upload: str) -> bool:
        """Whether a request is sending this upload now."""
        return upload in self._busy

    async def keep(self, stream: AsyncIterator[bytes], store: BlobStore, *, length: int, sha256: str) -> Digest:
        """Store exactly `length` bytes whose digest is `sha256`; a Problem otherwise, and then nothing is kept."""

        async def mebibyte() -> bytes:
            whole = bytearray()
            while len(whole) < CHUNK:
                try:
                    with anyio.fail_after(self._idle):
                        whole += await anext(stream)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    raise Problem(408, f"nothing came for {self._idle:g} seconds", hint="send the whole file again") from None
            return bytes(whole)

        def chunks() -> Iterator[bytes]:
            hasher, received = hashlib.sha256(), 0
            while chunk := anyio.from_thread.run(mebibyte):
                received += len(chunk)
                if received > length:
                    raise _wrong_length(received, length)
                hasher.update(chunk)
                yield chunk
                crashpoint("upload.middle")
            if received != length:
                raise _wrong_length(received, length)
            if hasher.hexdigest() != sha256:
                raise Problem(
                    422,
                    f"the bytes have the sha256 {hasher.hexdigest()}, declared was {sha256}",
                    code="digest_mismatch",
                    hint="the file changed or was damaged on its way: send it again, or declare a new upload",
                )

        return await anyio.to_thread.run_sync(store.put, chunks(), limiter=self._threads)


def _wrong_length(received: int, declared: int) -> Problem:
    more = "more than " if received > declared else ""
    return Problem(
        422, f"{more}{min(received, declared)} bytes came, declared were {declared}", code="length_mismatch", hint="send the whole file"
    )
