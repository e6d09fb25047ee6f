"""WebSocket on a connection that left HTTP behind: channels, or a tunnel for SPDY.

Owns the I/O around `wire.websocket` and `wire.channels`. Called by `server`; it does not know what the channels are
for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from steersman.kubelet.streaming.bytestream import Flow, IdleTimer, Inbox
from steersman.lib.http.messages import Duplex
from steersman.wire import websocket
from steersman.wire.channels import ChannelClosed, ChannelCodec, ChannelData
from steersman.wire.websocket import ProtocolError

_GOODBYE = 5.0  # seconds for the peer to leave


class WebSocket:
    """Messages over a duplex. Pings are answered while somebody reads."""

    def __init__(self, duplex: Duplex, wire: websocket.Connection, *, idle_seconds: float = 4 * 3600.0) -> None:
        self._duplex = duplex
        self._wire = wire
        self._messages: deque[bytes] = deque()
        self._ended = False
        self._idle = IdleTimer(idle_seconds, duplex.close)

    async def receive(self) -> bytes | None:
        """The next message, or None when the peer has said goodbye. Raises ConnectionError, also for broken frames."""
        while not self._messages:
            if self._ended or not (data := await self._duplex.read()):
                self._idle.cancel()
                return None
            self._idle.touch()
            try:
                self._take(self._wire.receive(data))
            except ProtocolError as error:
                self._wire.close(websocket.PROTOCOL_ERROR, str(error))
                self._flush()
                self._idle.cancel()
                raise ConnectionAbortedError(str(error)) from error
            self._flush()
        return self._messages.popleft()

    def _take(self, events: Sequence[websocket.Event]) -> None:
        for event in events:
            if isinstance(event, websocket.Message):
                self._messages.append(event.data)
            elif isinstance(event, websocket.Closed):
                self._ended = True

    def _flush(self) -> None:
        if data := self._wire.take():
            self._duplex.write(data)

    def put(self, data: bytes, *, text: bool = False) -> None:
        """Send a message without waiting. Raises ConnectionError when the peer is gone."""
        self._wire.send(data, text=text)
        self._idle.touch()
        self._flush()

    async def drain(self) -> None:
        """Wait until the peer has taken enough of what was sent."""
        await self._duplex.drain()

    def goodbye(self, code: int = websocket.NORMAL) -> None:
        """Say goodbye."""
        self._wire.close(code)
        try:
            self._flush()
        except ConnectionError:
            self._duplex.close()

    def drop(self) -> None:
        """Close the connection underneath."""
        self._idle.cancel()
        self._duplex.close()


class Channel:
    """One channel; implements `bytestream.ByteStream`. Writing ends for the peer only with the connection."""

    def __init__(self, channels: Channels, number: int) -> None:
        self.inbox = Inbox(channels.flow)
        self.read = self.inbox.read
        self.broken = self.inbox.broken.wait
        self._channels = channels
        self._number = number
        self._finished = False

    async def write(self, data: bytes) -> None:
        """Send, waiting until the peer takes it. Raises ConnectionError when nobody will."""
        if self._finished:
            raise ConnectionResetError("the channel is closed")
        await self._channels.write(self._number, data)

    def finish(self) -> None:
        """Send no more."""
        self._finished = True

    def reset(self) -> None:
        """End both directions at once."""
        self._finished = True
        self.inbox.fail(ConnectionResetError("the channel was reset"))
        self.inbox.drop()


class Channels:
    """A WebSocket that carries channels; implements `bytestream.Multiplex`.

    `readable` are the channels on which the peer may send; what it sends on others is dropped, as the original does.
    """

    def __init__(self, socket: WebSocket, codec: ChannelCodec, count: int, readable: Sequence[int]) -> None:
        self.flow = Flow()
        self.streams = [Channel(self, number) for number in range(count)]
        self._socket = socket
        self._codec = codec
        self._over = asyncio.Event()
        for number, stream in enumerate(self.streams):
            if number not in readable:
                stream.inbox.end()

    async def run(self) -> None:
        """Read until the peer is gone; never raises for what a peer does."""
        try:
            while (message := await self._socket.receive()) is not None:
                self._take(message)
                await self.flow.room()
        except ProtocolError:
            self._socket.goodbye(websocket.PROTOCOL_ERROR)
        except ConnectionError:
            pass
        finally:
            self._over.set()
            for stream in self.streams:
                stream.inbox.fail(ConnectionResetError("the peer is gone"))

    def _take(self, message: bytes) -> None:
        event = self._codec.decode(message)
        if event is None or event.channel >= len(self.streams):
            if isinstance(event, ChannelClosed):
                raise ProtocolError(f"there is no channel {event.channel} to close")
            return
        inbox = self.streams[event.channel].inbox
        if isinstance(event, ChannelData):
            inbox.feed(event.data)
        else:
            inbox.end()

    async def write(self, number: int, data: bytes) -> None:
        """Send on a channel. Raises ConnectionError when the peer is gone."""
        if self._over.is_set():
            raise ConnectionResetError("the peer is gone")
        self._socket.put(self._codec.encode(number, data), text=self._codec.text)
        await self._socket.drain()

    async def closed(self) -> None:
        """Wait until the peer is gone."""
        await self._over.wait()

    async def end(self) -> None:
        """Say goodbye, and wait a little for the peer to leave, so that nothing under way is lost."""
        self._socket.goodbye()
        for stream in self.streams:
            stream.inbox.drop()
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._over.wait()
        except TimeoutError:
            self._socket.drop()


class Tunnel:
    """A WebSocket's messages as one stream of bytes; implements `messages.Duplex`. kubectl sends SPDY through it."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self.write = socket.put
        self.drain = socket.drain

    async def read(self) -> bytes:
        """Some bytes; empty at the end."""
        while (message := await self._socket.receive()) is not None:
            if message:
                return message
        return b""

    def write_eof(self) -> None:
        """Say goodbye: a WebSocket has no half close."""
        self._socket.goodbye()

    def close(self) -> None:
        """Say goodbye and close."""
        self._socket.goodbye()
        self._socket.drop()
