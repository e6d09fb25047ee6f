"""CPU time per watch event delivered, by how it is handed out, against what the kernel and TLS alone take.

python -m bench.fanout [--watchers 100] [--rounds 20] [--events 10] [--gap 0]

The floors write the same bytes to each connection of a bare protocol, without and with TLS. Each server is a process of
its own on one processor, the readers are on the other; they are asked in turns, and what each used is its own process
time, in a quiet round. With a gap (seconds), caches are as cold as they are where little happens.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import ssl
import tempfile
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import aiofastnet
import uvloop

from bench.http import contexts, pin
from steersman.cluster import certs
from steersman.lib.clock import SystemClock
from steersman.lib.http.crowd import Crowd
from steersman.lib.http.memory import keep_read_buffers
from steersman.lib.http.messages import Request, Stream, Writer
from steersman.lib.http.server import Server
from steersman.lib.http.streams import ChunkWriter, Outgoing, frame

EVENT = frame(b"x" * 3_700)
_ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
_WAYS = (
    ("bare", False, "a write each, no TLS, no server"),
    ("bare", True, "a TLS record each, no server"),
    ("crowd", True, "a crowd, which is told once"),
    ("each", True, "streams, each told by itself"),
)


class Bare(asyncio.Protocol):
    """A connection without a server."""

    def __init__(self, lines: set[asyncio.Transport]) -> None:
        self._lines = lines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._lines.add(transport)  # type: ignore[arg-type]


class Reader(asyncio.Protocol):
    """Counts what comes."""

    def __init__(self) -> None:
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(_ASK)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.received += len(data)


def serve(kind: str, folder: Path, tls: bool, pipe: Pipe) -> None:
    """The process under measurement: tells its port, then its process time whenever it is asked."""
    pin(0)
    uvloop.run(_serve(kind, contexts(folder, tls)[0], pipe))


async def _serve(kind: str, context: ssl.SSLContext | None, pipe: Pipe) -> None:
    loop = asyncio.get_running_loop()
    keep_read_buffers()
    lines: set[asyncio.Transport] = set()
    streams: set[Outgoing] = set()

    async def run(writer: Writer) -> None:
        gone = asyncio.Event()
        writer.on_close(gone.set)
        assert isinstance(writer, ChunkWriter)
        streams.add(writer.out)
        crowd.add(writer.out, gone.set)
        await gone.wait()

    def handler(request: Request) -> Stream:
        return Stream(200, [], run)

    server = Server(handler, SystemClock(), tls=context)
    crowd = Crowd(server.joining)
    if kind == "bare":
        listener = await aiofastnet.create_server(loop, lambda: Bare(lines), "127.0.0.1", 0, ssl=context)
        pipe.send(listener.sockets[0].getsockname()[1])
    else:
        pipe.send(await server.listen("127.0.0.1", 0))
    asked: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(pipe.fileno(), lambda: asked.put_nowait(pipe.recv()))
    while (command := await asked.get()) != "end":
        if command == "send":
            for line in lines:
                line.write(EVENT)
            if kind == "crowd":
                crowd.send_soon(EVENT)
            elif kind == "each":
                for stream in streams:
                    stream.send_soon(EVENT)
        else:
            pipe.send(time.process_time())


class Served:
    """A server's process, and its readers here."""

    def __init__(self, kind: str, folder: Path, tls: bool) -> None:
        self._pipe, there = multiprocessing.Pipe()
        self._server = multiprocessing.get_context("spawn").Process(target=serve, args=(kind, folder, tls, there))
        self._server.start()
        self._port, self._context = self._pipe.recv(), contexts(folder, tls)[1]
        self._readers: list[Reader] = []

    async def watch(self, watchers: int) -> None:
        """Connect the readers."""
        for _ in range(watchers):
            reader = Reader()
            await aiofastnet.create_connection(
                asyncio.get_running_loop(), lambda made=reader: made, "127.0.0.1", self._port, ssl=self._context
            )
            self._readers.append(reader)

    async def deliver(self, events: int, gap: float) -> float:
        """Microseconds of the server's CPU for each event that one reader has got."""
        before = self._used()
        for _ in range(events):
            wanted = self._received() + len(self._readers) * len(EVENT)
            self._pipe.send("send")
            while self._received() < wanted:  # noqa: ASYNC110 - the load generator's own pace
                await asyncio.sleep(0.001)
            if gap:
                await asyncio.sleep(gap)
        return (self._used() - before) / events / len(self._readers) * 1e6

    def _received(self) -> int:
        return sum(reader.received for reader in self._readers)

    def _used(self) -> float:
        self._pipe.send("usage")
        used: float = self._pipe.recv()
        return used

    def stop(self) -> None:
        """End the process."""
        self._pipe.send("end")
        self._server.join()


async def measure(servers: list[Served], given: argparse.Namespace) -> list[float]:
    """Of each server, the cost that a fifth of its turns are below."""
    for server in servers:
        await server.watch(given.watchers)
    await asyncio.sleep(0.5)
    found: list[list[float]] = [[] for _ in servers]
    for _ in range(given.rounds):
        for server, into in zip(servers, found, strict=True):
            into.append(await server.deliver(given.events, given.gap))
    return [sorted(each)[len(each) // 5] for each in found]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--events", type=int, default=10)
    parser.add_argument("--gap", type=float, default=0.0)
    given = parser.parse_args()
    pin(1)
    keep_read_buffers()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certs.ensure(folder, certs.identities([], ["127.0.0.1"], "cluster.local"), time.time())
        servers = [Served(kind, folder, tls) for kind, tls, _ in _WAYS]
        try:
            costs = uvloop.run(measure(servers, given))
        finally:
            for server in servers:
                server.stop()
    print(f"{given.watchers} watchers, one event at a time")
    for cost, (_, _, text) in zip(costs, _WAYS, strict=True):
        print(f"{text:36} {cost:5.1f} us  {cost / costs[1]:5.2f} x TLS alone")


if __name__ == "__main__":
    main()
