"""What is too much or too slow for the API server, over a socket: the original's status and words, and no growth."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import msgspec
import pytest

from steersman.api.resource import CONFIGMAPS, Object
from steersman.cluster.apiserver import limits
from steersman.lib.clock import SystemClock
from steersman.lib.http.server import Server
from steersman.testing.cluster import ApiCluster

_PATH = b"/api/v1/namespaces/default/configmaps"
_BODY = 3 * 1024 * 1024
_HEAD = 1 << 20


class _FastClock(SystemClock):
    """Real time, but the server's sweeper does not wait."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(0.01)


@dataclass
class Socket:
    port: int
    cluster: ApiCluster
    server: Server

    async def tell(self, data: bytes) -> tuple[int, bytes]:
        """The first answer's status and body; the rest of what is sent may not find a reader."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            body = await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()
        return int(head.split(b" ")[1]), body

    async def send(self, method: bytes, path: bytes, body: bytes, media: bytes) -> tuple[int, Object]:
        status, answer = await self.tell(
            b"%b %b HTTP/1.1\r\nHost: x\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (method, path, media, len(body), body)
        )
        return status, msgspec.json.decode(answer)


@pytest.fixture
async def web() -> AsyncIterator[Socket]:
    async with ApiCluster(clock=SystemClock()) as cluster:
        hurried = replace(limits(), body_seconds=0.05, write_buffer=1 << 20)
        async with Server(cluster.server.handle, _FastClock(), limits=hurried) as server:
            yield Socket(await server.listen("127.0.0.1", 0), cluster, server)


async def test_a_body_of_one_byte_too_many(web: Socket) -> None:
    status, answer = await web.send(b"POST", _PATH, b" " * (_BODY + 1), b"application/json")
    assert (status, answer["reason"]) == (413, "RequestEntityTooLarge")
    assert answer["message"] == "Request entity too large: limit is 3145728"
    status, answer = await web.send(b"POST", _PATH, b" " * _BODY, b"application/json")
    assert status == 400


@pytest.mark.parametrize(
    "head",
    [
        b"GET /api?x=" + b"x" * _HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api HTTP/1.1\r\nHost: x\r\nX: " + b"x" * _HEAD + b"\r\n\r\n",
        b"GET /api HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    ],
    ids=["target", "header", "headers"],
)
async def test_a_head_that_is_too_long(web: Socket, head: bytes) -> None:
    assert await web.tell(head) == (431, b"431 Request Header Fields Too Large")


async def test_a_long_target_that_is_short_enough(web: Socket) -> None:
    status, _ = await web.tell(b"GET /api?x=" + b"x" * (_HEAD // 2) + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 200


async def test_a_body_that_does_not_come(web: Socket) -> None:
    status, answer = await web.tell(b"POST " + _PATH + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
    said = msgspec.json.decode(answer)
    assert (status, said["reason"]) == (504, "Timeout")
    assert said["message"] == "Timeout: request did not complete within the allotted timeout"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("media", [b"application/json", b"application/yaml", b"application/merge-patch+json"])
async def test_deep_documents(web: Socket, opening: bytes, media: bytes) -> None:
    body = b'{"metadata":{"name":"x","annotations":' + opening * 100_000
    method, path = (b"PATCH", _PATH + b"/x") if b"patch" in media else (b"POST", _PATH)
    if b"patch" in media:
        await web.cluster.client.create(CONFIGMAPS, {"metadata": {"name": "x", "namespace": "default"}})
    status, answer = await web.send(method, path, body, media)
    assert status == 400, answer


async def test_a_patch_of_too_many_operations(web: Socket) -> None:
    await web.cluster.client.create(CONFIGMAPS, {"metadata": {"name": "x", "namespace": "default"}})
    patch = msgspec.json.encode([{"op": "test", "path": "/metadata/name", "value": "x"}] * 10_001)
    status, answer = await web.send(b"PATCH", _PATH + b"/x", patch, b"application/json-patch+json")
    assert status == 413
    expected = "The allowed maximum operations in a JSON patch is 10000, got 10001"
    assert answer["message"] == f"Request entity too large: {expected}" or answer["message"] == expected


async def test_watchers_that_never_read_are_dropped(web: Socket) -> None:
    made = await web.cluster.client.create(CONFIGMAPS, {"metadata": {"name": "x", "namespace": "default"}})
    writers = []
    for _ in range(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port, limit=1024)
        writer.write(b"GET " + _PATH + b"?watch=true HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"ADDED")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writers.append(writer)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cache = web.cluster.server.storage.cache(web.cluster.server.registry.find("", "configmaps"))  # type: ignore[arg-type]
    for number in range(400):
        made["data"] = {"x": f"{number}" + "x" * 100_000}
        made = await web.cluster.client.update(CONFIGMAPS, made)
        await SystemClock().sleep(0)
        if not cache.watchers:
            break
    assert cache.watchers == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB
    for writer in writers:
        writer.close()
