"""HTTP messages and the three ways to answer one.

Owns the values that pass between the HTTP server, the programs that answer requests, and HTTP clients. The server
(`server.py`) and the client (`client.py`) do the I/O; a handler works the same over sockets and in process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Headers = Sequence[tuple[str, str]]
"""Header fields in order; names are lower case, values decoded as Latin-1. A name may occur more than once."""


@dataclass(slots=True)
class Peer:
    """Who is at the other end of one connection. `identity` is a cache for the authenticator."""

    address: str = ""
    certificate: bytes | None = None  # DER of the verified client certificate
    identity: Any = None


@dataclass(slots=True)
class Request:
    """One request. `path` and `query` are as received: still percent-encoded, without the `?`."""

    method: str
    path: str
    query: str = ""
    headers: Headers = ()
    body: bytes = b""
    peer: Peer = field(default_factory=Peer)
    stream: AsyncIterator[bytes] | None = None  # the body, for handlers that asked to stream it; then `body` is empty
    context: Any = None  # what the handler keeps with the request
    route: Any = None  # what the handler counts the request by
    notes: list[str] | None = None  # what the handler has to tell with the answer, whatever it is
    waited: float = 0.0  # seconds that the handler spent on it waiting for others

    def header(self, name: str) -> str | None:
        """The first value of the header `name` (lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def header_all(self, name: str) -> list[str]:
        """Every value of the header `name` (lower case), in order."""
        return [value for key, value in self.headers if key == name]


class Writer(Protocol):
    """The sending half of a streaming answer."""

    def write(self, data: bytes) -> None:
        """Queue bytes without waiting. Raises ConnectionError when the peer is gone or reads too slowly."""
        ...

    async def drain(self) -> None:
        """Wait until the buffer is below its limit. Raises ConnectionError when the peer is gone."""
        ...

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the peer is gone or the server drains."""
        ...


class Duplex(Protocol):
    """Both halves of a connection that left HTTP behind."""

    async def read(self) -> bytes:
        """Some bytes; empty at the end."""
        ...

    def write(self, data: bytes) -> None:
        """Queue bytes without waiting. Raises ConnectionError when the peer is gone."""
        ...

    async def drain(self) -> None:
        """Wait until the buffer is below its limit."""
        ...

    def write_eof(self) -> None:
        """Send no more (half close where the transport can)."""
        ...

    def close(self) -> None:
        """End both directions."""
        ...


@dataclass(slots=True)
class Response:
    """A whole answer. Content-Length is added by the server; a list body is joined by it, once."""

    status: int
    headers: Headers = ()
    body: bytes | Sequence[bytes] = b""


@dataclass(slots=True)
class Stream:
    """A chunked answer: the server sends the head at once, then awaits `run`; the answer ends when it returns."""

    status: int
    headers: Headers
    run: Callable[[Writer], Awaitable[None]]


@dataclass(slots=True)
class Upgrade:
    """101: the server sends the head, then hands the raw connection to `run` and closes it afterwards."""

    headers: Headers
    run: Callable[[Duplex], Awaitable[None]]


Answer = Response | Stream | Upgrade
Handler = Callable[[Request], Answer | Awaitable[Answer]]
"""Answers a request. It may answer at once, without a task, when it has nothing to wait for."""


class ClientResponse(Protocol):
    """An answer as a client sees it."""

    status: int
    headers: Headers

    def header(self, name: str) -> str | None:
        """The first value of the header `name` (lower case), or None."""
        ...

    async def read(self) -> bytes:
        """The whole body."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ConnectionError when it breaks off."""
        ...

    async def close(self) -> None:
        """Give the connection back or drop it; safe to call twice."""
        ...


class TooLong(ValueError):
    """A body is longer than anybody wants to keep."""


async def read_at_most(response: ClientResponse, most: int) -> bytes:
    """The whole body, if it has at most so many bytes. Raises TooLong, and ConnectionError when it breaks off."""
    data = bytearray()
    try:
        async for chunk in response.chunks():
            data += chunk
            if len(data) > most:
                raise TooLong(f"the answer is over {most} bytes")
    finally:
        await response.close()
    return bytes(data)


class Transport(Protocol):
    """How a client reaches one server: over sockets (`lib.http.client`) or in process (`client.transport`)."""

    async def request(
        self, method: str, target: str, headers: Headers = (), body: bytes | AsyncIterator[bytes] = b""
    ) -> ClientResponse:
        """Send one request (target: encoded path and query); returns once the answer's head is there."""
        ...

    async def upgrade(self, method: str, target: str, headers: Headers = ()) -> tuple[ClientResponse, Duplex | None]:
        """Ask for a protocol switch; the duplex is None unless the answer is 101."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
