"""What the two transports (SPDY, WebSocket) have in common: streams of bytes inside one connection.

Owns the `ByteStream` and `Multiplex` protocols and the buffer between a connection's one reader and the many readers of
its streams. A consumer that does not read stops the connection after `_READ_AHEAD` bytes, as the original does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

_READ_AHEAD = 1024 * 1024  # bytes that a peer may send, over all streams, before anybody has read them


class ByteStream(Protocol):
    """One stream: both directions, each of which may end alone."""

    async def read(self) -> bytes:
        """Some bytes; empty at the end. Raises ConnectionError when it broke off."""
        ...

    async def write(self, data: bytes) -> None:
        """Send, waiting until the peer takes it. Raises ConnectionError when nobody will."""
        ...

    def finish(self) -> None:
        """Send no more; twice is once."""
        ...

    def reset(self) -> None:
        """End both directions at once."""
        ...

    async def broken(self) -> object:
        """Wait until the stream broke off in both directions."""
        ...


class Multiplex(Protocol):
    """A connection that carries streams."""

    async def run(self) -> None:
        """Read until the peer is gone; never raises for what a peer does."""
        ...

    async def closed(self) -> None:
        """Wait until the peer is gone."""
        ...

    async def end(self) -> None:
        """Say goodbye, and wait a little for the peer to leave, so that nothing under way is lost."""
        ...


class Flow:
    """Counts what a connection received and nobody has read."""

    def __init__(self) -> None:
        self._unread = 0
        self._room = asyncio.Event()
        self._room.set()

    def add(self, count: int) -> None:
        """Bytes arrived, or (negative) were read."""
        self._unread += count
        if self._unread > _READ_AHEAD:
            self._room.clear()
        else:
            self._room.set()

    async def room(self) -> None:
        """Wait until more may be received."""
        await self._room.wait()


class Inbox:
    """Bytes of one stream that have arrived and were not read. `used` is told how many were."""

    def __init__(self, flow: Flow, used: Callable[[int], None] | None = None) -> None:
        self._flow = flow
        self._used = used
        self._pieces: deque[bytes] = deque()
        self.ended = False
        self.broken = asyncio.Event()
        self._error: ConnectionError | None = None
        self._changed = asyncio.Event()

    def feed(self, data: bytes) -> None:
        """Bytes arrived; dropped when nobody will read them."""
        if data and not self.ended:
            self._pieces.append(data)
            self._flow.add(len(data))
            self._changed.set()

    def end(self) -> None:
        """No more will come."""
        self.ended = True
        self._changed.set()

    def fail(self, error: ConnectionError) -> None:
        """The stream broke off. What came before its proper end can still be read."""
        self.broken.set()
        if not self.ended:
            self.ended, self._error = True, error
            self.drop()

    def drop(self) -> None:
        """Forget what was not read: nobody will."""
        self.end()
        self._flow.add(-sum(map(len, self._pieces)))
        self._pieces.clear()

    async def read(self) -> bytes:
        """Some bytes; empty at the end. Raises ConnectionError when it broke off."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._flow.add(-len(data))
        if self._used is not None:
            self._used(len(data))
        return data


class IdleTimer:
    """Ends a connection on which nothing has passed for `seconds`."""

    def __init__(self, seconds: float, expired: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._expired = expired
        self._last = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._look)

    def touch(self) -> None:
        """Something passed."""
        self._last = self._loop.time()

    def _look(self) -> None:
        left = self._last + self._seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._expired()

    def cancel(self) -> None:
        """The connection is over."""
        self._timer.cancel()
