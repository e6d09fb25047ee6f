"""exec and attach: an engine session joined to a client's streams.

Owns the pumping between an `engine.interface.Session` and the channels of a connection. Called by
the kubelet's HTTPS server. Source: KEP-4006, cri-streaming's remotecommand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from steersman.engine.interface import RuntimeFailure, Session
from steersman.lib.http.messages import Duplex
from steersman.lib.tasks import Tasks
from steersman.wire import channels
from steersman.wire.channels import ChannelClosed, ChannelCodec, ChannelData
from steersman.wire.spdyheaders import ProtocolError
from steersman.wire.websocket import Closed, Connection, Message


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Which streams the client wants."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class Client(Protocol):
    """A client's side of a session, whatever carries it."""

    def output(self, channel: int, data: bytes) -> None:
        """Send output."""
        ...

    async def drain(self) -> None:
        """Wait until output has room."""
        ...

    async def finish(self, exit_code: int) -> None:
        """Send the result and say goodbye."""
        ...

    async def fail(self, text: str) -> None:
        """Say why there is no session, and goodbye."""
        ...

    async def read(self, session: Session) -> None:
        """Take input and window sizes to the session until the client is done."""
        ...


Start = Callable[[], Awaitable[Session]]


async def serve(client: Client, start: Start, options: StreamOptions) -> None:
    """Run one session to its end."""
    try:
        session = await start()
    except RuntimeFailure as error:
        await client.fail(str(error))
        return
    async with Tasks() as tasks:
        reading = tasks.spawn(client.read(session), "stream input")
        try:
            await _pump_all(client, session, options, reading)
        except ConnectionError:
            pass
        finally:
            await session.close()


async def _pump_all(client: Client, session: Session, options: StreamOptions, reading: asyncio.Task[None]) -> None:
    pumps = [asyncio.ensure_future(_pump(client, session.read_stdout, channels.STDOUT, options.stdout))]
    if not options.tty:
        pumps.append(asyncio.ensure_future(_pump(client, session.read_stderr, channels.STDERR, options.stderr)))
    outputs = asyncio.gather(*pumps)
    done, _ = await asyncio.wait({outputs, reading}, return_when=asyncio.FIRST_COMPLETED)
    if outputs not in done and reading.exception() is not None:
        outputs.cancel()
        raise ConnectionResetError("the client is gone")
    await outputs
    await client.finish(await session.wait())


async def _pump(client: Client, read: Callable[[], Awaitable[bytes]], channel: int, wanted: bool) -> None:
    while data := await read():
        if wanted:
            client.output(channel, data)
            await client.drain()


class WebSocketClient:
    """Implements `Client` over a connection that was upgraded to WebSocket."""

    def __init__(self, duplex: Duplex, protocol: str) -> None:
        self._duplex = duplex
        self._protocol = protocol
        self._connection = Connection(server=True)
        self._codec = ChannelCodec(protocol)
        self._sizes = channels.ResizeDecoder()

    def output(self, channel: int, data: bytes) -> None:
        """Send output on a channel."""
        self._connection.send(self._codec.encode(channel, data), text=self._codec.text)
        self._duplex.write(self._connection.take())

    async def drain(self) -> None:
        """Wait until the connection has room."""
        await self._duplex.drain()

    async def finish(self, exit_code: int) -> None:
        """The Status, then a close frame."""
        await self._end(channels.exit_status(exit_code))

    async def fail(self, text: str) -> None:
        """A failure Status, then a close frame."""
        await self._end(channels.internal_error(text))

    async def _end(self, status: dict[str, Any]) -> None:
        body = channels.encode_status(status, self._protocol)
        if body:
            self._connection.send(self._codec.encode(channels.ERROR, body), text=self._codec.text)
        self._connection.close()
        self._duplex.write(self._connection.take())
        await self._duplex.drain()

    async def read(self, session: Session) -> None:
        """Standard input and sizes. Raises ConnectionError when the client leaves."""
        while data := await self._duplex.read():
            try:
                events = self._connection.receive(data)
                for event in events:
                    if isinstance(event, Closed):
                        raise ConnectionResetError("the client closed")
                    if isinstance(event, Message):
                        await self._take(self._codec.decode(event.data), session)
            except ProtocolError as error:
                self._connection.close(1002, str(error))
                raise ConnectionResetError(str(error)) from error
            finally:
                if reply := self._connection.take():
                    self._duplex.write(reply)
        raise ConnectionResetError("the client is gone")

    async def _take(self, found: ChannelData | ChannelClosed | None, session: Session) -> None:
        if isinstance(found, ChannelClosed):
            if found.channel == channels.STDIN:
                session.close_stdin()
        elif found is None:
            return
        elif found.channel == channels.STDIN and found.data:
            session.write(found.data)
            await session.drain()
        elif found.channel == channels.RESIZE:
            for width, height in self._sizes.feed(found.data):
                session.resize(width, height)
