"""Requests that two readers could understand in two ways, and peers that misbehave. h11 is the oracle."""

from __future__ import annotations

import asyncio
import socket
import struct

import h11
import pytest

from steersman.lib.clock import SystemClock
from steersman.lib.http.limits import Limits
from steersman.lib.http.messages import Response, Stream, Writer
from steersman.lib.http.server import Server
from tests.lib.http.conftest import LIMITS, handler

HOST = b"Host: x\r\n"


async def talk(port: int, data: bytes) -> bytes:
    """Send bytes, end the sending side, read everything until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def statuses(answer: bytes) -> list[int]:
    """The status codes of the answers in a byte stream."""
    return [int(line[:3]) for line in answer.split(b"HTTP/1.1 ")[1:]]


def h11_accepts(data: bytes) -> bool:
    """Whether h11, as a server, reads exactly one sound request in `data`."""
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.EndOfMessage):
                return connection.trailing_data[0] == b""
            if event in (h11.NEED_DATA, h11.PAUSED):
                return False
    except h11.RemoteProtocolError:
        return False


AMBIGUOUS = {
    "length and chunked": b"POST /e HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "length list": b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: 5, 5\r\n\r\nhello",
    "signed length": b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\nhello",
    "hex length": b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: 0x5\r\n\r\nhello",
    "huge length": b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "space before colon": b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length : 5\r\n\r\nhello",
    "folded header": b"GET /now HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "coding twice": b"POST /e HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "other coding": b"POST /e HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
    "coding in disguise": b"POST /e HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST /e HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk size": b"POST /e HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "negative chunk": b"POST /e HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    "chunk without end": b"POST /e HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
    "no host": b"GET /now HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /now HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no version": b"GET /now\r\n\r\n",
    "bad version": b"GET /now HTTP/9.9\r\n" + HOST + b"\r\n",
    "bad method": b"G\x00T /now HTTP/1.1\r\n" + HOST + b"\r\n",
    "bad name": b"GET /now HTTP/1.1\r\n" + HOST + b"X\x01: y\r\n\r\n",
    "nul in value": b"GET /now HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n",
    "no colon": b"GET /now HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n",
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,
}


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_ambiguous_requests_are_refused_and_closed(port: int, data: bytes) -> None:
    smuggled = b"GET /now?smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = await talk(port, data + smuggled)
    assert b"smuggled" not in answer
    assert all(status >= 400 for status in statuses(answer))
    assert len(statuses(answer)) <= 1


SOUND = {
    "plain": b"GET /now HTTP/1.1\r\n" + HOST + b"\r\n",
    "same length twice is one list": b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
    "chunked": b"POST /e HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunk extension": b"POST /e HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
    "http/1.0": b"GET /now HTTP/1.0\r\n\r\n",
    "tabs around values": b"GET /now HTTP/1.1\r\nHost:\tx\t\r\n\r\n",
}


@pytest.mark.parametrize("data", SOUND.values(), ids=SOUND.keys())
async def test_sound_requests_are_sound_to_both(port: int, data: bytes) -> None:
    assert h11_accepts(data)
    assert statuses(await talk(port, data)) == [200]


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_we_accept_nothing_that_h11_refuses(port: int, data: bytes) -> None:
    if not h11_accepts(data):
        assert 200 not in statuses(await talk(port, data))


async def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    data = b"".join(b"GET /now?%d HTTP/1.1\r\n" % n + HOST + b"\r\n" for n in range(100))
    slow = b"POST /later HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nslow"
    answer = await talk(port, slow + data + b"GET /now?last HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    bodies = [part.split(b"\r\n\r\n", 1)[1] for part in answer.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"slow", *(b"GET %d" % n for n in range(100)), b"GET last"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 5_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /now HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /now HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 60 + b"\r\n", 431),
        (b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: 1000001\r\n\r\n", 413),
        (
            b"POST /e HTTP/1.1\r\n"
            + HOST
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + (b"FFFF\r\n" + b"x" * 65535 + b"\r\n") * 20,
            413,
        ),
        (b"GET /now HTTP/1.1\r\n" + HOST + b"Expect: 200-ok\r\n\r\n", 417),
        (b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET http://other/now HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ],
)
async def test_limits_have_their_status(port: int, data: bytes, status: int) -> None:
    assert statuses(await talk(port, data)) == [status]


async def test_continue_is_sent_when_asked_for(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /e HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"ok")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_a_connection_too_many_is_told(server: Server, port: int) -> None:
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(LIMITS.connections)]
    for reader, writer in held:
        writer.write(b"GET /now HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
    assert statuses(await talk(port, b"GET /now HTTP/1.1\r\n" + HOST + b"\r\n")) == [503]
    for _, writer in held:
        writer.close()


class _FastClock(SystemClock):
    """Real time, but the sweeper does not wait."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(0.01)


@pytest.mark.parametrize(
    "begun", [b"", b"GET /now HT", b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nab"]
)
async def test_a_slow_sender_is_cut_off(begun: bytes) -> None:
    limits = Limits(head_seconds=0.05, body_seconds=0.05, idle_seconds=0.05)
    async with Server(handler, _FastClock(), limits=limits) as server:  # type: ignore[arg-type]
        port = await server.listen("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        async with asyncio.timeout(5):
            answer = await reader.read()
        assert statuses(answer) == ([408] if begun else [])
        writer.close()


async def test_a_slow_reader_is_dropped_and_the_writer_told() -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def flood(writer: Writer) -> None:
        writer.on_close(lambda: told.set_result("closed"))
        while True:
            writer.write(b"x" * 65_536)

    async with Server(lambda _: Stream(200, [], flood), SystemClock(), limits=Limits(write_buffer=1 << 20)) as server:
        port = await server.listen("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        async with asyncio.timeout(5):
            assert await told == "closed"
        with pytest.raises(ConnectionError):
            while await reader.read(1 << 20):
                pass
            raise ConnectionResetError
        writer.close()


async def test_a_peer_that_resets_ends_its_stream() -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait(writer: Writer) -> None:
        writer.write(b"hello")
        writer.on_close(lambda: told.set_result("closed"))
        await asyncio.get_running_loop().create_future()

    async with Server(lambda _: Stream(200, [], wait), SystemClock()) as server:
        port = await server.listen("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"hello")
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        async with asyncio.timeout(5):
            assert await told == "closed"


async def test_a_closing_server_ends_streams() -> None:
    async def wait(writer: Writer) -> None:
        gone = asyncio.Event()
        writer.write(b"hello")
        writer.on_close(gone.set)
        await gone.wait()

    server = Server(lambda r: Stream(200, [], wait) if r.path == "/s" else Response(200), SystemClock())
    port = await server.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /s HTTP/1.1\r\n" + HOST + b"\r\n")
    await reader.readuntil(b"hello")
    async with asyncio.timeout(2):
        await server.close()
        await reader.read()
    writer.close()
