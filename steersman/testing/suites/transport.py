"""The transport's contract, as functions: every implementation of `lib.http.messages.Transport` passes all of them.

Called once per implementation: `for check in CHECKS: await check(transport, far)`, with a transport that leads to
`far.answer`. The far end and the checks share a process, so that a check can see what the far end saw.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from steersman.lib.http.messages import Answer, Duplex, Request, Response, Stream, Transport, Upgrade, Writer

_PATIENCE = 10.0  # seconds for anything that must happen
_LARGE = bytes(range(256)) * 2_000


class FarEnd:
    """A handler that shows what reached it. One for each check."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()  # lets a waiting stream write its second half
        self.gone = asyncio.Event()  # a stream's reader went away

    def answer(self, request: Request) -> Answer:
        """Answer by path."""
        match request.path:
            case "/stream":
                return Stream(200, [("content-type", "text/plain")], self._two_halves)
            case "/endless":
                return Stream(200, [], self._endless)
            case "/broken":
                return Stream(200, [], self._broken)
            case "/upgrade":
                return Upgrade([("connection", "Upgrade"), ("upgrade", "shout")], self._shout)
            case "/parts":
                return Response(200, [], [b"one ", b"two ", b"three"])
            case "/missing":
                return Response(404, [("x-why", "not there")], b"missing")
            case _:
                line = f"{request.method} {request.path}?{request.query} {request.header('x-word')} "
                return Response(200, [("x-path", request.path)], line.encode() + request.body)

    async def _two_halves(self, writer: Writer) -> None:
        writer.write(b"first")
        await writer.drain()
        await self.go_on.wait()
        writer.write(b"second")

    async def _endless(self, writer: Writer) -> None:
        writer.on_close(self.gone.set)
        writer.write(b"first")
        await self.gone.wait()

    async def _broken(self, writer: Writer) -> None:
        writer.write(b"begun")
        raise ConnectionResetError("broken on purpose")

    async def _shout(self, duplex: Duplex) -> None:
        while data := await duplex.read():
            duplex.write(data.upper())
            await duplex.drain()


async def _text(transport: Transport, method: str, target: str, body: bytes = b"") -> bytes:
    answer = await transport.request(method, target, [("x-word", "hello")], body)
    assert answer.status == 200, answer.status
    return await answer.read()


async def request_arrives_whole(transport: Transport, far: FarEnd) -> None:
    """Method, path and query as they were encoded, headers and body."""
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        body = b"" if method == "GET" else b"body"
        assert await _text(transport, method, "/a%20b?c=%2F", body) == f"{method} /a%20b?c=%2F hello ".encode() + body


async def bodies_keep_their_bytes(transport: Transport, far: FarEnd) -> None:
    """Any byte, any size, in one piece or several."""
    for size in (0, 1, 65_536, len(_LARGE)):
        answer = await transport.request("POST", "/", [("x-word", "")], _LARGE[:size])
        assert (await answer.read()).endswith(_LARGE[:size])

    async def parts() -> AsyncIterator[bytes]:
        yield b"one, "
        yield b"two"

    answer = await transport.request("POST", "/", [], parts())
    assert (await answer.read()).endswith(b"one, two")
    assert await _text(transport, "GET", "/parts") == b"one two three"


async def status_and_headers_come_back(transport: Transport, far: FarEnd) -> None:
    """An error's status is an answer, not an exception; a header is found by its lower-case name."""
    answer = await transport.request("GET", "/missing")
    assert (answer.status, answer.header("x-why"), answer.header("x-other")) == (404, "not there", None)
    assert await answer.read() == b"missing"


async def stream_is_read_while_it_is_written(transport: Transport, far: FarEnd) -> None:
    """The first half is here before the second is written: a watch depends on it."""
    answer = await transport.request("GET", "/stream")
    chunks = answer.chunks()
    async with asyncio.timeout(_PATIENCE):
        assert await anext(chunks) == b"first"
        far.go_on.set()
        assert b"".join([chunk async for chunk in chunks]) == b"second"


async def broken_stream_is_no_end(transport: Transport, far: FarEnd) -> None:
    """Who reads a stream that breaks off is told so."""
    answer = await transport.request("GET", "/broken")
    try:
        async with asyncio.timeout(_PATIENCE):
            await answer.read()
    except ConnectionError:
        return
    raise AssertionError("a broken stream looked whole")


async def closed_answer_is_felt_at_the_far_end(transport: Transport, far: FarEnd) -> None:
    """Who stops reading frees what writes; closing twice is harmless; the transport goes on."""
    answer = await transport.request("GET", "/endless")
    async with asyncio.timeout(_PATIENCE):
        assert await anext(answer.chunks()) == b"first"
        await answer.close()
        await answer.close()
        await far.gone.wait()
    assert await _text(transport, "GET", "/") == b"GET /? hello "


async def many_side_by_side(transport: Transport, far: FarEnd) -> None:
    """Answers belong to their requests."""

    async def one(number: int) -> bool:
        answer = await transport.request("POST", f"/{number}", [], b"%d" % number)
        return answer.header("x-path") == f"/{number}" and (await answer.read()).endswith(b"%d" % number)

    assert all(await asyncio.gather(*(one(number) for number in range(50))))


async def upgrade_talks_both_ways_or_says_no(transport: Transport, far: FarEnd) -> None:
    """A duplex after 101; a transport without connections raises ConnectionError; a refusal is an answer."""
    asked = [("connection", "Upgrade"), ("upgrade", "shout")]
    try:
        answer, duplex = await transport.upgrade("POST", "/upgrade", asked)
    except ConnectionError as error:
        assert "no connection to upgrade" in str(error)
        return
    assert answer.status == 101 and duplex is not None
    async with asyncio.timeout(_PATIENCE):
        for word in (b"one", b"two"):
            duplex.write(word)
            assert await duplex.read() == word.upper()
    duplex.close()
    answer, duplex = await transport.upgrade("GET", "/missing", asked)
    assert (answer.status, duplex, await answer.read()) == (404, None, b"missing")


Check = Callable[[Transport, FarEnd], Awaitable[None]]
CHECKS: list[Check] = [
    request_arrives_whole,
    bodies_keep_their_bytes,
    status_and_headers_come_back,
    stream_is_read_while_it_is_written,
    broken_stream_is_no_end,
    closed_answer_is_felt_at_the_far_end,
    many_side_by_side,
    upgrade_talks_both_ways_or_says_no,
]
