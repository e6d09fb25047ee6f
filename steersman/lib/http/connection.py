"""One connection of the HTTP server: requests in, answers out, in order.

Owns pipelining, keep-alive, and the hand-over to streams and upgrades; `reader.py` makes the requests. Made by
`server.py` for every connection; it never listens. A handler that answers at once is answered without a task.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from steersman.lib.http.head import BadRequest, head
from steersman.lib.http.limits import Refusal
from steersman.lib.http.messages import Answer, Peer, Request, Response, Stream, Upgrade
from steersman.lib.http.reader import RequestReader
from steersman.lib.http.streams import (
    LARGE_READ,
    ChunkWriter,
    Incoming,
    Outgoing,
    RawDuplex,
    Reading,
    SlowReader,
    look_again,
)

if TYPE_CHECKING:
    from steersman.lib.http.server import Server

log = logging.getLogger(__name__)

_BODYLESS = frozenset({204, 304})
_LINGER = 0.5  # seconds
_JOIN = 65536  # bytes: a smaller body is sent in one piece with its head
_CLOSE = "connection: close\r\n"
_TEXT = ("content-type", "text/plain; charset=utf-8")


class Connection(asyncio.Protocol):
    """A peer's requests, answered one after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._limits = server.limits
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._out: Outgoing = None  # type: ignore[assignment]
        self._reading: Reading = None  # type: ignore[assignment]
        self._peer = Peer()
        self._tls = False
        self._now = server.now()
        self._reader = RequestReader(self._limits, self._peer, self, self._now)
        self._waiting: deque[tuple[Request, str, bool, bool]] = deque()  # with version, keep-alive, upgrade
        self._busy = False  # something is being answered, and the next answer has to wait
        self._task: asyncio.Task[None] | None = None
        self._behind: bytes | None = None  # what came behind a request that asks for an upgrade
        self._incoming: Incoming | None = None  # of the duplex, after an upgrade
        self._upgraded = False
        self._streaming = False
        self._closing = False  # no more requests are read
        self._half_closed = False  # the peer sends no more, and still reads
        self._server_drains = False
        self._refusal: BadRequest | None = None  # to be sent once what is under way is done
        self._flush_deadline = 0.0  # for the peer to have read an answer; 0: none is being flushed

    # The transport's side ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new peer."""
        self._transport = transport  # type: ignore[assignment]
        self._out = Outgoing(self._transport, self._limits.write_buffer, self._server.joining)
        self._reading = Reading(self._transport)
        address = transport.get_extra_info("peername")
        self._peer.address = address[0] if isinstance(address, tuple) else ""
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is not None:
            self._tls = True
            self._peer.certificate = tls.getpeercert(True)
        if not self._server.admit(self):
            self._refuse(BadRequest(503, "too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone: whoever writes to it is told."""
        self._server.forget(self)
        self._closing = True
        self._waiting.clear()
        self._out.lost()
        self._reader.abandon(ConnectionResetError("the peer is gone"))
        if self._incoming is not None:
            self._incoming.end(None if exc is None else ConnectionResetError("the peer is gone"))
        if self._task is not None and not self._upgraded:
            self._task.cancel()

    def eof_received(self) -> bool:
        """The peer sends no more: what it asked for is still answered, where the transport can."""
        if self._upgraded and self._incoming is not None:
            self._incoming.end()
            return self._transport.can_write_eof()
        self._half_closed = True
        return self._busy and not self._streaming and self._transport.can_write_eof()

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._out.pause()

    def resume_writing(self) -> None:
        """The transport's buffer has room."""
        self._out.resume()

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        if self._tls and len(data) >= LARGE_READ and not self._transport.is_closing():
            look_again(self._transport)
        if self._incoming is not None:
            self._incoming.feed(bytes(data))
            return
        if self._behind is not None:
            self._behind += data
            return
        if self._closing:
            return
        self._now = self._server.now()
        try:
            behind = self._reader.feed(data, self._now)
        except BadRequest as refusal:
            self._refuse(refusal)
        except Exception:
            log.exception("reading a request failed")
            self._refuse(BadRequest(500, "internal error"))
        else:
            if behind is not None and self._waiting:
                self._behind = behind
                self._reading.pause()
                self._server.tasks.spawn(self._answer_upgrade(), "upgrade")

    def _refuse(self, refusal: BadRequest) -> None:
        """Answer with an error of the protocol itself, after what is under way, and close."""
        if self._transport.is_closing():
            return
        self._closing = True
        self._reader.abandon(ConnectionResetError(str(refusal)))
        if self._busy:
            self._refusal = refusal
            return
        said = self._limits.refusals.get(refusal.status)
        if said is None or (refusal.status == 408 and not self._reader.in_body):
            said = Refusal(refusal.status, _TEXT[1], str(refusal).encode("latin-1", "replace") + b"\n")
        extra = f"content-length: {len(said.body)}\r\n{_CLOSE}"
        self._transport.write(head(said.status, [("content-type", said.media)], extra) + said.body)
        # closing at once, with bytes unread, resets the connection and the answer is lost
        if self._transport.can_write_eof():
            self._transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER, self._transport.close)

    # The server's side -------------------------------------------------------------------------------------------

    def overdue(self, now: float) -> bool:
        """Whether the peer has been waited for long enough: for a request, or to read an answer."""
        if self._flush_deadline:
            return self._flush_deadline < now
        return not self._busy and self._reader.deadline < now

    def give_up(self) -> None:
        """The deadline has passed: between requests just close, within one say so."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # closing would wait for a peer that does not read
        elif self._reader.in_message:
            self._refuse(BadRequest(408, "the request took too long to arrive"))
        else:
            self._transport.close()

    def drain(self) -> None:
        """Finish what is under way, end streams, take no more requests."""
        self._server_drains = True
        if self._streaming or self._upgraded:
            self._out.lost()
        elif not self._busy and not self._reader.in_message:
            self._closing = True
            self._transport.close()

    def abort(self) -> None:
        """Cut it, whatever is under way."""
        self._out.lost()
        self._transport.abort()

    # The reader's side (`reader.Taker`) --------------------------------------------------------------------------

    def wants_stream(self, request: Request) -> Incoming | None:
        """Where the body goes as it comes, if its handler wants it so."""
        wants = self._server.streams
        return Incoming(self._reading) if wants is not None and wants(request) else None

    def invite(self) -> None:
        """Say that a body is welcome, unless an earlier answer has to go first; the peer does not wait for ever."""
        if not self._busy or self._streamed():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _streamed(self) -> bool:
        """Whether the request under way is the one whose body streams."""
        return not self._waiting and self._reader.streams

    def arrived(self, request: Request, version: str, *, keep: bool, upgrade: bool) -> None:
        """A request is there: answer it now, or when its turn comes."""
        if not self._busy and not upgrade:
            self._answer(request, version, keep)
            return
        self._waiting.append((request, version, keep, upgrade))
        if len(self._waiting) >= self._limits.pipelined:
            self._reading.pause()

    # Answering ---------------------------------------------------------------------------------------------------

    def _answer(self, request: Request, version: str, keep: bool) -> None:
        try:
            answer = self._server.handler(request)
        except Exception:
            log.exception("the handler of %s %s failed", request.method, request.path)
            answer = _FAILURE
        if isinstance(answer, Response):
            self._send(request, answer, version, keep)
            if not self._out.paused:
                return
            later = self._flush()
        else:
            later = self._later(request, answer, version, keep)
        self._busy = True
        self._task = self._server.tasks.spawn(later, request.path)

    def _next(self) -> None:
        """Answer what waits, until something has to wait itself."""
        self._busy, self._task = False, None
        if self._refusal is not None:
            self._refuse(self._refusal)
        while self._waiting and not self._busy and not self._closing:
            if self._waiting[0][3]:
                self._busy = True  # the reader stops there; `_answer_upgrade` goes on
                return
            request, version, keep, _ = self._waiting.popleft()
            self._answer(request, version, keep)
        if self._half_closed and not self._busy:
            self._transport.close()
        if not self._waiting:
            self._reading.resume()

    async def _flush(self) -> None:
        """Wait until the peer has read most of an answer, so that a thousand answers do not wait in memory."""
        self._flush_deadline = self._server.now() + self._limits.idle_seconds
        try:
            await self._out.drain()
        except ConnectionError:
            return
        self._flush_deadline = 0.0
        self._next()

    async def _later(self, request: Request, answer: Answer | Awaitable[Answer], version: str, keep: bool) -> None:
        try:
            if not isinstance(answer, Response | Stream | Upgrade):
                answer = await answer
            if isinstance(answer, Upgrade):
                raise TypeError("an upgrade that nobody asked for")
            if isinstance(answer, Stream):
                await self._stream(request, answer, version, keep)
            else:
                self._send(request, answer, version, keep)
        except (ConnectionError, asyncio.CancelledError):
            self._transport.abort()
            return
        except Exception:
            log.exception("the answer to %s %s failed", request.method, request.path)
            if self._streaming or self._upgraded:
                self._transport.abort()
                return
            self._send(request, _FAILURE, version, False)
        self._streaming = False
        self._reader.deadline = self._server.now() + self._limits.idle_seconds
        if self._out.paused:
            await self._flush()
        else:
            self._next()

    def _send(self, request: Request, answer: Response, version: str, keep: bool) -> None:
        transport, status, body = self._transport, answer.status, answer.body
        if transport.is_closing():
            return
        keep = keep and not self._server_drains
        parts = [body] if isinstance(body, bytes) else body
        length = len(body) if isinstance(body, bytes) else sum(map(len, parts))
        extra = self._server.date_line(self._now)
        if not keep or version != "1.1":
            extra += "connection: keep-alive\r\n" if keep else _CLOSE
        if status >= 200 and status not in _BODYLESS:
            extra += f"content-length: {length}\r\n"
        top = head(status, answer.headers, extra)
        if request.method == "HEAD" or status in _BODYLESS:
            transport.write(top)
        elif length < _JOIN:
            transport.write(b"".join([top, *parts]))
        else:
            transport.writelines([top, *parts])
        if not keep:
            self._closing = True
            transport.close()

    async def _stream(self, request: Request, answer: Stream, version: str, keep: bool) -> None:
        chunked = version == "1.1"
        keep = keep and chunked and not self._server_drains
        extra = self._server.date_line(self._server.now()) + ("" if keep else _CLOSE)
        self._transport.write(head(answer.status, answer.headers, extra + ("transfer-encoding: chunked\r\n" * chunked)))
        self._streaming = True
        if request.method != "HEAD":
            try:
                await answer.run(ChunkWriter(self._out, chunked=chunked))
            except SlowReader:
                return
            self._out.flush()
            if chunked and not self._transport.is_closing():
                self._transport.write(b"0\r\n\r\n")
        if not keep or self._server_drains:
            self._closing = True
            self._transport.close()

    # Upgrades ----------------------------------------------------------------------------------------------------

    async def _answer_upgrade(self) -> None:
        """Answer a request that asks for an upgrade, once those before it are answered."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
        if not self._waiting or self._transport.is_closing():
            return
        request, version, keep, _ = self._waiting.popleft()
        self._busy = True
        self._task = asyncio.current_task()
        try:
            answer = self._server.handler(request)
            if not isinstance(answer, Response | Stream | Upgrade):
                answer = await answer
        except Exception:
            log.exception("the handler of %s %s failed", request.method, request.path)
            answer = _FAILURE
        if isinstance(answer, Upgrade):
            try:
                await self._switch(answer)
            except (ConnectionError, asyncio.CancelledError):
                self._transport.abort()
            except Exception:
                log.exception("the upgrade of %s failed", request.path)
                self._transport.abort()
            return
        self._reader.restart()
        self._reading.resume()
        behind, self._behind = self._behind, None
        await self._later(request, answer, version, keep)
        if behind:
            self.data_received(behind)

    async def _switch(self, answer: Upgrade) -> None:
        self._transport.write(head(101, answer.headers, ""))
        self._incoming = Incoming(self._reading)
        self._upgraded = True
        if self._behind:
            self._incoming.feed(self._behind)
        self._reading.resume()
        try:
            await answer.run(RawDuplex(self._transport, self._out, self._incoming))
        finally:
            self._transport.close()


_FAILURE: Any = Response(500, [_TEXT], b"internal error\n")
