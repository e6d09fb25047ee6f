"""CPU time per small POST of the HTTP client over TLS, against a protocol that sends the same bytes and parses nothing.

python -m bench.httpclient [requests]

Both ask the same server, a process of its own, one request after the other on 8 connections; what is counted is the
asking process's CPU alone.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import aiofastnet
import uvloop

from bench.http import contexts, serve
from steersman.cluster import certs
from steersman.lib.http.client import Address, HttpClient
from steersman.lib.http.memory import keep_read_buffers

_AT_ONCE = 8
_BODY = b'{"apiVersion":"v1","kind":"Binding"}' * 5
_HEADERS = [("user-agent", "bench"), ("accept", "application/json"), ("content-type", "application/json")]


class _Floor(asyncio.Protocol):
    """Asks again as soon as it has the answer."""

    def __init__(self, asked: bytes, times: int) -> None:
        self._asked, self._left, self._size, self._got = asked, times, 0, 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        self._got += len(data)
        self._size = self._size or self._got  # the first answer came in one piece
        if self._got < self._size:
            return
        self._got = 0
        self._left -= 1
        if self._left:
            self._transport.write(self._asked)
        elif not self.done.done():
            self.done.set_result(None)


async def _measure(port: int, folder: Path, times: int) -> tuple[float, float]:
    """Microseconds of CPU a request: the floor's and the client's."""
    keep_read_buffers()
    loop, tls = asyncio.get_running_loop(), contexts(folder, True)[1]
    head = "".join(f"{name}: {value}\r\n" for name, value in _HEADERS)
    top = f"POST /api/v1/bind HTTP/1.1\r\nhost: 127.0.0.1\r\n{head}content-length: {len(_BODY)}\r\n\r\n"
    asked = top.encode() + _BODY
    began = time.process_time()
    made = [
        (await aiofastnet.create_connection(loop, lambda: _Floor(asked, times), "127.0.0.1", port, ssl=tls))[1]
        for _ in range(_AT_ONCE)
    ]
    for each in made:
        await each.done
    floor = (time.process_time() - began) / (times * _AT_ONCE)
    client = HttpClient(Address("127.0.0.1", port, tls), fast=True)

    async def ask(number: int) -> None:
        for _ in range(number):
            response = await client.request("POST", "/api/v1/bind", _HEADERS, _BODY)
            await response.read()

    await asyncio.gather(*(ask(10) for _ in range(_AT_ONCE)))
    began = time.process_time()
    await asyncio.gather(*(ask(times) for _ in range(_AT_ONCE)))
    return floor * 1e6, (time.process_time() - began) / (times * _AT_ONCE) * 1e6


def main() -> None:
    """Print one line."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certs.ensure(folder, certs.identities([], ["127.0.0.1"], "cluster.local"), time.time())
        mine, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=("fast", folder, True, theirs))
        server.start()
        port = mine.recv()
        best = min((uvloop.run(_measure(port, folder, times)) for _ in range(3)), key=lambda found: found[1])
        mine.send("end")
        server.join()
    print(f"POST over TLS: floor {best[0]:.1f} us, client {best[1]:.1f} us, {best[1] / best[0]:.2f}x")


if __name__ == "__main__":
    main()
