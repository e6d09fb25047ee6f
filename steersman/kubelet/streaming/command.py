"""exec and attach: a running session's streams to and from a client.

Owns which streams a client gets, over SPDY stream types or WebSocket channels, and how a command's end is told. Called
by `server`. Source: k8s.io/cri-streaming, remotecommand; KEP-4006 for v5.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from steersman.engine.interface import RuntimeFailure, Session
from steersman.kubelet.streaming.bytestream import ByteStream, Multiplex
from steersman.kubelet.streaming.spdy import SpdyConnection
from steersman.kubelet.streaming.websocket import Channels
from steersman.lib.tasks import Tasks
from steersman.wire import channels
from steersman.wire.channels import ResizeDecoder
from steersman.wire.spdy import ProtocolError

log = logging.getLogger(__name__)

SPDY_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")

_CREATION = 30.0  # seconds for a client to open all its streams

Begin = Callable[[], Awaitable[Session]]
"""Starts the session, once the client's streams are there. Raises RuntimeFailure."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the client asked for. With a terminal there is no error output."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


@dataclass(slots=True)
class CommandStreams:
    """A client's ends of the streams; None where there is none."""

    error: ByteStream
    stdin: ByteStream | None = None
    stdout: ByteStream | None = None
    stderr: ByteStream | None = None
    resize: ByteStream | None = None


async def spdy_streams(connection: SpdyConnection, wanted: Wanted, protocol: str) -> CommandStreams | None:
    """Wait for the streams that a client opens; None when it does not, in time."""
    expected = {"error"} | {name for name in ("stdin", "stdout", "stderr") if getattr(wanted, name)}
    if wanted.tty and protocol.startswith(("v3.", "v4.")):
        expected.add("resize")
    found: dict[str, ByteStream] = {}
    try:
        async with asyncio.timeout(_CREATION):
            while not expected <= found.keys():
                stream = await connection.accept()
                if stream is None:
                    return None
                kind = stream.header("streamtype")
                if kind not in expected or kind in found:
                    log.info("unexpected stream type: %r", kind)
                    stream.reset()
                    continue
                found[kind] = stream
                connection.reply(stream)
    except TimeoutError:
        log.info("timed out waiting for client to create streams")
        return None
    return CommandStreams(**found)


async def channel_streams(connection: Channels, wanted: Wanted) -> CommandStreams:
    """The channels as streams. An empty message first tells the client that the connection stands."""
    stdin, stdout, stderr, error, resize = connection.streams
    lowest = stdout if wanted.stdout else stderr if wanted.stderr else error
    await lowest.write(b"")
    return CommandStreams(
        error=error,
        stdin=stdin if wanted.stdin else None,
        stdout=stdout if wanted.stdout else None,
        stderr=stderr if wanted.stderr else None,
        resize=resize,
    )


async def serve(connection: Multiplex, streams: CommandStreams, begin: Begin, protocol: str, what: str) -> None:
    """See a session through: its streams, its end. `what` begins the message of a failure."""
    try:
        session = await begin()
    except RuntimeFailure as failure:
        await _tell(connection, streams, channels.internal_error(f"{what}: {failure}"), protocol)
        return
    try:
        async with Tasks() as tasks:
            work = tasks.spawn(_see_through(session, streams, tasks, what), what)
            gone = tasks.spawn(connection.closed(), "client")
            await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not work.cancelled() and work.exception() is None:
                await _tell(connection, streams, work.result(), protocol)
    finally:
        await session.close()


async def _see_through(session: Session, streams: CommandStreams, tasks: Tasks, what: str) -> dict[str, Any]:
    """Until the output has ended and the exit code is known: the Status to send."""
    tasks.spawn(_feed(session, streams.stdin), "stdin")
    if streams.resize is not None:
        tasks.spawn(_resize(session, streams.resize), "resize")
    outputs = [
        tasks.spawn(_copy(session.read_stdout, streams.stdout), "stdout"),
        tasks.spawn(_copy(session.read_stderr, streams.stderr), "stderr"),
    ]
    await asyncio.wait(outputs)
    try:
        return channels.exit_status(await session.wait())
    except RuntimeFailure as failure:
        return channels.internal_error(f"{what}: {failure}")


async def _feed(session: Session, stdin: ByteStream | None) -> None:
    try:
        while stdin is not None and (data := await stdin.read()):
            session.write(data)
            await session.drain()
        session.close_stdin()
    except ConnectionError:
        return  # the client is gone, or the program does not read


async def _copy(read: Callable[[], Awaitable[bytes]], sink: ByteStream | None) -> None:
    """Output that nobody wants, or that nobody takes any more, is read all the same: the program must not stall."""
    while data := await read():
        if sink is not None:
            try:
                await sink.write(data)
            except ConnectionError:
                sink = None
    if sink is not None:
        sink.finish()


async def _resize(session: Session, stream: ByteStream) -> None:
    decoder = ResizeDecoder()
    try:
        while data := await stream.read():
            for width, height in decoder.feed(data):
                session.resize(width, height)
    except (ConnectionError, ProtocolError):
        return


async def _tell(connection: Multiplex, streams: CommandStreams, status: dict[str, Any], protocol: str) -> None:
    try:
        if data := channels.encode_status(status, protocol):
            await streams.error.write(data)
        for stream in (streams.stdout, streams.stderr, streams.error):
            if stream is not None:
                stream.finish()
        await connection.end()
    except ConnectionError:
        return
