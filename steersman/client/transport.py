"""How a client's requests travel: in process, straight to a handler, or over TLS.

Owns the in-process transport (which really streams: a watch is read while it is written) and the making of an HTTP
client from credentials. Called by `cluster` and `testing`. Source of the credentials' shape: kubeconfig.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from steersman.lib.http.client import Address, HttpClient, client_tls
from steersman.lib.http.messages import (
    Duplex,
    Handler,
    Headers,
    Peer,
    Request,
    Response,
    Stream,
    Transport,
    Upgrade,
)
from steersman.lib.tasks import Tasks


class _Pipe:
    """An answer's body between the writing handler and the reading client; implements `messages.Writer`."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._error: BaseException | None = None
        self._closed = self._ended = False

    def write(self, data: bytes) -> None:
        """Queue bytes for the reader. Raises ConnectionError when it is gone."""
        if self._closed:
            raise ConnectionResetError("the client is gone")
        if data:
            self._chunks.append(data)
            self._arrived.set()

    async def drain(self) -> None:
        """Never waits: the reader is in this process. Raises ConnectionError when it is gone."""
        if self._closed:
            raise ConnectionResetError("the client is gone")

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the reader is gone."""
        if self._closed:
            callback()
        else:
            self._callbacks.append(callback)

    def end(self, error: BaseException | None = None) -> None:
        """The handler is done; the first word counts."""
        if not self._ended:
            self._ended, self._error = True, error
        self._arrived.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """What was written, as it comes."""
        while True:
            while self._chunks:
                yield self._chunks.popleft()
            if self._ended:
                if self._error is not None:
                    raise ConnectionResetError(f"the answer broke off: {self._error}")
                return
            self._arrived.clear()
            await self._arrived.wait()

    def close(self) -> None:
        """The reader is gone."""
        if not self._closed:
            self._closed = True
            for callback in self._callbacks:
                callback()


class _Answer:
    """Implements `messages.ClientResponse`."""

    def __init__(self, status: int, headers: Headers, body: bytes | _Pipe, task: asyncio.Task[None] | None) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self._task = task

    def header(self, name: str) -> str | None:
        """The first value of the header `name`, or None."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        if isinstance(self._body, bytes):
            if self._body:
                yield self._body
            return
        async for chunk in self._body.chunks():
            yield chunk

    async def close(self) -> None:
        """Tell a handler that still writes, and let it end."""
        if isinstance(self._body, _Pipe):
            self._body.close()
        if self._task is not None and not self._task.done():
            self._task.cancel()


class InProcess:
    """A transport that calls a handler; `peer` is who the handler sees."""

    def __init__(self, handler: Handler, *, peer: Peer | None = None, headers: Headers = ()) -> None:
        self._handler = handler
        self._peer = peer or Peer(address="127.0.0.1")
        self._headers = list(headers)
        self._tasks = Tasks()

    async def request(
        self, method: str, target: str, headers: Headers = (), body: bytes | AsyncIterator[bytes] = b""
    ) -> _Answer:
        """Call the handler and return its answer."""
        if not isinstance(body, bytes):
            body = b"".join([chunk async for chunk in body])
        path, _, query = target.partition("?")
        request = Request(method, path, query, [*self._headers, *headers], body, self._peer)
        answer = self._handler(request)
        if not isinstance(answer, Response | Stream | Upgrade):
            answer = await answer
        if isinstance(answer, Response):
            whole = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
            return _Answer(answer.status, answer.headers, whole, None)
        if isinstance(answer, Stream):
            pipe = _Pipe()
            task = self._tasks.spawn(self._run(answer, pipe), f"{method} {path}")
            task.add_done_callback(lambda _: pipe.end(ConnectionResetError("closed")))
            return _Answer(answer.status, answer.headers, pipe, task)
        raise ConnectionError("the in-process transport has no connection to upgrade")

    async def _run(self, answer: Stream, pipe: _Pipe) -> None:
        try:
            await answer.run(pipe)
        except ConnectionError as error:
            pipe.end(error)
        except Exception as error:
            pipe.end(error)
            raise
        else:
            pipe.end()

    async def upgrade(self, method: str, target: str, headers: Headers = ()) -> tuple[_Answer, Duplex | None]:
        """There is no connection here: raises ConnectionError."""
        raise ConnectionError("the in-process transport has no connection to upgrade")

    async def close(self) -> None:
        """End every stream."""
        await self._tasks.close()


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where a server is and who we are, in the PEM format: files, or `..._data` as a kubeconfig may hold it."""

    server: str
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str = ""
    server_name: str = ""
    authority_data: str = ""
    certificate_data: str = ""
    key_data: str = ""


def _tls(credentials: Credentials) -> ssl.SSLContext:
    """The TLS context. OpenSSL reads a client's key from a file alone, so data is one for a moment, for us only."""
    authority, data = credentials.authority, credentials.authority_data
    if not credentials.certificate_data:
        certificate, key = credentials.certificate, credentials.key
        return client_tls(authority=authority, authority_data=data, certificate=certificate, key=key)
    import tempfile  # here: it costs a start milliseconds

    with tempfile.TemporaryDirectory(prefix="steer-") as folder:
        pem = Path(folder) / "client.pem"
        pem.touch(mode=0o600)
        pem.write_text(f"{credentials.certificate_data}\n{credentials.key_data}")
        return client_tls(authority=authority, authority_data=data, certificate=pem, key=pem)


def connect(credentials: Credentials, *, fast: bool = False) -> Transport:
    """An HTTP client for a server's URL, `fast` where its certificates are our own.

    Raises ValueError for a bad URL, OSError or ssl.SSLError for bad files.
    """
    url = urlsplit(credentials.server)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"not a server's URL: {credentials.server!r}")
    tls = None
    if url.scheme == "https":
        tls = _tls(credentials)
    port = url.port or (443 if tls else 80)
    headers = [("authorization", f"Bearer {credentials.token}")] if credentials.token else []
    address = Address(url.hostname, port, tls, server_name=credentials.server_name)
    return HttpClient(address, headers=headers, fast=fast)
