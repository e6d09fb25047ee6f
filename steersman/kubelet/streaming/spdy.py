"""SPDY/3.1 on a connection that left HTTP behind.

Owns the I/O around `wire.spdy`: one reader per connection, streams with back-pressure in both directions. Called by
`server` for exec, attach and port-forward; it does not know what the streams are for.
"""

from __future__ import annotations

import asyncio
from collections import deque

from steersman.kubelet.streaming.bytestream import Flow, IdleTimer, Inbox
from steersman.lib.http.messages import Duplex
from steersman.wire import spdy
from steersman.wire.spdy import ProtocolError

_GOODBYE = 5.0  # seconds for the peer to leave
_BROKEN = 1  # GOAWAY's status for a protocol error


class SpdyStream:
    """One stream; implements `bytestream.ByteStream`. `headers` are those it was opened with."""

    def __init__(self, connection: SpdyConnection, number: int, headers: spdy.Headers) -> None:
        self.number = number
        self.headers = headers
        self.inbox = Inbox(connection.flow, lambda count: connection.consumed(number, count))
        self.read = self.inbox.read
        self.broken = self.inbox.broken.wait
        self._connection = connection

    def header(self, name: str) -> str:
        """The first value of a header (lower case), or nothing."""
        return next((value for key, value in self.headers if key == name), "")

    async def write(self, data: bytes) -> None:
        """Send, waiting until the peer takes it. Raises ConnectionError when nobody will."""
        await self._connection.write(self.number, data)

    def finish(self) -> None:
        """Send no more; twice is once."""
        self._connection.finish(self.number)

    def reset(self) -> None:
        """End both directions at once."""
        self._connection.reset(self)


class SpdyConnection:
    """One connection; implements `bytestream.Multiplex`. Spawn `run`, then `accept` streams."""

    def __init__(self, duplex: Duplex, *, server: bool = True, idle_seconds: float = 4 * 3600.0) -> None:
        self.flow = Flow()
        self._duplex = duplex
        self._wire = spdy.Connection(server=server)
        self._streams: dict[int, SpdyStream] = {}
        self._opened: deque[SpdyStream] = deque()
        self._news = asyncio.Event()  # a stream was opened, or the connection is over
        self._window = asyncio.Event()
        self._over = asyncio.Event()
        self._leaving = False
        self._idle = IdleTimer(idle_seconds, duplex.close)

    async def run(self) -> None:
        """Read until the peer is gone; never raises for what a peer does."""
        try:
            while data := await self._duplex.read():
                self._idle.touch()
                for event in self._wire.receive(data):
                    self._on(event)
                self._flush()
                self._maybe_leave()
                await self.flow.room()
        except ProtocolError:
            self._wire.go_away(_BROKEN)
            self._flush()
            self._duplex.close()
        except ConnectionError:
            pass
        finally:
            self._lost()

    def _maybe_leave(self) -> None:
        """A peer that has gone away is waited for no longer than its streams last."""
        if self._leaving and not self._streams:
            self._duplex.close()

    def _lost(self) -> None:
        self._idle.cancel()
        self._over.set()
        self._news.set()
        self._window.set()
        for stream in self._streams.values():
            stream.inbox.fail(ConnectionResetError("the peer is gone"))
        self._streams.clear()

    def _on(self, event: spdy.Event) -> None:
        match event:
            case spdy.StreamOpened():
                stream = SpdyStream(self, event.stream, event.headers)
                self._streams[event.stream] = stream
                if event.fin:
                    stream.inbox.end()
                self._opened.append(stream)
                self._news.set()
            case spdy.DataReceived():
                if (found := self._streams.get(event.stream)) is not None:
                    found.inbox.feed(event.data)
                    if event.fin:
                        found.inbox.end()
                        self._forget(event.stream)
            case spdy.StreamReset():
                if (found := self._streams.pop(event.stream, None)) is not None:
                    found.inbox.fail(ConnectionResetError("the peer reset the stream"))
                self._window.set()
            case spdy.WindowOpened():
                self._window.set()
            case spdy.GoneAway():
                self._leaving = True
            case _:
                pass  # replies and pongs bear no news here

    def _forget(self, number: int) -> None:
        """Streams that ended in both directions are kept by their users alone."""
        if not self._wire.writable(number):
            self._streams.pop(number, None)

    def _flush(self) -> None:
        data = self._wire.take()
        if data and not self._over.is_set():
            try:
                self._duplex.write(data)
            except ConnectionError:
                self._duplex.close()

    async def accept(self) -> SpdyStream | None:
        """The next stream that the peer opens, or None when it is gone. Answer with `reply` or the stream's `reset`."""
        while not self._opened:
            if self._over.is_set():
                return None
            self._news.clear()
            await self._news.wait()
        return self._opened.popleft()

    def reply(self, stream: SpdyStream) -> None:
        """Accept a stream."""
        self._wire.reply(stream.number)
        self._flush()

    def open(self, headers: spdy.Headers) -> SpdyStream:
        """Open a stream, for clients."""
        stream = SpdyStream(self, self._wire.open(headers), headers)
        self._streams[stream.number] = stream
        self._flush()
        return stream

    def consumed(self, number: int, count: int) -> None:
        """Bytes of a stream have been used."""
        self._wire.consumed(number, count)
        self._flush()

    async def write(self, number: int, data: bytes) -> None:
        """Send on a stream, as the peer's windows allow. Raises ConnectionError when it takes no more."""
        while True:
            if self._over.is_set() or not self._wire.writable(number):
                raise ConnectionResetError("the stream is closed")
            data = data[self._wire.send(number, data) :]
            self._idle.touch()
            self._flush()
            await self._duplex.drain()
            if not data:
                return
            self._window.clear()
            await self._window.wait()

    def finish(self, number: int) -> None:
        """Send no more on a stream."""
        self._wire.finish(number)
        self._flush()
        stream = self._streams.get(number)
        if stream is not None and stream.inbox.ended:
            del self._streams[number]

    def reset(self, stream: SpdyStream) -> None:
        """End a stream in both directions."""
        self._streams.pop(stream.number, None)
        self._wire.reset(stream.number)
        stream.inbox.fail(ConnectionResetError("the stream was reset"))
        stream.inbox.drop()
        self._flush()

    async def closed(self) -> None:
        """Wait until the peer is gone."""
        await self._over.wait()

    async def end(self) -> None:
        """Say goodbye, and wait a little for the peer to leave, so that nothing under way is lost."""
        for number, stream in self._streams.items():
            stream.inbox.drop()
            if self._wire.writable(number):
                self._wire.reset(number)
        self._wire.go_away()
        self._flush()
        self._streams.clear()
        self._maybe_leave()
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._over.wait()
        except TimeoutError:
            self._duplex.close()
