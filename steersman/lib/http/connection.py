"""One connection of the HTTP server: bytes to requests, answers to bytes, in order.

Owns parsing (httptools), pipelining, keep-alive, limits and the hand-over to streams and upgrades. Made by `server.py`
for every connection; it never listens. A handler that answers at once is answered without a task.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import httptools

from steersman.lib.http.head import BadRequest, check_framing, check_header, head
from steersman.lib.http.messages import Answer, Peer, Request, Response, Stream, Upgrade
from steersman.lib.http.streams import ChunkWriter, Incoming, Outgoing, RawDuplex, SlowReader

if TYPE_CHECKING:
    from steersman.lib.http.server import Server

log = logging.getLogger(__name__)

_BODYLESS = frozenset({204, 304})
_LINGER = 0.5  # seconds
_KEEP, _CLOSE = "", "connection: close\r\n"


class Connection(asyncio.Protocol):
    """A peer's requests, answered one after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._limits = server.limits
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._out: Outgoing = None  # type: ignore[assignment]
        self._peer = Peer()
        self._waiting: deque[tuple[Request, bool, str, bool]] = deque()  # with keep-alive, version, upgrade
        self._busy = False
        self._task: asyncio.Task[None] | None = None
        self._incoming: Incoming | None = None  # a streamed body, or the duplex after an upgrade
        self._upgraded = False
        self._closing = False
        self._paused = False
        self._streaming = False
        self._server_drains = False
        self.deadline = server.now() + self._limits.head_seconds
        self._begin()

    def _begin(self) -> None:
        """Forget the request that was read."""
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._expected: int | None = 0
        self._in_message = False

    # The transport's side ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new peer."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._out = Outgoing(self._transport, self._limits.write_buffer)
        address = transport.get_extra_info("peername")
        self._peer.address = address[0] if isinstance(address, tuple) else ""
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is not None:
            self._peer.certificate = tls.getpeercert(True)
        if not self._server.admit(self):
            self._refuse(503, "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone: whoever writes to it is told."""
        self._server.forget(self)
        self._closing = True
        self._waiting.clear()
        self._out.lost()
        if self._incoming is not None:
            self._incoming.end(None if self._upgraded and exc is None else ConnectionResetError("the peer is gone"))
        if self._task is not None and not self._upgraded:
            self._task.cancel()

    def eof_received(self) -> bool:
        """The peer sends no more; a duplex may go on writing."""
        if self._upgraded and self._incoming is not None:
            self._incoming.end()
            return self._transport.can_write_eof()
        return False

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._out.pause()

    def resume_writing(self) -> None:
        """The transport's buffer has room."""
        self._out.resume()

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        if self._upgraded and self._incoming is not None:
            self._incoming.feed(bytes(data))
            return
        if self._closing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switch:
            self._after_upgrade_request(bytes(data[switch.args[0] :]))
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, BadRequest):
                log.error("a parser callback failed", exc_info=cause)
                cause = BadRequest(500, "internal error")
            self._refuse(cause.status, str(cause))
        except httptools.HttpParserError as error:
            self._refuse(400, str(error) or "malformed request")

    def _refuse(self, status: int, reason: str) -> None:
        """Answer with an error of the protocol itself, after what is under way, and close."""
        if self._closing or self._transport.is_closing():
            return
        self._closing = True
        if self._incoming is not None:
            self._incoming.end(ConnectionResetError(reason))
        if not self._busy:
            body = reason.encode("latin-1", "replace") + b"\n"
            extra = f"content-length: {len(body)}\r\n{_CLOSE}"
            self._transport.write(head(status, [("content-type", "text/plain; charset=utf-8")], extra) + body)
        self._linger()

    def _linger(self) -> None:
        """Close a little later: closing at once with unread bytes resets the connection and the answer is lost."""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER, self._transport.close)

    def give_up(self) -> None:
        """The deadline has passed: between requests just close, within one say so."""
        if self._in_message and not self._busy:
            self._refuse(408, "the request took too long to arrive")
        else:
            self._transport.close()

    def drain(self) -> None:
        """Finish what is under way, end streams, take no more requests."""
        if self._streaming or self._upgraded:
            self._out.lost()
        elif not self._busy and not self._in_message:
            self._transport.close()
        self._closing = self._closing or not self._busy
        self._server_drains = True

    def abort(self) -> None:
        """Cut it, whatever is under way."""
        self._out.lost()
        self._transport.abort()

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered."""
        return not self._busy

    # The parser's side -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._begin()
        self._in_message = True
        self.deadline = self._server.now() + self._limits.head_seconds

    def on_url(self, url: bytes) -> None:
        """Some of the target."""
        self._target += url
        if len(self._target) > self._limits.target:
            raise BadRequest(414, "the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field."""
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self._limits.headers or len(self._headers) >= self._limits.header_count:
            raise BadRequest(431, "the request's headers are too large")
        check_header(name, value)
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1").strip()))

    def on_headers_complete(self) -> None:
        """The head is whole: is it sound, and may the body come?"""
        version = self._parser.get_http_version()
        self._expected = check_framing(self._headers, version, self._limits)
        self.deadline = self._server.now() + self._limits.body_seconds
        request = self._request()
        if self._server.streams is not None and self._server.streams(request):
            self._start_streamed(request, version)
        elif self._expected is not None and self._expected > self._limits.body:
            raise BadRequest(413, f"the request body is larger than {self._limits.body} bytes")
        self._invite(request)

    def _request(self) -> Request:
        if not self._target.startswith(b"/") and self._target != b"*":
            raise BadRequest(400, "the request target must be a path")
        path, _, query = self._target.decode("latin-1").partition("?")
        method = self._parser.get_method().decode("latin-1")
        if method == "CONNECT":
            raise BadRequest(405, "CONNECT is not supported")
        return Request(method, path, query, self._headers, b"", self._peer)

    def _invite(self, request: Request) -> None:
        expect = request.header("expect")
        if expect is None:
            return
        if expect.lower() != "100-continue":
            raise BadRequest(417, "only 100-continue can be expected")
        if not self._busy or self._incoming is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _start_streamed(self, request: Request, version: str) -> None:
        self._incoming = Incoming(self._transport)
        request.stream = aiter(self._incoming)
        self._enqueue(request, version, upgrade=False)

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        self._body_bytes += len(body)
        if self._incoming is not None:
            if self._body_bytes > self._limits.streamed_body:
                raise BadRequest(413, "the request body is too large")
            self.deadline = self._server.now() + self._limits.body_seconds
            self._incoming.feed(body)
            return
        if self._body_bytes > self._limits.body:
            raise BadRequest(413, f"the request body is larger than {self._limits.body} bytes")
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_message = False
        self.deadline = self._server.now() + self._limits.idle_seconds
        if self._incoming is not None:
            self._incoming.end()
            return
        request = self._request()
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._enqueue(request, self._parser.get_http_version(), upgrade=bool(self._parser.should_upgrade()))

    # Answering ---------------------------------------------------------------------------------------------------

    def _enqueue(self, request: Request, version: str, *, upgrade: bool) -> None:
        keep = bool(self._parser.should_keep_alive()) and request.stream is None
        self._waiting.append((request, keep, version, upgrade))
        if not self._busy:
            self._next()
        elif len(self._waiting) >= self._limits.pipelined and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _next(self) -> None:
        """Answer what waits, until something has to wait itself."""
        while self._waiting and not self._closing:
            request, keep, version, upgrade = self._waiting.popleft()
            if upgrade:
                self._waiting.appendleft((request, keep, version, upgrade))
                self._busy = True  # the parser stops here; `_after_upgrade_request` goes on
                return
            try:
                answer = self._server.handler(request)
            except Exception:
                log.exception("the handler of %s %s failed", request.method, request.path)
                answer = _FAILURE
            if isinstance(answer, Response):
                self._send(request, answer, keep, version)
                continue
            self._busy = True
            self._task = self._server.tasks.spawn(self._later(request, answer, keep, version), request.path)
            return
        if self._paused and not self._closing:
            self._paused = False
            self._transport.resume_reading()

    async def _later(self, request: Request, answer: Answer | Awaitable[Answer], keep: bool, version: str) -> None:
        try:
            if not isinstance(answer, Response | Stream | Upgrade):
                answer = await answer
            if isinstance(answer, Stream):
                await self._stream(request, answer, keep, version)
            elif isinstance(answer, Upgrade):
                await self._switch(answer, b"")
                return
            else:
                self._send(request, answer, keep, version)
                await self._out.drain()
        except (ConnectionError, asyncio.CancelledError):
            self._transport.abort()
            return
        except Exception:
            log.exception("the answer to %s %s failed", request.method, request.path)
            if self._streaming or self._upgraded:
                self._transport.abort()
                return
            self._send(request, _FAILURE, False, version)
        self._busy = False
        self._task = None
        self._streaming = False
        self._incoming = None if not self._upgraded else self._incoming
        self.deadline = self._server.now() + self._limits.idle_seconds
        self._next()

    def _send(self, request: Request, answer: Response, keep: bool, version: str) -> None:
        if self._transport.is_closing():
            return
        keep = keep and not self._server_drains
        body = answer.body
        parts: list[bytes] = [body] if isinstance(body, bytes) else list(body)
        length = len(body) if isinstance(body, bytes) else sum(map(len, parts))
        extra = self._server.date_line + ("" if keep and version == "1.1" else _keep_line(keep))
        if answer.status not in _BODYLESS and answer.status >= 200:
            extra += f"content-length: {length}\r\n"
        top = head(answer.status, answer.headers, extra)
        if request.method == "HEAD" or answer.status in _BODYLESS:
            self._transport.write(top)
        elif length < 65536:
            self._transport.write(b"".join([top, *parts]))
        else:
            self._transport.writelines([top, *parts])
        if not keep:
            self._closing = True
            self._transport.close()

    async def _stream(self, request: Request, answer: Stream, keep: bool, version: str) -> None:
        chunked = version == "1.1"
        keep = keep and chunked and not self._server_drains
        extra = self._server.date_line + ("transfer-encoding: chunked\r\n" if chunked else "") + _keep_line(keep)
        self._transport.write(head(answer.status, answer.headers, extra))
        self._streaming = True
        self.deadline = float("inf")
        if request.method != "HEAD":
            try:
                await answer.run(ChunkWriter(self._out, chunked=chunked))
            except SlowReader:
                return
            if chunked and not self._transport.is_closing():
                self._transport.write(b"0\r\n\r\n")
        if not keep or self._server_drains:
            self._closing = True
            self._transport.close()

    def _after_upgrade_request(self, rest: bytes) -> None:
        """A request that asks for an upgrade was read; `rest` came behind it."""
        if self._closing or not self._waiting:
            return
        self._server.tasks.spawn(self._answer_upgrade(rest), "upgrade")

    async def _answer_upgrade(self, rest: bytes) -> None:
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
        if not self._waiting or self._transport.is_closing():
            return
        request, keep, version, _ = self._waiting.popleft()
        self._busy = True
        self._transport.pause_reading()
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
                await self._switch(answer, rest)
            except (ConnectionError, asyncio.CancelledError):
                self._transport.abort()
            return
        self._parser = httptools.HttpRequestParser(self)
        if not self._transport.is_closing():
            self._transport.resume_reading()
        await self._later(request, answer, keep, version)
        if rest:
            self.data_received(rest)

    async def _switch(self, answer: Upgrade, rest: bytes) -> None:
        self._transport.write(head(101, answer.headers, ""))
        self._incoming = Incoming(self._transport)
        self._upgraded = True
        self.deadline = float("inf")
        if rest:
            self._incoming.feed(rest)
        if not self._transport.is_closing():
            self._transport.resume_reading()
        try:
            await answer.run(RawDuplex(self._transport, self._out, self._incoming))
        finally:
            self._transport.close()


def _keep_line(keep: bool) -> str:
    return _KEEP if keep else _CLOSE


_FAILURE: Any = Response(500, [("content-type", "text/plain; charset=utf-8")], b"internal error\n")
