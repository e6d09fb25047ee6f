"""Answers over a WebSocket: what a stream writes becomes messages.

Owns the handshake of browsers and clients that read logs and watches this way, and the writer behind it. Called by
the pipeline for watches and by `streams` for logs. Exec and its kin are the kubelet's. Source: wsstream.Reader in
k8s.io/streaming; WatchServer.HandleWS in apiserver's handlers/watch.go; RFC 6455.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from steersman.api import errors
from steersman.lib.http.messages import Answer, Duplex, Request, Response, Stream, Upgrade
from steersman.lib.tasks import Tasks
from steersman.wire import websocket
from steersman.wire.websocket import Closed, Connection, ProtocolError

_BASE64 = "base64.binary.k8s.io"
_PROTOCOLS = ("binary.k8s.io", _BASE64)
_BEARER = "base64url.bearer.authorization.k8s.io."  # carries a token, and is no protocol


def wanted(request: Request) -> bool:
    """Whether the client asks for a WebSocket."""
    return (request.header("upgrade") or "").lower() == "websocket" and "upgrade" in (
        ",".join(request.header_all("connection")).lower()
    )


def over_websocket(request: Request, answer: Answer, *, text: bool = False, greets: bool = False) -> Answer:
    """A good answer as an upgrade; a refusal stays as it is. Raises ApiError for a broken handshake.

    `text`: one text message for each write, as watches do it; `greets`: an empty message comes first, as in logs.
    """
    if isinstance(answer, Upgrade) or answer.status != 200:
        return answer
    try:
        accept = websocket.accept_key(request.header("sec-websocket-key") or "")
    except ProtocolError as error:
        raise errors.bad_request(f"unable to upgrade: {error}") from None
    offered = [name.strip() for value in request.header_all("sec-websocket-protocol") for name in value.split(",")]
    offered = [name for name in offered if name and not name.startswith(_BEARER)]
    chosen = next((name for name in offered if name in _PROTOCOLS), "")
    if offered and not chosen and not text:
        raise errors.bad_request(f"requested protocol(s) are not supported: [{' '.join(offered)}]")
    headers = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", accept)]
    if chosen:
        headers.append(("sec-websocket-protocol", chosen))

    async def run(duplex: Duplex) -> None:
        await _run(answer, SocketWriter(duplex, text=text, base64_text=chosen == _BASE64), greets=greets)

    return Upgrade(headers, run)


async def _run(answer: Response | Stream, writer: SocketWriter, *, greets: bool) -> None:
    async with Tasks() as tasks:
        tasks.spawn(writer.listen(), "websocket")
        try:
            if greets:
                writer.write(b"")
            if isinstance(answer, Stream):
                await answer.run(writer)
            else:
                for part in [answer.body] if isinstance(answer.body, bytes) else answer.body:
                    writer.write(part)
            writer.goodbye()
            await writer.drain()
        except ConnectionError:
            pass


class SocketWriter:
    """Implements `messages.Writer` over a WebSocket: each write is one message."""

    def __init__(self, duplex: Duplex, *, text: bool, base64_text: bool) -> None:
        self._duplex = duplex
        self._wire = Connection(server=True)
        self._text = text or base64_text
        self._base64 = base64_text
        self._callbacks: list[Callable[[], None]] = []
        self._gone = False

    def write(self, data: bytes) -> None:
        """Send a message. Raises ConnectionError when the peer is gone."""
        if self._gone:
            raise ConnectionResetError("the client has gone")
        self._wire.send(base64.b64encode(data) if self._base64 else data, text=self._text)
        self._duplex.write(self._wire.take())

    async def drain(self) -> None:
        """Wait until the peer has taken enough."""
        await self._duplex.drain()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the peer is gone."""
        if self._gone:
            callback()
        else:
            self._callbacks.append(callback)

    def goodbye(self) -> None:
        """Say that this was all."""
        self._wire.close()
        self._duplex.write(self._wire.take())

    async def listen(self) -> None:
        """Answer pings until the peer leaves; what else it says is ignored."""
        try:
            while not self._gone and (data := await self._duplex.read()):
                if any(isinstance(event, Closed) for event in self._wire.receive(data)):
                    break
                if answer := self._wire.take():
                    self._duplex.write(answer)
        except (ConnectionError, ProtocolError):
            pass
        self._gone = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
