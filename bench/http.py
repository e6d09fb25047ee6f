"""CPU time per GET of the HTTP server, against a server that does not even parse; of watch events, `bench.fanout`.

python -m bench.http [seconds]

The floor is a protocol that answers every read with the same bytes, on the same loop and the same TLS. Each server is
a process of its own; what it used is its own process time.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import aiofastnet
import uvloop

from steersman.cluster import certs
from steersman.lib.clock import SystemClock
from steersman.lib.http.client import client_tls
from steersman.lib.http.memory import keep_read_buffers
from steersman.lib.http.messages import Request, Response
from steersman.lib.http.server import Server, server_tls

BODY = b"x" * 3_400
CONNECTIONS = 64
_WINDOWS = 5  # the best of so many counts: others use this machine too
HEADERS = [("content-type", "application/json"), ("cache-control", "no-cache, private"), ("audit-id", "0" * 36)]
ASK = (
    b"GET /api/v1/namespaces/default/pods/web-1 HTTP/1.1\r\nHost: 127.0.0.1:6443\r\n"
    b"User-Agent: kubectl/v1.36.3 (linux/amd64) kubernetes/0000000\r\nAccept: application/json\r\n"
    b"Accept-Encoding: gzip\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef\r\n\r\n"
)


class Floor(asyncio.Protocol):
    """Answers whatever comes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answer)


class Asker(asyncio.Protocol):
    """Asks again as soon as it has the answer, whose size it learns from the first one."""

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._got = 0
        self._size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(ASK)

    def data_received(self, data: bytes) -> None:
        self._got += len(data)
        if not self._size:
            top = bytes(data).find(b"\r\n\r\n")
            self._size = top + 4 + len(BODY)
        if self._got >= self._size:
            self._got = 0
            self._done()
            self.transport.write(ASK)


def contexts(folder: Path, tls: bool) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """Server's and client's TLS."""
    if not tls:
        return None, None
    ours = server_tls(folder / "apiserver.crt", folder / "apiserver.key", [folder / "ca.crt"])
    return ours, client_tls(authority=folder / "ca.crt")


def serve(kind: str, folder: Path, tls: bool, pipe: Pipe) -> None:
    """The process under measurement: tells its port, then its process time whenever asked."""
    pin(0)
    uvloop.run(_serve(kind, folder, tls, pipe))


async def _serve(kind: str, folder: Path, tls: bool, pipe: Pipe) -> None:
    context, loop = contexts(folder, tls)[0], asyncio.get_running_loop()
    keep_read_buffers()
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
    response = Response(200, HEADERS, BODY)

    def handler(request: Request) -> Response:
        return response

    async def later(request: Request) -> Response:
        return response

    if kind == "floor":
        floor = await aiofastnet.create_server(loop, lambda: Floor(answer), "127.0.0.1", 0, ssl=context)
        pipe.send(floor.sockets[0].getsockname()[1])
    else:
        server = Server(later if kind == "task" else handler, SystemClock(), tls=context)
        pipe.send(await server.listen("127.0.0.1", 0))
    asked: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(pipe.fileno(), lambda: asked.put_nowait(pipe.recv()))
    while await asked.get() != "end":
        pipe.send(time.process_time())


async def gets(port: int, context: ssl.SSLContext | None, pipe: Pipe, seconds: float) -> tuple[float, float]:
    """Microseconds of the server's CPU per GET, and GETs per second."""
    loop, count = asyncio.get_running_loop(), 0

    def done() -> None:
        nonlocal count
        count += 1

    for _ in range(CONNECTIONS):
        await aiofastnet.create_connection(loop, lambda: Asker(done), "127.0.0.1", port, ssl=context)
    await asyncio.sleep(0.3)
    windows = []
    for _ in range(_WINDOWS):
        before, began, first = _usage(pipe), time.monotonic(), count
        await asyncio.sleep(seconds / _WINDOWS)
        used, took, answered = _usage(pipe) - before, time.monotonic() - began, count - first
        windows.append((used / answered * 1e6, answered / took))
    return min(windows)


def _usage(pipe: Pipe) -> float:
    pipe.send("usage")
    found: float = pipe.recv()
    return found


def pin(which: int) -> None:
    """Keep to one processor, so that server and client do not push each other around."""
    os.sched_setaffinity(0, {which % (os.cpu_count() or 1)})


def measure(kind: str, folder: Path, tls: bool, seconds: float) -> tuple[float, float]:
    """One server, one client process."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(kind, folder, tls, there))
    server.start()
    port, context = here.recv(), contexts(folder, tls)[1]
    try:
        return uvloop.run(gets(port, context, here, seconds))
    finally:
        here.send("end")
        server.join()


def main() -> None:
    """Print a table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    pin(1)
    keep_read_buffers()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certs.ensure(folder, certs.identities([], ["127.0.0.1"], "cluster.local"), time.time())
        for tls in (False, True):
            where = "TLS  " if tls else "plain"
            floor, _ = measure("floor", folder, tls, seconds)
            print(f"{where} floor: same bytes, no parsing    {floor:6.1f} us")
            for kind, text in (("get", "GET, answered at once"), ("task", "GET, answered by a task")):
                cost, rate = measure(kind, folder, tls, seconds)
                print(f"{where} {text:32} {cost:6.1f} us  {cost / floor:5.2f} x floor  {rate:8.0f}/s")


if __name__ == "__main__":
    main()
