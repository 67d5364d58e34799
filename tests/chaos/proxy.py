"""A TCP proxy that fails on command: between a client and a real server it delays, holds, cuts and resets, or loses only the answer."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from tests.chaos.commits import Commits

T = TypeVar("T")

Way = Literal["up", "down"]
"""`up` are the bytes of the client, `down` those of the server."""
Mode = Literal["pass", "down", "reset", "blackhole", "latency", "limit", "drop replies"]
_CHUNK = 1 << 16
_PATIENCE = 30.0


@dataclass(slots=True, eq=False)
class _Line:
    """One client's connection, and how much of the present mode's limit each way has used."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    commits: Commits = field(default_factory=Commits)
    losing: bool = False
    passed: dict[Way, int] = field(default_factory=lambda: {"up": 0, "down": 0})

    def reset(self) -> None:
        for end in (self.client, self.server):
            _reset(end)


class Proxy:
    """Made by `proxied`. Modes are switched from any thread and hold for the connections that there are, and for new ones.

    pass            everything, at once; what a blackhole held arrives late
    down            nobody listens, and the connections are gone
    reset           connections are reset (RST), and new ones as soon as they are made
    blackhole       connections are accepted and stay; nothing is forwarded
    latency         every chunk waits `amount` seconds
    limit           a connection is reset after `amount` bytes of one way
    drop replies    the server gets and does what it is asked; then its answer is lost and the connection reset
    """

    def __init__(self, host: str, port: int) -> None:
        self.struck = 0
        self._target = (host, port)
        self._mode: tuple[Mode, float, tuple[Way, ...]] = ("pass", 0.0, ("up", "down"))
        self._strike: tuple[bytes, bool, int] = (b"", True, 0)
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        # Bound for as long as the proxy lives and never listening: while it is `down`, nobody else gets the port, not even as the
        # near end of a connection to itself.
        self._place = _bound(0)
        self.port: int = self._place.getsockname()[1]

    def url(self, original: str) -> str:
        """The same URL by way of this proxy."""
        parts = urlsplit(original)
        who = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{who}{'@' if who else ''}127.0.0.1:{self.port}").geturl()

    def switch(self, mode: Mode, amount: float = 0.0, *, way: Way | None = None) -> None:
        """From now on. `latency`, `limit` and `blackhole` may be of one way only."""
        self._do(self._switch(mode, amount, (way,) if way else ("up", "down")))

    def strike(self, where: bytes, *, times: int = 1, executed: bool = True) -> None:
        """Cut the next `times` connections of PostgreSQL at the COMMIT of a transaction that has `where` in its statements or values.

        The server executed it and its answer is lost; or, not `executed`, the COMMIT itself is. The client cannot tell which. `struck`
        counts them.
        """
        self._strike = (where, executed, times)

    def _do(self, action: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(action, self._loop).result(_PATIENCE)

    async def _switch(self, mode: Mode, amount: float, ways: tuple[Way, ...]) -> None:
        self._mode = (mode, amount, ways)
        for line in list(self._lines):
            line.passed = {"up": 0, "down": 0}
            if mode in ("down", "reset"):
                line.reset()
        if mode == "down" and self._server:
            self._server.close()
            self._server = None
        elif mode != "down" and not self._server:
            self._server = await asyncio.start_server(self._accept, sock=_bound(self.port))

    async def _accept(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            server_reader, server = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(client)
            return
        self._lines.add(line := _Line(client, server))
        if self._mode[0] in ("down", "reset"):
            line.reset()
        try:
            await asyncio.gather(self._pump(line, client_reader, server, "up"), self._pump(line, server_reader, client, "down"))
        except OSError:
            pass  # one end is gone, and so goes the other
        finally:
            line.reset()
            self._lines.discard(line)

    async def _pump(self, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        while data := await reader.read(_CHUNK):
            while (now := self._mode)[0] == "blackhole" and way in now[2]:
                await asyncio.sleep(0.01)
            mode, amount, ways = now
            if mode == "latency" and way in ways:
                await asyncio.sleep(amount)
            if mode == "limit" and way in ways:
                data = data[: max(0, int(amount) - line.passed[way])]
                line.passed[way] += len(data)
            lost = (way == "up" and self._strikes(line, data)) or (way == "down" and (line.losing or mode == "drop replies"))
            if lost:
                line.reset()
                return
            writer.write(data)
            await writer.drain()
            if mode == "limit" and line.passed[way] >= amount:
                line.reset()
                return
        if writer.can_write_eof():
            with suppress(OSError):
                writer.write_eof()

    def _strikes(self, line: _Line, data: bytes) -> bool:
        """Whether this COMMIT must not reach the server; where its answer must be lost, the line knows from now on."""
        where, executed, left = self._strike
        transactions = line.commits.read(data)
        if not left or not any(where in statements for statements in transactions):
            return False
        self._strike = (where, executed, left - 1)
        self.struck += 1
        line.losing = executed
        return not executed

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _close(self) -> None:
        await self._switch("down", 0.0, ("up", "down"))
        await asyncio.gather(*self._tasks)
        await asyncio.sleep(0)  # the transports close in the loop's next turn


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """A proxy before the server at `url`, on a thread of its own; it passes everything until it is switched."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    proxy = Proxy(parts.hostname, parts.port)
    thread = threading.Thread(target=proxy._run, name="proxy", daemon=True)
    thread.start()
    try:
        proxy.switch("pass")
        yield proxy
    finally:
        proxy._do(proxy._close())
        proxy._loop.call_soon_threadsafe(proxy._loop.stop)
        thread.join(_PATIENCE)
        proxy._loop.close()
        proxy._place.close()


def _bound(port: int) -> socket.socket:
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", port))
    return place


def _reset(end: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN: the peer sees an error, not an end."""
    if not end.transport.is_closing():
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.transport.abort()
