"""A crowded API server: memory per object, and how long anything keeps everybody else waiting.

Fills one server with pods (straight into its SQLite store, through its cache), then runs each request that touches all
of them. "Longest" is CPU time between two turns of the loop; the floor beside it is what joining the same bytes takes
this machine, and for memory the bytes themselves. Run: `python -m bench.large [--pods 150000]`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import uvloop

from steersman.api.registry import Registry
from steersman.api.resource import Object
from steersman.apiserver.app import ApiServer
from steersman.apiserver.cache import to_value
from steersman.lib.clock import SystemClock
from steersman.lib.http.messages import Request, Response, Stream
from steersman.store.sqlite import SqliteStore
from steersman.testing.cluster import NoAdmission, allow_all, everybody_is_admin
from steersman.testing.objects import pod

_BATCH = 500
_PARTIAL = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_WATCH = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1"
_REQUESTS = [
    ("list, 500 at a time", "/api/v1/pods", "limit=500", "application/json"),
    ("list", "/api/v1/pods", "", "application/json"),
    ("list by a label", "/api/v1/pods", "labelSelector=app%3Dnone", "application/json"),
    ("list by a field", "/api/v1/pods", "fieldSelector=spec.nodeName%3Dnone", "application/json"),
    ("list, metadata", "/api/v1/namespaces/ns-3/pods", "", _PARTIAL),
    ("list, protobuf", "/api/v1/namespaces/ns-3/pods", "", "application/vnd.kubernetes.protobuf"),
    ("watch, initial state", "/api/v1/pods", _WATCH, "application/json"),
]


class _Sink:
    """A client that reads as fast as it is told."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)

    async def drain(self) -> None:
        """Always ready."""

    def on_close(self, callback: Callable[[], None]) -> None:
        """Never closed."""


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def one_pod(number: int) -> Object:
    """A pod as a Deployment's would be stored."""
    made = pod(f"web-{number:06}", namespace=f"ns-{number % 10}")
    made["metadata"] |= {"uid": f"{number:032x}", "labels": {"app": "web"}, "creationTimestamp": "2026-01-01T00:00:00Z"}
    made["metadata"]["annotations"] = {"note": "x" * 1_500}  # with it, as large as a pod of a real workload
    made["status"] = {"phase": "Running", "podIP": "10.0.0.1"}
    return made


async def fill(store: SqliteStore, count: int) -> int:
    """Create the pods; returns their bytes."""
    size = 0
    for first in range(0, count, _BATCH):
        values = [to_value(one_pod(number)) for number in range(first, min(count, first + _BATCH))]
        size += sum(map(len, values))
        keys = (f"/core/pods/ns-{number % 10}/web-{number:06}" for number in range(first, first + len(values)))
        await asyncio.gather(*(store.create(key, value) for key, value in zip(keys, values, strict=True)))
    return size


async def longest(server: ApiServer, path: str, query: str, accept: str) -> tuple[float, float, int]:
    """CPU seconds of a request in all and in its longest turn, and the bytes of its answer."""
    most, began = 0.0, time.thread_time()

    async def others() -> None:
        nonlocal most
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            most, last = max(most, now - last), now

    counting = asyncio.ensure_future(others())
    await asyncio.sleep(0)
    answer = server.handle(Request("GET", path, query, [("accept", accept)]))
    if isinstance(answer, Awaitable):
        answer = await answer
    sink = _Sink()
    if isinstance(answer, Stream):
        await answer.run(sink)
    else:
        assert isinstance(answer, Response) and answer.status == 200
        for part in [answer.body] if isinstance(answer.body, bytes) else answer.body:
            sink.write(part)
    await asyncio.sleep(0)
    counting.cancel()
    return time.thread_time() - began, most, sink.size


def join_seconds(size: int) -> float:
    """What it takes to put that many bytes together once."""
    parts = [b"x" * 2_000] * (size // 2_000)
    began = time.thread_time()
    b"".join(parts)
    return time.thread_time() - began


async def run(count: int, folder: Path) -> None:
    """Fill, ask, print."""
    store = await SqliteStore.open(folder / "store.db")
    server = ApiServer(
        store, Registry(), SystemClock(),
        admission=NoAdmission(), authenticators=[everybody_is_admin], authorizer=allow_all, random=Random(0),
    )  # fmt: skip
    await server.start()
    gc.freeze()
    before = resident()
    size = await fill(store, count)
    used = resident() - before
    print(
        f"{count} pods of {size / count:.0f} bytes: {used / count:.0f} bytes each in memory, {used / size:.2f} x floor"
    )
    began = time.thread_time()
    gc.collect()
    print(f"a full collection: {(time.thread_time() - began) * 1e3:.1f} ms")
    print(f"{'request':24} {'CPU ms':>9} {'longest ms':>11} {'MB':>7}  ratio")
    for name, path, query, accept in _REQUESTS:
        total, most, length = await longest(server, path, query, accept)
        floor = join_seconds(length)
        ratio = f"longest turn {most / floor:.2f} x joining the bytes" if length > 1e7 else ""
        print(f"{name:24} {total * 1e3:9.1f} {most * 1e3:11.1f} {length / 1e6:7.1f}  {ratio}", flush=True)
    await server.close()
    await store.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=150_000)
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(run(parser.parse_args().pods, Path(folder)))


if __name__ == "__main__":
    main()
