"""Port-forward end to end: SPDY, SPDY inside a WebSocket, and the older channel form, to real TCP servers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steersman.kubelet.streaming.spdy import SpdyConnection, SpdyStream
from steersman.kubelet.streaming.websocket import Tunnel, WebSocket
from tests.kubelet.serving import World, drain, serving

PATH = "/portForward/default/web"
PROTOCOL = "portforward.k8s.io"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with serving(tmp_path) as made:
        yield made


async def _shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers in capitals, and says so at the end."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data.upper())
            await writer.drain()
        writer.write(b"END")
    writer.close()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A TCP server."""
    server = await asyncio.start_server(_shout, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture(params=["spdy", "tunnel"])
async def connection(request: pytest.FixtureRequest, world: World) -> AsyncIterator[SpdyConnection]:
    """SPDY as kubectl up to 1.30 and since 1.31 brings it."""
    if request.param == "spdy":
        made = await world.spdy(PATH, PROTOCOL)
    else:
        client = await world.websocket(PATH, "SPDY/3.1+portforward.k8s.io")
        made = SpdyConnection(Tunnel(WebSocket(client.duplex, client.wire)), server=False)
        world.tasks.spawn(made.run(), "client")
    yield made
    async with asyncio.timeout(2):
        await made.end()


def pair(connection: SpdyConnection, port: int | str, request: str = "0") -> tuple[SpdyStream, SpdyStream]:
    """The two streams of one connection, the error stream first, as kubectl opens them."""
    headers = [("port", str(port))] + ([("requestid", request)] if request else [])
    error = connection.open([*headers, ("streamtype", "error")])
    error.finish()
    return connection.open([*headers, ("streamtype", "data")]), error


async def test_both_directions_and_both_ends(connection: SpdyConnection, port: int) -> None:
    data, error = pair(connection, port)
    await data.write(b"hello ")
    await data.write(b"world")
    data.finish()
    assert await drain(data) == b"HELLO WORLDEND"
    assert await drain(error) == b""


async def test_a_client_without_request_ids(connection: SpdyConnection, port: int) -> None:
    for _ in range(2):
        data, error = pair(connection, port, request="")
        await data.write(b"x")
        data.finish()
        assert (await drain(data), await drain(error)) == (b"XEND", b"")


async def test_many_connections_at_once_and_large(connection: SpdyConnection, port: int) -> None:
    async def one(number: int) -> None:
        data, _ = pair(connection, port, str(number))
        sent = b"%d" % number * 100_000

        async def send() -> None:
            await data.write(sent)
            data.finish()

        sending = asyncio.ensure_future(send())
        assert await drain(data) == sent + b"END"
        await sending

    await asyncio.gather(*(one(number) for number in range(20)))


async def test_a_port_where_nobody_listens(connection: SpdyConnection, port: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        data, error = pair(connection, free.getsockname()[1])
        text = await drain(error)
    assert text.startswith(b"error forwarding port ")
    assert b"failed to connect to localhost" in text
    with pytest.raises(ConnectionError):
        await drain(data)
    data, _ = pair(connection, port, "again")
    data.finish()
    assert await drain(data) == b"END"


async def test_a_client_that_lets_go_frees_the_target(connection: SpdyConnection) -> None:
    there, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        there.set()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        gone.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    data, error = pair(connection, server.sockets[0].getsockname()[1])
    await data.write(b"x")
    async with asyncio.timeout(5):
        await there.wait()
        data.reset()
        assert await drain(error) == b""
        await gone.wait()
    server.close()


@pytest.mark.parametrize(
    "headers",
    [
        [("streamtype", "data")],
        [("port", "0"), ("streamtype", "data")],
        [("port", "65536"), ("streamtype", "data")],
        [("port", "٣"), ("streamtype", "data")],
        [("port", "80")],
        [("port", "80"), ("streamtype", "stdin")],
    ],
)
async def test_streams_that_make_no_sense_are_reset(world: World, headers: list[tuple[str, str]]) -> None:
    connection = await world.spdy(PATH, PROTOCOL)
    stream = connection.open([(name, value.encode("utf-8").decode("latin-1")) for name, value in headers])
    with pytest.raises(ConnectionError):
        await drain(stream)
    await connection.end()


async def test_a_second_stream_of_a_kind_is_reset(world: World) -> None:
    connection = await world.spdy(PATH, PROTOCOL)
    headers = [("port", "80"), ("streamtype", "data"), ("requestid", "7")]
    connection.open(headers)
    with pytest.raises(ConnectionError):
        await drain(connection.open(headers))
    await connection.end()


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""])
async def test_channels_begin_with_the_port(world: World, port: int, protocol: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
        client = await world.websocket(f"{PATH}?port={port}&port={closed}", protocol)
        await client.until(1, port.to_bytes(2, "little"))
        client.send(0, b"hello")
        await client.until(0, b"HELLO")
        await client.until(3, f"localhost:{closed}: Connection refused".encode())
    assert client.channels[0] == port.to_bytes(2, "little") + b"HELLO"
    assert client.channels[2] == closed.to_bytes(2, "little")
    assert client.channels[3].startswith(closed.to_bytes(2, "little") + b"error forwarding port")
    client.wire.close()
    client.flush()
    await client.end()


@pytest.mark.parametrize("query", ["", "?port=", "?port=0", "?port=80,x", "?port=65536", "?port=-1"])
async def test_channels_need_ports(world: World, query: str) -> None:
    headers = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
    headers.append(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="))
    answer, duplex = await world.client().upgrade("GET", PATH + query, headers)
    assert (answer.status, duplex) == (400, None)
