"""An HTTP/1.1 client with a pool: plain, TLS or Unix socket, streaming both ways, upgrades.

Owns its connections to one server; implements `messages.Transport`. Called by API clients, the registry client and
probes. Trouble with the connection is always a ConnectionError or TimeoutError; an answer is never an exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httptools

from steersman.lib.http.memory import keep_read_buffers
from steersman.lib.http.messages import Duplex, Headers
from steersman.lib.http.streams import LARGE_READ, Incoming, Outgoing, RawDuplex, Reading, frame, look_again

Dial = Callable[[str, int], Awaitable[socket.socket]]
"""How a connection to (host, port) is made where the event loop would make another. Raises OSError."""

T = TypeVar("T")
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_UNREAD = 1 << 40
_LONGEST_HEAD = 10 << 20  # bytes of an answer's head: Go's MaxResponseHeaderBytes


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is. `unix` wins over host and port; `server_name` is what its certificate must name."""

    host: str = "127.0.0.1"
    port: int = 80
    tls: ssl.SSLContext | None = None
    unix: Path | None = None
    server_name: str = ""

    @property
    def host_header(self) -> str:
        """The Host header's value."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.tls else 80
        return name if self.port == default else f"{name}:{self.port}"


class _Line(asyncio.Protocol):
    """One connection: sends one request at a time and reads its answer."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.out: Outgoing = None  # type: ignore[assignment]
        self.body: Incoming | None = None
        self.reusable = False
        self.lost = False
        self.got_bytes = False
        self.idle_since = 0.0  # of the loop's time
        self._parser: httptools.HttpResponseParser | None = None
        self._head: asyncio.Future[tuple[int, list[tuple[str, str]]]] | None = None
        self._headers: list[tuple[str, str]] = []
        self._head_size = 0
        self._bodyless = False
        self._upgrading = False
        self._upgraded = False
        self._tls = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = transport  # type: ignore[assignment]
        self.out = Outgoing(self.transport, _UNREAD)
        self._tls = transport.get_extra_info("sslcontext") is not None

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone: whoever waits is told."""
        self.lost = True
        self.out.lost()
        error = (
            exc
            if isinstance(exc, ConnectionResetError)
            else ConnectionResetError(str(exc) if exc else "the server closed the connection")
        )
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)
        if self.body is not None:
            ended = (self._upgraded and exc is None) or self._ends_by_close()
            self.body.end(None if ended else error)

    def _ends_by_close(self) -> bool:
        names = {name for name, _ in self._headers}
        return self._head is None and not names & {"content-length", "transfer-encoding"}

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self.out.pause()

    def resume_writing(self) -> None:
        """The transport's buffer has room."""
        self.out.resume()

    def eof_received(self) -> bool:
        """The server sends no more."""
        if self._upgraded and self.body is not None:
            self.body.end()
            return self.transport.can_write_eof()
        return False

    def data_received(self, data: bytes) -> None:
        """Bytes from the server."""
        self.got_bytes = True
        if self._tls and len(data) >= LARGE_READ and not (self.transport.is_closing() or self._holds_back()):
            look_again(self.transport)
        if self._upgraded and self.body is not None:
            self.body.feed(bytes(data))
            return
        if self._parser is None:  # nobody asked
            self.transport.abort()
            return
        if self._head is not None:
            self._head_size += len(data)
            if self._head_size > _LONGEST_HEAD:
                self._fail("the head of the response is too long")
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switch:
            if self._upgraded and self.body is not None and (rest := bytes(data[switch.args[0] :])):
                self.body.feed(rest)
        except httptools.HttpParserError as error:
            self._fail(f"malformed HTTP response: {error}")

    def _holds_back(self) -> bool:
        """Whether nobody wants more bytes now."""
        return self.body is not None and self.body.held_back

    def _fail(self, text: str) -> None:
        self.transport.abort()
        problem = ConnectionError(text)
        if self._head is not None and not self._head.done():
            self._head.set_exception(problem)
        elif self.body is not None:
            self.body.end(problem)

    # The parser's side -------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field."""
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._headers = []
            return
        if status == 101 and not self._upgrading:
            raise httptools.HttpParserError("an upgrade that nobody asked for")
        self._upgraded = status == 101
        self.body = Incoming(Reading(self.transport))
        if self._head is not None and not self._head.done():
            self._head.set_result((status, self._headers))
            self._head = None
        if self._bodyless and not self._upgraded:
            self.on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        if self.body is not None and not self._bodyless:
            self.body.feed(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self.body is None or self._upgraded:
            return
        assert self._parser is not None
        self.reusable = self._parser.should_keep_alive() and not self._bodyless
        self._parser = None
        self.body.end()

    # Asking --------------------------------------------------------------------------------------------------------

    def ask(self, head: bytes, *, bodyless: bool, upgrade: bool) -> asyncio.Future[tuple[int, list[tuple[str, str]]]]:
        """Send a request's head; the future is the answer's head."""
        self._parser = httptools.HttpResponseParser(self)
        self._headers = []
        self._head_size = 0
        self.body = None
        self._bodyless, self._upgrading = bodyless, upgrade
        self.reusable = self.got_bytes = False
        self._head = answer = asyncio.get_running_loop().create_future()
        self.out.send(head)
        return answer


async def _create_connection(
    loop: asyncio.AbstractEventLoop, tls: ssl.SSLContext | None, *, fast: bool, **to: Any
) -> tuple[Any, _Line]:
    """aiofastnet's connection where that is wanted and it loads: a small request costs 23 us with it, 26 without."""
    if tls is not None and fast:
        try:
            import aiofastnet
        except ImportError:
            pass
        else:
            return await aiofastnet.create_connection(loop, _Line, ssl=tls, **to)
    return await loop.create_connection(_Line, ssl=tls, **to)


class HttpResponse:
    """An answer whose body may still be arriving; implements `messages.ClientResponse`."""

    def __init__(self, status: int, headers: Headers, line: _Line, client: HttpClient) -> None:
        self.status = status
        self.headers = headers
        self._line: _Line | None = line
        self._body = line.body
        self._client = client

    def header(self, name: str) -> str | None:
        """The first value of the header `name` (lower case), or None."""
        return next((value for key, value in self.headers if key == name), None)

    async def read(self) -> bytes:
        """The whole body. Raises ConnectionError when it breaks off."""
        if self._body is not None and self._line is not None and (whole := self._body.whole()) is not None:
            self._give_back()
            return whole
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        if self._body is None:
            return
        try:
            while data := await self._body.read():
                yield data
        except BaseException:
            self._drop()
            raise
        self._give_back()

    def _give_back(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            self._client.give_back(line)

    def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            self._client.drop(line)

    async def close(self) -> None:
        """Drop the connection unless the body was read to its end."""
        self._drop()


class HttpClient:
    """Talks to one server. `pool` is how many idle connections are kept, `idle_seconds` for how long (None: until the
    server ends them); all times are seconds."""

    def __init__(
        self,
        address: Address,
        *,
        connect_timeout: float = 10.0,
        answer_timeout: float | None = 60.0,
        pool: int = 32,
        idle_seconds: float | None = None,
        headers: Headers = (),
        dial: Dial | None = None,
        fast: bool = False,
    ) -> None:
        """`fast`: TLS by a library that costs less, and tells of bad certificates in words of its own."""
        self.address = address
        self._idle_seconds = idle_seconds
        self._ending: asyncio.TimerHandle | None = None
        self._dial = dial
        self._fast = fast
        self._connect_timeout = connect_timeout
        self._answer_timeout = answer_timeout
        self._pool_size = pool
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self._idle: deque[_Line] = deque()
        self._lines: set[_Line] = set()

    async def _connect(self) -> _Line:
        loop = asyncio.get_running_loop()
        where = self.address
        name = (where.server_name or where.host) if where.tls else None
        if where.tls is not None:
            keep_read_buffers()
        async with asyncio.timeout(self._connect_timeout):
            if where.unix is not None:
                _, line = await loop.create_unix_connection(_Line, str(where.unix), ssl=where.tls, server_hostname=name)
            else:
                try:
                    to: dict[str, Any] = {"host": where.host, "port": where.port}
                    if self._dial is not None:
                        to = {"sock": await self._dial(where.host, where.port)}
                    _, line = await _create_connection(loop, where.tls, fast=self._fast, server_hostname=name, **to)
                except ssl.SSLError as error:
                    raise ConnectionError(f"TLS handshake with {where.host}:{where.port} failed: {error}") from error
        self._lines.add(line)
        return line

    def give_back(self, line: _Line) -> None:
        """A connection whose answer was read to its end."""
        if line.reusable and not line.lost and not line.transport.is_closing() and len(self._idle) < self._pool_size:
            self._idle.append(line)
            if self._idle_seconds is not None:
                loop = asyncio.get_running_loop()
                line.idle_since = loop.time()
                if self._ending is None:
                    self._ending = loop.call_later(self._idle_seconds, self._end_idle, loop, self._idle_seconds)
        else:
            self.drop(line)

    def _end_idle(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Close what nobody used for so long, and look again when the next will be as old."""
        self._ending = None
        while self._idle and (self._idle[0].lost or self._idle[0].idle_since + seconds <= loop.time()):
            self.drop(self._idle.popleft())
        if self._idle:
            self._ending = loop.call_at(self._idle[0].idle_since + seconds, self._end_idle, loop, seconds)

    def drop(self, line: _Line) -> None:
        """Close a connection."""
        self._lines.discard(line)
        line.transport.abort()

    def _pooled(self) -> _Line | None:
        while self._idle:
            line = self._idle.pop()
            if not line.lost and not line.transport.is_closing():
                return line
            self._lines.discard(line)
        return None

    async def request(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes | AsyncIterator[bytes] = b"",
        *,
        repeatable: bool = False,
    ) -> HttpResponse:
        """Send one request; returns once the answer's head is there. Raises ConnectionError, TimeoutError.

        A pooled connection that the server closed meanwhile is replaced once, when nothing can have happened twice;
        with `repeatable`, also where it may have: a question has no effect.
        """
        head = self._head(method, target, headers, body)
        if (line := self._pooled()) is not None:
            try:
                return await self._exchange(line, method, head, body)
            except ConnectionError:
                again = (repeatable or method in _IDEMPOTENT) and isinstance(body, bytes) and not line.got_bytes
                if not again:
                    raise
        return await self._exchange(await self._connect(), method, head, body)

    def _head(self, method: str, target: str, headers: Headers, body: bytes | AsyncIterator[bytes]) -> bytes:
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if "\n" in target or "\r" in target or " " in target or lines.count("\n") != len(headers):
            raise ValueError("a request line or header contains a line break")
        if not isinstance(body, bytes):
            if not any(name == "content-length" for name, _ in headers):
                lines += "transfer-encoding: chunked\r\n"
        elif body or method in ("POST", "PUT", "PATCH"):
            lines += f"content-length: {len(body)}\r\n"
        top = f"{method} {target} HTTP/1.1\r\nhost: {self.address.host_header}\r\n{self._fixed}{lines}\r\n"
        return top.encode("latin-1")

    async def _exchange(
        self, line: _Line, method: str, head: bytes, body: bytes | AsyncIterator[bytes]
    ) -> HttpResponse:
        try:
            if isinstance(body, bytes):
                answer = line.ask(head + body, bodyless=method == "HEAD", upgrade=False)
            else:
                answer = line.ask(head, bodyless=False, upgrade=False)
                await _send_body(line, body, chunked=b"\r\ntransfer-encoding: chunked\r\n" in head)
            status, headers = await self._in_time(answer)
        except BaseException:
            self.drop(line)
            raise
        return HttpResponse(status, headers, line, self)

    async def _in_time(self, answer: asyncio.Future[T]) -> T:
        """What the future will hold. Raises TimeoutError. A tenth of the cost of `asyncio.timeout`, once a request."""
        if self._answer_timeout is None:
            return await answer
        late = asyncio.get_running_loop().call_later(self._answer_timeout, _expire, answer)
        try:
            return await answer
        finally:
            late.cancel()

    async def upgrade(self, method: str, target: str, headers: Headers = ()) -> tuple[HttpResponse, Duplex | None]:
        """Ask for a protocol switch on a connection of its own; the duplex is None unless the answer is 101."""
        line = await self._connect()
        try:
            answer = line.ask(self._head(method, target, headers, b""), bodyless=False, upgrade=True)
            status, received = await self._in_time(answer)
        except BaseException:
            self.drop(line)
            raise
        response = HttpResponse(status, received, line, self)
        if status != 101 or line.body is None:
            return response, None
        self._lines.discard(line)
        return response, RawDuplex(line.transport, line.out, line.body)

    def close_idle(self) -> None:
        """Close the connections that nobody uses; those in use go when their answers end."""
        self._pool_size = 0
        self._end_timer()
        while self._idle:
            self.drop(self._idle.pop())

    async def close(self) -> None:
        """Close every connection, also those in use."""
        self._end_timer()
        for line in list(self._lines):
            self.drop(line)
        self._idle.clear()

    def _end_timer(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None


def _expire(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


async def _send_body(line: _Line, body: AsyncIterator[bytes], *, chunked: bool) -> None:
    """Send a body as it is made. A server that answers early may close: its answer is still wanted."""
    with contextlib.suppress(ConnectionError):
        async for data in body:
            if data:
                line.out.send(frame(data) if chunked else data)
                await line.out.drain()
        if chunked:
            line.out.send(b"0\r\n\r\n")


def client_tls(
    *,
    authority: Path | None = None,
    authority_data: str = "",
    certificate: Path | None = None,
    key: Path | None = None,
    verify: bool = True,
) -> ssl.SSLContext:
    """TLS for a client; `authority_data` is PEM. Raises OSError or ssl.SSLError when a file cannot be read.

    Any certificate among the authorities is believed, also one that others signed, as by Go's crypto/x509.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authority is not None or authority_data:
        context.load_verify_locations(cafile=authority, cadata=authority_data or None)
    else:
        context.load_default_certs()
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
