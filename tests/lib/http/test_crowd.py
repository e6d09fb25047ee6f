"""Streams that are sent the same, over real connections."""

from __future__ import annotations

import asyncio

from steersman.lib.clock import SystemClock
from steersman.lib.http.crowd import Crowd
from steersman.lib.http.limits import Limits
from steersman.lib.http.messages import Request, Stream, Writer
from steersman.lib.http.server import Server
from steersman.lib.http.streams import ChunkWriter, Outgoing, frame

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Hall:
    """A server whose every answer is one stream of a crowd."""

    def __init__(self) -> None:
        self.server = Server(self._answer, SystemClock(), limits=Limits(write_buffer=200_000))
        self.crowd = Crowd(self.server.joining)
        self.came = asyncio.Event()

    def _answer(self, request: Request) -> Stream:
        return Stream(200, [], self._run)

    async def _run(self, writer: Writer) -> None:
        assert isinstance(writer, ChunkWriter)
        ended = asyncio.Event()
        writer.on_close(ended.set)
        self.crowd.add(writer.out, ended.set)
        self.came.set()
        try:
            await ended.wait()
        finally:
            self.crowd.remove(writer.out)

    async def enter(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Somebody listens."""
        self.came.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(ASK)
        await self.came.wait()
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer


async def test_everybody_is_told_all_since_they_came_and_who_does_not_read_leaves() -> None:
    hall = Hall()
    async with hall.server, asyncio.timeout(20):
        port = await hall.server.listen("127.0.0.1", 0)
        first, leaving = await hall.enter(port)
        _, deaf = await hall.enter(port)
        deaf.transport.pause_reading()  # type: ignore[attr-defined]
        hall.crowd.send_soon(frame(b"before"))
        second, staying = await hall.enter(port)
        assert await first.readuntil(b"\r\nbefore\r\n")
        number = 0
        while len(hall.crowd) == 3:
            number += 1
            piece = frame(b"%06d" % number * 5_000)
            hall.crowd.send_soon(piece)
            for reader in (first, second):
                assert await reader.readexactly(len(piece)) == piece
        hall.crowd.send_soon(frame(b"last"))
        hall.crowd.end()
        for reader in (first, second):
            assert await reader.readexactly(14) == frame(b"last") + b"0\r\n\r\n"
        assert len(hall.crowd) == 0
        for writer in (leaving, deaf, staying):
            writer.close()


async def test_nothing_is_kept_for_nobody() -> None:
    sent: list[bytes] = []

    class Line(asyncio.WriteTransport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            sent.append(bytes(data))

    hall = Hall()
    out = Outgoing(Line(), 1000)
    hall.crowd.add(out, lambda: None)
    hall.crowd.send_soon(b"a")
    hall.crowd.send_soon(b"b")
    hall.crowd.remove(out)
    hall.crowd.send_soon(b"c")
    hall.crowd.flush()
    hall.crowd.add(out, lambda: None)
    hall.crowd.flush()
    assert sent == [b"ab"]
