"""The long-lived halves of a connection: chunked answers, raw duplexes, bodies that arrive while they are read.

Owns flow control towards the handler. Made by `connection.py` for one connection each; never opens or accepts one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable

from steersman.lib.http.joining import Joining

LARGE_READ = 65536  # bytes at once, from which `look_again` is due with TLS
_READ_AHEAD = 256 * 1024  # bytes a peer may send before the handler has read them


class SlowReader(ConnectionError):
    """The peer leaves too much unread; its connection was dropped."""


def frame(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def look_again(transport: asyncio.ReadTransport) -> None:
    """aiofastnet may stop after 256 KiB and leave a rest inside OpenSSL, which no socket event announces.

    Resuming makes it look once more.
    """
    transport.pause_reading()
    transport.resume_reading()


class Outgoing:
    """What a handler writes: shared by chunked answers and duplexes. `paused` follows the transport."""

    def __init__(self, transport: asyncio.WriteTransport, limit: int, joining: Joining | None = None) -> None:
        """`joining` is where `send_soon` waits."""
        self.joining = joining
        self._transport = transport
        self._limit = limit
        self._pieces: list[bytes] = []  # that wait to be joined
        self._resumed: asyncio.Event | None = None
        self._closed = False
        self._callbacks: list[Callable[[], None]] = []

    @property
    def paused(self) -> bool:
        """Whether the transport's buffer is full."""
        return self._resumed is not None

    def pause(self) -> None:
        """The transport's buffer is full."""
        if self._resumed is None:
            self._resumed = asyncio.Event()

    def resume(self) -> None:
        """The transport's buffer has room again."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def lost(self) -> None:
        """The peer is gone, or the server drains."""
        if self._closed:
            return
        self._closed = True
        self._pieces.clear()
        self.resume()
        for callback in self._callbacks:
            callback()
        self._callbacks.clear()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the peer is gone; at once when it is already."""
        if self._closed:
            callback()
        else:
            self._callbacks.append(callback)

    def send(self, data: bytes) -> None:
        """Queue bytes. Raises ConnectionError when the peer is gone, SlowReader when it lags too far behind."""
        if self._closed:
            raise ConnectionResetError("the peer is gone")
        if self._pieces:
            data = b"".join((*self._pieces, data))
            self._pieces.clear()
        self._transport.write(data)
        if self._resumed is not None and self._transport.get_write_buffer_size() > self._limit:
            self._transport.abort()
            self.lost()
            raise SlowReader("the peer reads too slowly")

    def send_soon(self, data: bytes) -> None:
        """Queue bytes to be sent with what else comes within a moment. Raises ConnectionError when the peer is gone;
        when it lags too far behind, it is dropped, of which `on_close` tells."""
        if self._closed:
            raise ConnectionResetError("the peer is gone")
        if self.joining is None:
            self.send(data)
            return
        if not self._pieces:
            self.joining.soon(self.flush)
        self._pieces.append(data)

    def flush(self) -> None:
        """Send what waits to be joined with more."""
        if self._pieces and not self._closed:
            with contextlib.suppress(ConnectionError):
                self.send(self._pieces.pop())

    async def drain(self) -> None:
        """Wait until the buffer has room. Raises ConnectionError when the peer is gone."""
        self.flush()
        if self._resumed is not None:
            await self._resumed.wait()
        if self._closed:
            raise ConnectionResetError("the peer is gone")


class ChunkWriter:
    """A chunked answer in progress; implements `messages.Writer`."""

    def __init__(self, out: Outgoing, *, chunked: bool) -> None:
        self.out = out
        self.chunked = chunked  # False towards HTTP/1.0, which ends a body by closing and knows no `frame`
        self.on_close = out.on_close
        self.drain = out.drain

    def write(self, data: bytes) -> None:
        """Send one chunk; empty data is nothing."""
        if data:
            self.out.send(frame(data) if self.chunked else data)


class Reading:
    """Pauses and resumes a transport, never from inside its own callback: aiofastnet, paused there, keeps what it has
    already taken from the socket until more arrives, which may be never."""

    def __init__(self, transport: asyncio.ReadTransport) -> None:
        self._transport = transport
        self.paused = False  # as wanted
        self._really = False

    def pause(self) -> None:
        """Read no more, soon."""
        if not self.paused:
            self.paused = True
            asyncio.get_running_loop().call_soon(self._apply)

    def resume(self) -> None:
        """Read again."""
        if self.paused:
            self.paused = False
            asyncio.get_running_loop().call_soon(self._apply)

    def _apply(self) -> None:
        if self.paused == self._really or self._transport.is_closing():
            return
        self._really = self.paused
        if self.paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()


class Incoming:
    """Bytes as they arrive, with back-pressure; the reading side of duplexes and streamed bodies."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._error: ConnectionError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def held_back(self) -> bool:
        """Whether no more is to be read from the peer now."""
        return self._reading.paused

    def feed(self, data: bytes) -> None:
        """Bytes arrived."""
        self._chunks.append(data)
        self._size += len(data)
        if self._size > _READ_AHEAD:
            self._reading.pause()
        self._wake()

    def end(self, error: ConnectionError | None = None) -> None:
        """No more will come; `error` says that it broke off."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def whole(self) -> bytes | None:
        """All that is left to read, where it has come to its end already."""
        if not self._ended or self._error is not None:
            return None
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self._reading.resume()
        return data

    async def read(self) -> bytes:
        """Some bytes; empty at the end. Raises ConnectionError when it broke off."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self._reading.resume()
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data


class RawDuplex:
    """A connection that left HTTP behind; implements `messages.Duplex`."""

    def __init__(self, transport: asyncio.Transport, out: Outgoing, incoming: Incoming) -> None:
        self._transport = transport
        self._out = out
        self.read = incoming.read
        self.write = out.send
        self.drain = out.drain
        self.on_close = out.on_close

    def write_eof(self) -> None:
        """Half close where the transport can (TLS cannot: then the whole connection closes)."""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def close(self) -> None:
        """Flush and end."""
        self._transport.close()
