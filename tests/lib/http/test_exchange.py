"""Server and client together, over every transport."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from steersman.lib.clock import SystemClock
from steersman.lib.http.client import Address, HttpClient
from steersman.lib.http.joining import MOMENT, Joining
from steersman.lib.http.server import Server
from steersman.lib.http.streams import Outgoing
from steersman.lib.tasks import turn
from tests.lib.http.conftest import BIG


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_methods_and_queries(client: HttpClient, method: str) -> None:
    answer = await client.request(method, "/now?a=b%20c")
    assert (answer.status, await answer.read()) == (200, f"{method} a=b%20c".encode())
    assert answer.header("content-type") == "text/plain"
    assert answer.header("date") is not None


async def test_bodies_of_every_size(client: HttpClient) -> None:
    for size in (0, 1, 65_535, 65_536, 999_999):
        answer = await client.request("POST", "/echo", body=BIG[:size])
        assert await answer.read() == BIG[:size]


async def test_a_streamed_upload(client: HttpClient) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield BIG

    answer = await client.request("PUT", "/upload", body=parts())
    assert await answer.read() == b"%d" % (5 * len(BIG))


async def test_a_stream_is_read_as_it_comes(client: HttpClient) -> None:
    answer = await client.request("GET", "/stream")
    assert b"".join([chunk async for chunk in answer.chunks()]) == b"chunk 0\nchunk 1\nchunk 2\n"


async def test_a_stream_that_breaks_is_an_error(client: HttpClient) -> None:
    answer = await client.request("GET", "/broken-stream")
    with pytest.raises(ConnectionError):
        await answer.read()


async def test_upgrade_becomes_a_duplex(client: HttpClient) -> None:
    answer, duplex = await client.upgrade("POST", "/upgrade", [("connection", "Upgrade"), ("upgrade", "echo")])
    assert answer.status == 101
    assert duplex is not None
    for word in (b"one", b"two"):
        duplex.write(word)
        assert await duplex.read() == word.upper()
    duplex.close()


async def test_upgrade_refused_is_an_ordinary_answer(client: HttpClient) -> None:
    answer, duplex = await client.upgrade("GET", "/now?x", [("connection", "Upgrade"), ("upgrade", "echo")])
    assert (answer.status, duplex, await answer.read()) == (200, None, b"GET x")


async def test_no_body_where_none_belongs(client: HttpClient) -> None:
    assert (await client.request("GET", "/empty")).status == 204
    head = await client.request("HEAD", "/big")
    assert (head.header("content-length"), await head.read()) == (str(len(BIG)), b"")


async def test_the_connection_is_used_again(client: HttpClient, server: Server) -> None:
    for _ in range(20):
        assert await (await client.request("GET", "/now")).read() == b"GET "
    assert len(client._lines) == 1


async def test_many_at_once(client: HttpClient) -> None:
    async def one(number: int) -> None:
        answer = await client.request("POST", f"/{number}", body=b"%d" % number)
        assert (answer.header("x-path"), await answer.read()) == (f"/{number}", b"%d" % number)

    for _ in range(5):
        await asyncio.gather(*(one(number) for number in range(15)))


async def test_the_certificate_reaches_the_handler(client: HttpClient) -> None:
    expected = b"certificate" if client.address.tls else b"nobody"
    assert await (await client.request("GET", "/who")).read() == expected


@pytest.mark.parametrize("path", ["/fails", "/injects"])
async def test_a_handler_that_fails_is_500(client: HttpClient, path: str) -> None:
    answer = await client.request("GET", path)
    assert (answer.status, await answer.read()) == (500, b"internal error\n")
    assert (await client.request("GET", "/now")).status == 200


async def test_a_pooled_connection_that_died_is_replaced(client: HttpClient) -> None:
    await (await client.request("GET", "/now")).read()
    client._idle[0].transport.abort()
    assert (await client.request("POST", "/echo", body=b"x")).status == 200


@pytest.mark.parametrize("target", ["/a b", "/a\r\nx: y", "/a\n"])
async def test_the_client_injects_nothing(client: HttpClient, target: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        await client.request("GET", target)


async def test_nobody_there() -> None:
    with pytest.raises(ConnectionError):
        await HttpClient(Address("127.0.0.1", 1)).request("GET", "/")


async def test_drain_finishes_what_is_under_way(server: Server, port: int) -> None:
    client = HttpClient(Address("127.0.0.1", port))
    reading = asyncio.ensure_future(client.request("PUT", "/upload", body=_slow(server, port)))
    answer = await reading
    assert await answer.read() == b"10"
    with pytest.raises(ConnectionError):
        await HttpClient(Address("127.0.0.1", port)).request("GET", "/now")
    await client.close()


async def _slow(server: Server, port: int) -> AsyncIterator[bytes]:
    """Half a body, then the server is told to stop, then the other half."""
    yield b"12345"
    other = HttpClient(Address("127.0.0.1", port))
    await (await other.request("GET", "/now")).read()  # answered after the upload's head was read
    await other.close()
    closing = asyncio.ensure_future(server.close())
    await asyncio.wait([closing], timeout=0.05)
    yield b"67890"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "malformed HTTP response"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * (11 << 20), "the head of the response is too long"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * (2 << 20), "the head of the response is too long"),
        (b"HTTP/1.1 200", "the server closed the connection"),
        (b"", "the server closed the connection"),
    ],
    ids=["other protocol", "long header", "many headers", "cut", "silent"],
)
async def test_a_server_that_speaks_otherwise(answer: bytes, says: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    client = HttpClient(Address("127.0.0.1", server.sockets[0].getsockname()[1]))
    with pytest.raises(ConnectionError, match=says):
        await client.request("GET", "/")
    await client.close()
    server.close()
    await server.wait_closed()


async def keeps_alive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: int) -> None:
    """Answer so many requests, then hang up without a word when asked once more, or when the client hangs up."""
    for _ in range(answers):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    await reader.read(1)
    writer.close()


async def test_idle_connections_end() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await keeps_alive(reader, writer, 1)
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = HttpClient(Address(port=port), idle_seconds=0.001)
        assert await (await client.request("GET", "/")).read() == b"ok"
        await ended.wait()
        await client.close()


async def test_a_question_is_asked_again_where_the_kept_connection_ends_without_an_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await keeps_alive(reader, writer, 1)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = HttpClient(Address(port=server.sockets[0].getsockname()[1]))
        for _ in range(3):
            assert await (await client.request("POST", "/", repeatable=True)).read() == b"ok"
        with pytest.raises(ConnectionError):
            await client.request("POST", "/")
        await client.close()


async def test_pieces_that_come_together_are_one_write_and_keep_their_order() -> None:
    written: list[bytes] = []

    class Line(asyncio.WriteTransport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            written.append(bytes(data))

    joining = Joining(SystemClock().monotonic)
    first, second = (Outgoing(Line(), 1000, joining) for _ in range(2))
    first.send_soon(b"a")
    second.send_soon(b"b")
    first.send_soon(b"c")
    assert written == []
    await turn()
    assert written == []  # answers go first
    await turn()
    assert written == [b"ac", b"b"]
    first.send_soon(b"d")
    first.send(b"e")
    assert written[2:] == [b"de"]
    second.send_soon(b"f")
    await second.drain()
    assert written[3:] == [b"f"]
    first.send_soon(b"g")
    first.lost()
    with pytest.raises(ConnectionError):
        first.send_soon(b"h")
    await SystemClock().sleep(2 * MOMENT)
    assert written[4:] == []


async def test_a_stream_that_ends_has_sent_all(client: HttpClient) -> None:
    answer = await client.request("GET", "/framed")
    assert await answer.read() == b"one two "


@pytest.mark.parametrize("handed_over", [True, False])
async def test_nothing_waits_for_the_peer_to_say_that_the_last_piece_came(server: Server, *, handed_over: bool) -> None:
    if handed_over:
        listener = socket.create_server(("127.0.0.1", 0))
        await server.listen_on(listener)
        port = listener.getsockname()[1]
    else:
        port = await server.listen("127.0.0.1", 0)
    client = HttpClient(Address("127.0.0.1", port))
    await (await client.request("GET", "/now")).read()
    (accepted,) = [each._transport.get_extra_info("socket") for each in server._connections]
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await client.close()


async def test_the_longer_writing_to_many_takes_the_more_is_joined() -> None:
    now, written = [0.0], list[bytes]()

    class Line(asyncio.WriteTransport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            written.append(bytes(data))
            now[0] += 0.004

    out = Outgoing(Line(), 1000, Joining(lambda: now[0]))
    out.send_soon(b"a")
    await turn()
    await turn()
    now[0] += 0.0015  # a little less than half as long as it took
    out.send_soon(b"b")
    await turn()
    await turn()
    out.send_soon(b"c")
    assert written == [b"a"]
    await SystemClock().sleep(0.002)
    assert written == [b"a", b"bc"]
    now[0] += 1.0
    out.send_soon(b"d")
    await turn()
    await turn()
    assert written == [b"a", b"bc", b"d"]


async def test_who_reads_too_slowly_is_dropped_when_what_was_joined_is_sent() -> None:
    dropped: list[str] = []

    class Line(asyncio.WriteTransport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            dropped.append("written")

        def get_write_buffer_size(self) -> int:
            return 2000

        def abort(self) -> None:
            dropped.append("aborted")

    out = Outgoing(Line(), 1000, Joining(SystemClock().monotonic))
    out.on_close(lambda: dropped.append("told"))
    out.pause()
    out.send_soon(b"a")
    await turn()
    await turn()
    assert dropped == ["written", "aborted", "told"]
    with pytest.raises(ConnectionError):
        out.send_soon(b"b")
