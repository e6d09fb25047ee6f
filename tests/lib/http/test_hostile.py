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
    "bare line feeds": b"GET /now HTTP/1.1\nHost: x\n\n",
    "bare line feed in the head": b"GET /now HTTP/1.1\r\nHost: x\n\r\n",
    "bare line feed at the end": b"GET /now HTTP/1.1\r\n" + HOST + b"X: y\n\r\n",
    "bare carriage return": b"GET /now HTTP/1.1\r\n" + HOST + b"X: y\rContent-Length: 5\r\n\r\n",
    "bare line feed in a chunk head": b"POST /e HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "space in a chunk head": b"POST /e HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
    "line feed in a chunk extension": b"POST /e HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n",
    "chunk size beyond every number": b"POST /e HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
    "hex chunk with a prefix": b"POST /e HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "coding with a vertical tab": b"POST /e HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "coding list": b"POST /e HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "two codings": b"POST /e HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "empty length": b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: \r\n\r\nhello",
    "two lengths in words": b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: 5 5\r\n\r\nhello",
    "negative length": b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: -5\r\n\r\nhello",
    "version with a space behind": b"GET /now HTTP/1.1 \r\n" + HOST + b"\r\n",
    "header without a name": b"GET /now HTTP/1.1\r\n: x\r\n" + HOST + b"\r\n",
    "nul in the target": b"GET /now\x00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
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


@pytest.mark.parametrize("byte", [*range(9), *range(10, 32), 127])
async def test_no_control_character_passes_in_a_header(port: int, byte: int) -> None:
    odd = bytes([byte])
    for field in (b"X: a" + odd + b"b", b"X" + odd + b": b", odd + b"X: b"):
        answer = await talk(port, b"GET /now HTTP/1.1\r\n" + field + b"\r\n" + HOST + b"\r\n")
        assert 200 not in statuses(answer), field


async def test_a_trailer_is_no_header(port: int) -> None:
    data = b"POST /headers HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = await talk(port, data + b"5\r\nhello\r\n0\r\nAuthorization: Bearer stolen\r\nHost: evil\r\n\r\n")
    assert statuses(answer) == [200]
    assert b"authorization" not in answer
    assert b"evil" not in answer


async def test_trailers_have_the_limit_of_headers(port: int) -> None:
    data = b"POST /headers HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    assert statuses(await talk(port, data + b"X: " + b"y" * 20_000 + b"\r\n\r\n")) == [431]


async def test_garbage_behind_a_request_does_not_cost_its_answer(port: int) -> None:
    slow = b"POST /later HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nslow"
    answer = await talk(port, slow + b"garbage\r\n\r\n" + b"GET /now?smuggled HTTP/1.1\r\n" + HOST + b"\r\n")
    assert statuses(answer) == [200, 400]
    assert b"slow" in answer
    assert b"smuggled" not in answer


async def test_a_peer_that_sends_no_more_still_gets_its_answers(port: int) -> None:
    slow = b"POST /later HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nslow"
    assert statuses(await talk(port, slow * 3)) == [200, 200, 200]


async def test_bytes_behind_an_upgrade_reach_the_duplex(port: int) -> None:
    ask = b"POST /upgrade HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    answer = await talk(port, ask + b"first words")
    assert answer.endswith(b"FIRST WORDS")


async def test_requests_behind_a_refused_upgrade_are_answered(port: int) -> None:
    ask = b"GET /now?1 HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    more = b"GET /now?2 HTTP/1.1\r\n" + HOST + b"\r\nGET /now?3 HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    answer = await talk(port, ask + more)
    assert statuses(answer) == [200, 200, 200]
    assert answer.endswith(b"GET 3")


async def test_an_upgrade_waits_for_what_came_before(port: int) -> None:
    slow = b"POST /later HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nslow"
    ask = b"POST /upgrade HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    answer = await talk(port, slow + ask + b"words")
    assert statuses(answer) == [200, 101]
    assert answer.endswith(b"WORDS")


async def test_answers_do_not_pile_up_in_memory(server: Server, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    ask = b"GET /big HTTP/1.1\r\n" + HOST + b"\r\n"
    writer.write(ask * 60)
    await writer.drain()
    other = await talk(port, b"GET /now HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert statuses(other) == [200]  # the first connection has been read by now
    (held,) = [each._transport for each in server._connections]
    assert held.get_write_buffer_size() < 3 * 1_048_576
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(10):
        for _ in range(60):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(1_048_576)
    writer.close()


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
        (b"GET http://other/now HTTP/1.1\r\n" + HOST + b"\r\n", 200),
        (b"GET ftp://other/now HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /%zz HTTP/1.1\r\n" + HOST + b"\r\n", 400),
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


async def test_a_peer_that_does_not_read_its_answer_is_cut_off() -> None:
    big = Response(200, [], b"x" * 20_000_000)
    asked = asyncio.Event()

    def answer(_: object) -> Response:
        asked.set()
        return big

    async with Server(answer, _FastClock(), limits=Limits(idle_seconds=0.05)) as server:
        port = await server.listen("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        async with asyncio.timeout(5):
            await asked.wait()
            while server._connections:
                await _FastClock().sleep(0)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(20_000_000)
        writer.close()


async def test_a_request_that_is_arriving_when_the_server_drains_is_answered() -> None:
    server = Server(handler, SystemClock())  # type: ignore[arg-type]
    port = await server.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /now HTTP/1.1\r\n" + HOST + b"\r\nPOST /e HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nha")
    await reader.readuntil(b"GET ")
    closing = asyncio.ensure_future(server.close())
    await asyncio.wait([closing], timeout=0.05)
    writer.write(b"lf")
    async with asyncio.timeout(5):
        answer = await reader.read()
        await closing
    assert answer.endswith(b"half")
    assert b"connection: close" in answer
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
