"""Port-forward: connections of a client's machine carried to ports of a pod.

Owns the pairing of data and error streams over SPDY, and the port pairs of the older WebSocket form. Called by
`server`. Source: k8s.io/cri-streaming, portforward.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from steersman.engine.interface import RuntimeFailure
from steersman.kubelet.streaming.bytestream import ByteStream
from steersman.kubelet.streaming.spdy import SpdyConnection, SpdyStream
from steersman.kubelet.streaming.websocket import Channels
from steersman.lib.http.messages import Duplex
from steersman.lib.tasks import Tasks

log = logging.getLogger(__name__)

PROTOCOL = "portforward.k8s.io"

_CREATION = 30.0  # seconds between the two streams of a pair

Dial = Callable[[int], Awaitable[Duplex]]
"""Connects to a port of the pod. Raises RuntimeFailure."""


@dataclass(slots=True)
class _Pair:
    data: SpdyStream | None = None
    error: SpdyStream | None = None
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)


async def serve_spdy(connection: SpdyConnection, dial: Dial, pod: str) -> None:
    """Forward for as long as the client is there; one pair of streams for each of its connections."""
    pairs: dict[str, _Pair] = {}
    async with Tasks() as tasks:
        try:
            while (stream := await connection.accept()) is not None:
                if (pair := _paired(connection, pairs, stream)) is not None:
                    port = int(pair[0].header("port"))
                    tasks.spawn(_forward(*pair, port, dial, pod), f"port {port}")
        finally:
            for waiting in pairs.values():
                if waiting.timer is not None:
                    waiting.timer.cancel()


def _paired(
    connection: SpdyConnection, pairs: dict[str, _Pair], stream: SpdyStream
) -> tuple[SpdyStream, SpdyStream] | None:
    """The data and error streams of a request, once both are there."""
    kind = stream.header("streamtype")
    request = _request_id(stream, kind)
    if parse_port(stream.header("port")) is None or kind not in ("data", "error"):
        stream.reset()
        return None
    pair = pairs.setdefault(request, _Pair())
    if getattr(pair, kind) is not None:
        stream.reset()
        return None
    setattr(pair, kind, stream)
    connection.reply(stream)
    if pair.data is None or pair.error is None:
        pair.timer = asyncio.get_running_loop().call_later(_CREATION, _expire, pairs, request)
        return None
    del pairs[request]
    if pair.timer is not None:
        pair.timer.cancel()
    return pair.data, pair.error


def _expire(pairs: dict[str, _Pair], request: str) -> None:
    pair = pairs.pop(request)
    log.info("(request=%s) timed out waiting for streams", request)
    for stream in (pair.data, pair.error):
        if stream is not None:
            stream.reset()


def parse_port(text: str) -> int | None:
    """A port, or None when it is none."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    return number if 0 < number < 65536 else None


def _request_id(stream: SpdyStream, kind: str) -> str:
    """Clients that name no request open the error stream first and the data stream next."""
    return stream.header("requestid") or str(stream.number if kind == "error" else stream.number - 2)


async def _forward(data: ByteStream, error: ByteStream, port: int, dial: Dial, pod: str) -> None:
    """One connection, to its end."""
    try:
        target = await dial(port)
    except RuntimeFailure as failure:
        text = f"error forwarding port {port} to pod {pod}, uid : {failure}"
        log.info("%s", text)
        with contextlib.suppress(ConnectionError):
            await error.write(text.encode())
        error.finish()
        data.reset()
        return
    try:
        await _splice(data, target)
    finally:
        target.close()
        data.finish()
        error.finish()


async def _splice(data: ByteStream, target: Duplex) -> None:
    """Until the pod has nothing more to say, or the client has let go."""
    async with Tasks() as tasks:
        tasks.spawn(_up(data, target), "to the pod")
        down = tasks.spawn(_down(target, data), "from the pod")
        broken = tasks.spawn(_wait(data), "client")
        await asyncio.wait([down, broken], return_when=asyncio.FIRST_COMPLETED)


async def _wait(data: ByteStream) -> None:
    await data.broken()


async def _up(data: ByteStream, target: Duplex) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await data.read():
            target.write(piece)
            await target.drain()
        target.write_eof()


async def _down(target: Duplex, data: ByteStream) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await target.read():
            await data.write(piece)


async def serve_channels(connection: Channels, ports: Sequence[int], dial: Dial, pod: str) -> None:
    """Two channels for each port, data then errors; each begins with its port, two bytes, the low one first."""
    async with Tasks() as tasks:
        forwards = []
        for number, port in enumerate(ports):
            data, error = connection.streams[2 * number : 2 * number + 2]
            for stream in (data, error):
                await stream.write(port.to_bytes(2, "little"))
            forwards.append(tasks.spawn(_forward(data, error, port, dial, pod), f"port {port}"))
        await asyncio.wait(forwards)
    await connection.end()
