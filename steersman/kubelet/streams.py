"""exec and attach: an engine session joined to a client's streams.

Owns the pumping between an `engine.interface.Session` and the channels of a connection, over WebSocket or SPDY. Called by
the kubelet's HTTPS server. Source: KEP-4006, cri-streaming's remotecommand.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from steersman.engine.interface import RuntimeFailure, Session
from steersman.lib.http.messages import Duplex
from steersman.lib.tasks import Tasks
from steersman.wire import channels, websocket
from steersman.wire.channels import Channels
from steersman.wire.websocket import Closed, ProtocolError


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


async def _pump_all(
    client: Client, session: Session, options: StreamOptions, reading: asyncio.Task[None]
) -> None:
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
        self._reader = websocket.Reader()
        self._channels = Channels(protocol)
        self._finished = False

    def output(self, channel: int, data: bytes) -> None:
        """Send output on a channel."""
        self._duplex.write(self._channels.write(channel, data))

    async def drain(self) -> None:
        """Wait until the connection has room."""
        await self._duplex.drain()

    async def finish(self, exit_code: int) -> None:
        """The Status, then a close frame."""
        self._finished = True
        self._duplex.write(self._channels.status(exit_code) + websocket.close_frame())
        await self._duplex.drain()

    async def fail(self, text: str) -> None:
        """A failure Status, then a close frame."""
        body = json.dumps(channels.failure(text)).encode() if self._channels.statuses else text.encode()
        self._duplex.write(self._channels.write(channels.ERROR, body) + websocket.close_frame())
        await self._duplex.drain()

    async def read(self, session: Session) -> None:
        """Standard input and sizes. Raises ConnectionError when the client leaves."""
        while data := await self._duplex.read():
            try:
                messages = self._reader.receive(data)
            except ProtocolError as error:
                self._duplex.write(websocket.close_frame(error.code, str(error)))
                raise ConnectionResetError(str(error)) from error
            if self._reader.replies:
                self._duplex.write(self._reader.replies)
                self._reader.replies = b""
            for message in messages:
                if isinstance(message, Closed):
                    raise ConnectionResetError("the client closed")
                await self._take(message, session)
        raise ConnectionResetError("the client is gone")

    async def _take(self, message: websocket.Message, session: Session) -> None:
        try:
            found = self._channels.read(message)
        except ProtocolError as error:
            raise ConnectionResetError(str(error)) from error
        if found is None:
            return
        if found.channel == channels.STDIN:
            if found.closed:
                session.close_stdin()
            elif found.data:
                session.write(found.data)
                await session.drain()
        elif found.channel == channels.RESIZE and not found.closed:
            resize(session, found.data)


def resize(session: Session, data: bytes) -> None:
    """Apply `{"Width":80,"Height":24}`; anything else is ignored, as the original does."""
    try:
        size = json.loads(data)
        session.resize(int(size["Width"]), int(size["Height"]))
    except (ValueError, KeyError, TypeError):
        return
