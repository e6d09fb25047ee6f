"""Lists and initial states that take many turns: others are served meanwhile, slow readers are waited for."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from steersman.api import protobuf
from steersman.api.resource import CONFIGMAPS, Object
from steersman.apiserver.verbs.longlist import TURN
from steersman.lib.http.messages import Answer, Request, Stream
from steersman.testing.cluster import ApiCluster

COUNT = 5_000
_PATH = "/api/v1/namespaces/default/configmaps"


def config(number: int) -> Object:
    metadata = {"name": f"c-{number:05}", "namespace": "default", "uid": "u", "labels": {"odd": str(number % 2)}}
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata}


@pytest.fixture
async def crowded(cluster: ApiCluster) -> AsyncIterator[ApiCluster]:
    """A server with many objects, put straight into its store."""
    for number in range(COUNT):
        await cluster.store.create(f"/core/configmaps/default/c-{number:05}", msgspec.json.encode(config(number)))
    yield cluster


class Reader:
    """A client that lets the server go on only when `let` is called."""

    def __init__(self, *, patient: bool = True) -> None:
        self.parts: list[bytes] = []
        self._news = asyncio.Event()
        self._free = asyncio.Event()
        if patient:
            self._free.set()

    def write(self, data: bytes) -> None:
        self.parts.append(data)
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def drain(self) -> None:
        await self._free.wait()

    def let(self) -> None:
        self._free.set()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Never closed."""


async def ask(cluster: ApiCluster, query: str = "", **headers: str) -> Answer:
    given = [(name.replace("_", "-"), value) for name, value in headers.items()]
    answer = cluster.server.handle(Request("GET", _PATH, query, given))
    return answer if isinstance(answer, Stream) or not asyncio.iscoroutine(answer) else await answer


async def read(cluster: ApiCluster, query: str = "", **headers: str) -> bytes:
    answer = await ask(cluster, query, **headers)
    assert isinstance(answer, Stream) and answer.status == 200
    reader = Reader()
    await answer.run(reader)
    assert len(reader.parts) >= COUNT / TURN
    return b"".join(reader.parts)


async def test_a_long_list_comes_in_parts_and_whole(crowded: ApiCluster) -> None:
    found = msgspec.json.decode(await read(crowded))
    assert (found["kind"], found["metadata"]["resourceVersion"]) == ("ConfigMapList", str(crowded.store.revision))
    assert [item["metadata"]["name"] for item in found["items"]] == [f"c-{number:05}" for number in range(COUNT)]


async def test_in_every_format(crowded: ApiCluster) -> None:
    names = [f"c-{number:05}" for number in range(COUNT)]
    packed = await read(crowded, accept_encoding="gzip")
    assert [item["metadata"]["name"] for item in msgspec.json.decode(gzip.decompress(packed))["items"]] == names
    _, found = protobuf.decode(await read(crowded, accept="application/vnd.kubernetes.protobuf"))
    assert [item["metadata"]["name"] for item in found["items"]] == names
    partial = await read(crowded, accept="application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
    found = msgspec.json.decode(partial)
    assert (found["kind"], found["items"][-1]["kind"]) == ("PartialObjectMetadataList", "PartialObjectMetadata")
    table = msgspec.json.decode(await read(crowded, accept="application/json;as=Table;g=meta.k8s.io;v=v1"))
    assert [row["cells"][0] for row in table["rows"]] == names and table["columnDefinitions"][0]["name"] == "Name"


async def test_others_are_served_between_two_parts(crowded: ApiCluster) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)  # noqa: TID251  the loop's turns are what is counted

    counting = asyncio.ensure_future(other())
    await read(crowded)
    sent, turns = turns, 0
    await ask(crowded, "labelSelector=odd%3D2")
    counting.cancel()
    assert sent >= COUNT / TURN and turns >= COUNT / TURN - 1


async def test_what_is_written_meanwhile_is_not_in_the_list(crowded: ApiCluster) -> None:
    answer = await ask(crowded)
    assert isinstance(answer, Stream)
    reader = Reader(patient=False)
    running = asyncio.ensure_future(answer.run(reader))
    await reader.until(lambda: bool(reader.parts))
    await crowded.client.delete(CONFIGMAPS, f"c-{COUNT - 1:05}", "default")
    assert len(reader.parts) == 1
    reader.let()
    await running
    found = msgspec.json.decode(b"".join(reader.parts))
    assert len(found["items"]) == COUNT and found["metadata"]["resourceVersion"] == str(crowded.store.revision - 1)


async def test_a_watch_waits_for_its_reader_and_misses_nothing(crowded: ApiCluster) -> None:
    options = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    answer = await ask(crowded, options)
    assert isinstance(answer, Stream)
    reader = Reader(patient=False)
    running = asyncio.ensure_future(answer.run(reader))
    await reader.until(lambda: bool(reader.parts))
    before = crowded.store.revision
    assert len(reader.parts) == TURN  # and no more, since nobody reads
    await crowded.client.delete(CONFIGMAPS, "c-00000", "default")
    await crowded.client.create(CONFIGMAPS, {"metadata": {"name": "last"}}, "default")
    reader.let()
    await reader.until(lambda: b'"last"' in reader.parts[-1])
    events = [msgspec.json.decode(part) for part in reader.parts]
    assert [each["type"] for each in events] == ["ADDED"] * COUNT + ["BOOKMARK", "DELETED", "ADDED"]
    assert events[COUNT]["object"]["metadata"]["resourceVersion"] == str(before)
    running.cancel()
