"""The HTTP/1.1 server: listens, keeps count of connections, enforces deadlines, drains.

Owns listening sockets and the connections made through them; `connection.py` does the talking. Called by whoever serves
HTTP: the API server, the kubelet, the registry. It knows nothing of what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from email.utils import formatdate
from pathlib import Path

from steersman.lib.clock import Clock
from steersman.lib.http.connection import Connection
from steersman.lib.http.joining import Joining
from steersman.lib.http.limits import Limits
from steersman.lib.http.memory import keep_read_buffers
from steersman.lib.http.messages import Handler, Request
from steersman.lib.tasks import Tasks

_SWEEP = 5.0  # seconds between looks at the deadlines
_DATE_AGE = 1.0
_HANDSHAKE = 10.0  # seconds for a peer to finish TLS

Streams = Callable[[Request], bool]
"""Given a request's head: does its handler want the body as a stream?"""


def bound(host: str, port: int) -> socket.socket:
    """A socket for `listen_on`; port 0 chooses one. Raises OSError when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


class Server:
    """Serves one handler on any number of addresses. Make it, `listen` (often), then `close`."""

    def __init__(
        self,
        handler: Handler,
        clock: Clock,
        *,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        streams: Streams | None = None,
    ) -> None:
        self.handler = handler
        self.limits = limits or Limits()
        self.streams = streams
        self.tasks = Tasks()
        self.now = clock.monotonic
        self.joining = Joining(self.now)
        self._clock = clock
        self._tls = tls
        self._listeners: list[asyncio.AbstractServer] = []
        self._sockets: list[socket.socket] = []
        self._connections: set[Connection] = set()
        self._background = Tasks()
        self._sweeping = False
        self._empty: asyncio.Event | None = None
        self._date, self._date_at = "", -_DATE_AGE

    def date_line(self, now: float) -> str:
        """The Date header, made once a second; `now` is monotonic."""
        if now - self._date_at >= _DATE_AGE:
            self._date, self._date_at = f"date: {formatdate(self._clock.now(), usegmt=True)}\r\n", now
        return self._date

    async def listen(self, host: str, port: int) -> int:
        """Serve on an address; port 0 chooses one. Returns the port. Raises OSError when it is taken."""
        listener = bound(host, port)
        await self.listen_on(listener)
        return int(listener.getsockname()[1])

    async def listen_on(self, listener: socket.socket) -> None:
        """Serve on a socket that is bound already; `close` closes it."""
        loop = asyncio.get_running_loop()
        if listener.family != socket.AF_UNIX:  # for what it accepts, too: an event must not wait for the last one's ACK
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets.append(listener)
        self._listeners.append(await _create_server(loop, lambda: Connection(self), listener, self._tls))

    async def renew(self, tls: ssl.SSLContext) -> None:
        """From now on greet new connections with this; those that are there keep what they have."""
        self._tls = tls
        before, sockets = self._listeners, self._sockets
        self._listeners, self._sockets = [], []
        for listener in [listener.dup() for listener in sockets]:
            await self.listen_on(listener)
        for old in before:
            old.close()

    async def listen_unix(self, path: Path) -> None:
        """Serve on a Unix socket, without TLS; a stale socket file is replaced."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        loop = asyncio.get_running_loop()
        self._listeners.append(await loop.create_unix_server(lambda: Connection(self), str(path), backlog=1024))
        os.chmod(path, 0o600)

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; False when there are too many."""
        if len(self._connections) >= self.limits.connections:
            return False
        self._connections.add(connection)
        if not self._sweeping:
            self._sweeping = True
            self._background.spawn(self._sweep(), "http deadlines")
        return True

    def forget(self, connection: Connection) -> None:
        """The connection has ended."""
        self._connections.discard(connection)
        if not self._connections and self._empty is not None:
            self._empty.set()

    async def _sweep(self) -> None:
        """Look at deadlines while there are connections; an unused server does not wake."""
        try:
            while self._connections:
                await self._clock.sleep(_SWEEP)
                now = self.now()
                for connection in [c for c in self._connections if c.overdue(now)]:
                    connection.give_up()
        finally:
            self._sweeping = False

    async def close(self) -> None:
        """Take no more connections, finish what is being answered, end streams, then cut what is left."""
        for listener in self._listeners:
            listener.close()
        self._empty = asyncio.Event()
        for connection in list(self._connections):
            connection.drain()
        if self._connections:
            try:
                async with asyncio.timeout(self.limits.drain_seconds):
                    await self._empty.wait()
            except TimeoutError:
                for connection in list(self._connections):
                    connection.abort()
        await self.tasks.close()
        await self._background.close()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _create_server(
    loop: asyncio.AbstractEventLoop,
    factory: Callable[[], Connection],
    listener: socket.socket,
    tls: ssl.SSLContext | None,
) -> asyncio.AbstractServer:
    """aiofastnet's server where TLS is wanted and it loads: a TLS GET costs 12 us with it, 15 to 20 without."""
    if tls is not None:
        keep_read_buffers()
        try:
            import aiofastnet
        except ImportError:
            pass
        else:
            return await aiofastnet.create_server(
                loop, factory, sock=listener, ssl=tls, backlog=1024, ssl_handshake_timeout=_HANDSHAKE
            )
        return await loop.create_server(factory, sock=listener, ssl=tls, backlog=1024, ssl_handshake_timeout=_HANDSHAKE)
    return await loop.create_server(factory, sock=listener, backlog=1024)


def server_tls(certificate: Path, key: Path, client_authorities: Sequence[Path] = ()) -> ssl.SSLContext:
    """TLS 1.2 and later for a server; clients may show a certificate that one of `client_authorities` signed.

    Raises OSError or ssl.SSLError when a file cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as Go's crypto/x509: authorities need not be roots
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    for authority in client_authorities:
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context
