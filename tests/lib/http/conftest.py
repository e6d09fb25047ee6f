"""A server that answers what its path asks for, over plain TCP, TLS and a Unix socket."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steersman.cluster import certs
from steersman.lib.clock import SystemClock
from steersman.lib.http.client import Address, HttpClient, client_tls
from steersman.lib.http.limits import Limits
from steersman.lib.http.messages import Answer, Duplex, Request, Response, Stream, Upgrade, Writer
from steersman.lib.http.server import Server, server_tls
from steersman.lib.http.streams import ChunkWriter, frame

BIG = b"0123456789abcdef" * 65_536


async def echo_duplex(duplex: Duplex) -> None:
    while data := await duplex.read():
        duplex.write(data.upper())
        await duplex.drain()


async def three_chunks(writer: Writer) -> None:
    for number in range(3):
        writer.write(b"chunk %d\n" % number)
        await writer.drain()


async def framed(writer: Writer) -> None:
    assert isinstance(writer, ChunkWriter)
    for word in (b"one ", b"two "):
        writer.out.send_soon(frame(word))


async def broken_stream(writer: Writer) -> None:
    writer.write(b"begun")
    raise RuntimeError("broken on purpose")


async def answer_later(request: Request) -> Answer:
    if request.stream is not None:
        size = 0
        async for chunk in request.stream:
            size += len(chunk)
        return Response(200, [], b"%d" % size)
    return Response(200, [("x-path", request.path)], request.body)


def handler(request: Request) -> Answer | object:
    match request.path:
        case "/now":
            return Response(200, [("content-type", "text/plain")], f"{request.method} {request.query}".encode())
        case "/who":
            return Response(200, [], b"certificate" if request.peer.certificate else b"nobody")
        case "/big":
            return Response(200, [], [BIG[:100], BIG[100:]])
        case "/stream":
            return Stream(200, [], three_chunks)
        case "/framed":
            return Stream(200, [], framed)
        case "/broken-stream":
            return Stream(200, [], broken_stream)
        case "/upgrade":
            return Upgrade([("connection", "Upgrade"), ("upgrade", "echo")], echo_duplex)
        case "/headers":
            return Response(200, [], repr(request.headers).encode())
        case "/empty":
            return Response(204)
        case "/fails":
            raise RuntimeError("broken on purpose")
        case "/injects":
            return Response(200, [("x", "a\r\nset-cookie: b")], b"")
        case _:
            return answer_later(request)


LIMITS = Limits(body=1_000_000, target=4_096, headers=16_384, header_count=50, connections=20)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(
        handler,  # type: ignore[arg-type]
        SystemClock(),
        limits=LIMITS,
        streams=lambda request: request.path == "/upload",
    ) as made:
        yield made


@pytest.fixture
async def port(server: Server) -> int:
    return await server.listen("127.0.0.1", 0)


@pytest.fixture(params=["tcp", "tls", "fast tls", "unix"])
async def client(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> AsyncIterator[HttpClient]:
    if "tls" in request.param:
        everybody = certs.identities([], ["127.0.0.1"], "cluster.local")
        certs.ensure(tmp_path, everybody, time.time())  # noqa: TID251
        async with Server(
            handler,  # type: ignore[arg-type]
            SystemClock(),
            tls=server_tls(tmp_path / "apiserver.crt", tmp_path / "apiserver.key", [tmp_path / "ca.crt"]),
            limits=LIMITS,
            streams=server.streams,
        ) as secure:
            tls = client_tls(
                authority=tmp_path / "ca.crt", certificate=tmp_path / "admin.crt", key=tmp_path / "admin.key"
            )
            made = HttpClient(
                Address("127.0.0.1", await secure.listen("127.0.0.1", 0), tls), fast=request.param == "fast tls"
            )
            yield made
            await made.close()
        return
    if request.param == "unix":
        await server.listen_unix(tmp_path / "socket")
        made = HttpClient(Address("localhost", unix=tmp_path / "socket"))
    else:
        made = HttpClient(Address("127.0.0.1", await server.listen("127.0.0.1", 0)))
    yield made
    await made.close()
