from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from steersman.kubelet import actions, grpchealth
from steersman.kubelet.actions import Outcome

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def says(*parts: bytes, hold: bool = False) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
        if hold:
            await reader.read()

    return answer


async def get(port: int, timeout: float = 2.0, **more: object) -> Outcome:
    return await actions.http_get({"port": port, "path": "/x", **more}, {}, "127.0.0.1", timeout, "kube-probe/1")


@pytest.mark.parametrize(
    ("answer", "ok", "text"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", True, "hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True, ""),
        (b"HTTP/1.1 399 Odd\r\n\r\n", True, ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\nsecret", False, "HTTP probe failed with statuscode: 404"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", False, "HTTP probe failed with statuscode: 500"),
        (b"nonsense\r\n\r\n", False, "malformed HTTP response"),
        (b"", False, "EOF"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\n\r\n", True, "Probe terminated redirects"),
        (b"HTTP/1.1 200 " + b"x" * 100_000, False, ""),
    ],
)
async def test_http_answers(answer: bytes, ok: bool, text: str) -> None:
    async with listening(says(answer)) as port:
        found = await get(port)
    assert found.ok is ok and not found.unknown
    assert text in found.output
    assert found.warning is (text == "Probe terminated redirects")


async def test_a_connection_that_stays_open_after_an_empty_answer_is_fine() -> None:
    for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"):
        async with listening(says(answer, hold=True)) as port:
            assert (await get(port)).ok


async def test_http_sends_what_the_original_sends() -> None:
    received: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with listening(answer) as port:
        await get(port, httpHeaders=[{"name": "Host", "value": "my.host"}, {"name": "X-A", "value": "b"}])
    lines = received[0].decode().split("\r\n")
    assert lines[0] == "GET /x HTTP/1.1"
    assert {"Host: my.host", "X-A: b", "User-Agent: kube-probe/1", "Accept: */*"} <= set(lines)


async def test_redirects_on_the_same_host_are_followed_but_not_for_ever() -> None:
    async with listening(says(b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n")) as port:
        found = await get(port)
    assert not found.ok and "stopped after 10 redirects" in found.output


async def test_a_target_that_never_answers_times_out() -> None:
    async with listening(says(hold=True)) as port:
        found = await get(port, timeout=0.05)
        assert not found.ok and "context deadline exceeded" in found.output


async def test_nobody_listens() -> None:
    async with listening(says()) as port:
        pass
    assert (await get(port)).output.endswith(f"dial tcp 127.0.0.1:{port}: connect: connection refused")
    assert (await actions.connect("127.0.0.1", port, 1)) == Outcome(
        False, f"dial tcp 127.0.0.1:{port}: connect: connection refused"
    )


async def test_tcp() -> None:
    async with listening(says()) as port:
        assert (await actions.connect("127.0.0.1", port, 1)).ok


@pytest.mark.parametrize(("port", "wanted"), [(80, 80), ("web", 8080), ("99", 99)])
def test_ports_by_name(port: int | str, wanted: int) -> None:
    assert actions.port_number(port, {"ports": [{"name": "web", "containerPort": 8080}]}) == wanted


@pytest.mark.parametrize("port", [0, 70_000, "none", ""])
def test_ports_that_are_none(port: int | str) -> None:
    with pytest.raises(ValueError):
        actions.port_number(port, {})


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def health(status: int) -> bytes:
    message = bytes([8, status]) if status else b""
    return frame(0, 0, 1, b"\0" + struct.pack(">I", len(message)) + message)


def grpc(*frames: bytes, hold: bool = False) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)
        writer.write(frame(4, 0, 0, b""))
        for each in frames:
            writer.write(each)
        await writer.drain()
        while (await reader.read(100)) and hold:
            continue

    return answer


@pytest.mark.parametrize(
    ("frames", "ok", "text"),
    [
        ([frame(6, 0, 0, b"12345678"), health(1)], True, "service healthy"),
        ([health(2)], False, 'service unhealthy (responded with "NOT_SERVING")'),
        ([health(0)], False, 'service unhealthy (responded with "UNKNOWN")'),
        ([frame(1, 5, 1, b"")], False, "does not implement the grpc health protocol"),
        ([frame(7, 0, 0, b"\0" * 8)], False, "error: health rpc probe failed: the server ended the connection"),
        ([b"\xff\xff\xff" + b"\0" * 6], False, "frame too large"),
        ([b"\0\0"], False, "error: health rpc probe failed"),
    ],
)
async def test_grpc_health(frames: list[bytes], ok: bool, text: str) -> None:
    async with listening(grpc(*frames)) as port:
        found = await grpchealth.check("127.0.0.1", port, "my.service", 2)
    assert found.ok is ok
    assert text in found.output


async def test_grpc_that_stays_silent() -> None:
    async with listening(grpc(hold=True)) as port:
        found = await grpchealth.check("127.0.0.1", port, "", 0.05)
    assert found.output == "timeout: health rpc did not complete within 50ms"
