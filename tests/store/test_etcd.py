"""Several servers on one etcd cluster: faults of its members, compaction by others, odd answers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from steersman.lib.clock import SystemClock
from steersman.lib.grpc.channel import Channel, GrpcError
from steersman.store.etcd.link import Servers
from steersman.store.etcd.store import EtcdStore
from steersman.store.interface import (
    Compacted,
    Event,
    KeyExists,
    RevisionConflict,
    StoreUnavailable,
)
from steersman.testing.etcd import Etcd, Member, free_ports
from steersman.testing.guarantees import History, check_watch

CLOCK = SystemClock()


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[Etcd]:
    async with Etcd(tmp_path) as cluster:
        yield cluster


async def test_two_servers_see_each_other(etcd: Etcd) -> None:
    one, two = await EtcdStore.open(etcd.servers, CLOCK), await EtcdStore.open(etcd.servers, CLOCK)
    seen: list[Event] = []
    await two.watch("/", 1, seen.extend)
    first = await one.create("/a", b"one")
    await two.fresh()
    assert (two.revision, [event.revision for event in seen]) == (first, [first])
    with pytest.raises(KeyExists):
        await two.create("/a", b"two")
    second = await two.update("/a", b"two", first)
    with pytest.raises(RevisionConflict) as lost:
        await one.update("/a", b"three", first)
    assert lost.value.current is not None
    assert (lost.value.current.value, one.revision) == (b"two", second)
    await one.close()
    await two.close()


@pytest.mark.slow
async def test_a_large_list_comes_whole(etcd: Etcd) -> None:
    store = await EtcdStore.open(etcd.servers, CLOCK)
    for first in range(0, 5_100, 100):  # all at once, a busy machine's etcd would not answer the last in time
        await asyncio.gather(*(store.create(f"/many/{n:05}", b"x" * 3_000) for n in range(first, first + 100)))
    page = await store.list("/many/")
    assert [entry.key for entry in page.entries] == [f"/many/{number:05}" for number in range(5_100)]
    assert page.remaining == 0
    part = await store.list("/many/", limit=5_050, after="/many/00010")
    assert (len(part.entries), part.entries[0].key, part.remaining) == (5_050, "/many/00011", 39)
    await store.close()


async def test_compaction_by_another_server(etcd: Etcd) -> None:
    one, two = await EtcdStore.open(etcd.servers, CLOCK), await EtcdStore.open(etcd.servers, CLOCK)
    first = await one.create("/a", b"one")
    last = await one.update("/a", b"two", await one.update("/a", b"x", first))
    await two.fresh()
    await one.compact(last)
    with pytest.raises(Compacted):
        await two.watch("/", first, lambda _: None)
    with pytest.raises(Compacted):
        await two.list("/", revision=first)
    await one.close()
    await two.close()


async def test_what_etcd_refuses_is_told(etcd: Etcd) -> None:
    store = await EtcdStore.open(etcd.servers, CLOCK)
    with pytest.raises(StoreUnavailable, match="large"):
        await store.create("/big", b"x" * 9_000_000)
    assert await store.create("/small", b"x") == 2
    await store.close()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "http://127.0.0.1:2379/path", ""])
def test_bad_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not the URL of an etcd server"):
        Servers([url]).addresses()


async def test_nobody_there() -> None:
    with pytest.raises(StoreUnavailable, match="cannot reach etcd: 127"):
        await EtcdStore.open(Servers([f"http://127.0.0.1:{free_ports(1)[0]}"]), CLOCK)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff" * 64,
        b"\0\0\4\1\4\0\0\0\1\xff\xff\xff\xff",  # a header block that is none
        b"\0\0\5\0\1\0\0\0\1\1\0\0\0\0",  # a compressed message
        b"\0\0\0\0\1\0\0\0\1",  # an end without a status
        b"",
    ],
)
async def test_a_broken_peer_fails_the_call(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        channel = await Channel.connect(*server.sockets[0].getsockname()[:2])
        with pytest.raises(GrpcError):
            await channel.unary("/x/Y", b"")
        with pytest.raises(GrpcError):
            for _ in range(3):  # the first may still go out
                await channel.unary("/x/Y", b"")


class _Load:
    """Writers on several stores, and what each was told of its writes."""

    def __init__(self, stores: list[EtcdStore]) -> None:
        self.stores = stores
        self.acknowledged: dict[str, tuple[int, bytes]] = {}
        self.refused = 0
        self.over = False
        self.waiters: list[tuple[int, asyncio.Event]] = []

    async def write(self, worker: int) -> None:
        store = self.stores[worker % len(self.stores)]
        key, step, revision = f"/load/{worker}", 0, 0
        while not self.over:
            step += 1
            value = b"%d" % step
            try:
                if revision:
                    revision = await store.update(key, value, revision)
                else:
                    revision = await store.create(key, value)
                self.acknowledged[key] = (revision, value)
                for wanted, event in self.waiters:
                    if len(self.acknowledged) and revision >= wanted:
                        event.set()
            except StoreUnavailable:
                self.refused += 1
            except (RevisionConflict, KeyExists):
                try:
                    entry = await store.get(key)
                except StoreUnavailable:
                    continue
                revision = entry.revision if entry else 0

    async def progress(self, count: int) -> None:
        """Wait until `count` more revisions were acknowledged."""
        event = asyncio.Event()
        newest = max((revision for revision, _ in self.acknowledged.values()), default=0)
        self.waiters.append((newest + count, event))
        await event.wait()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "cut off"])
async def test_three_servers_on_three_members_lose_nothing(tmp_path: Path, fault: str) -> None:
    """Each member in turn is killed, or frozen so that nobody hears from it, under load."""
    async with AsyncExitStack() as stack:
        etcd = await stack.enter_async_context(Etcd(tmp_path, 3))
        urls = list(etcd.servers.urls)
        stores = [await EtcdStore.open(Servers(urls[n:] + urls[:n]), CLOCK) for n in range(3)]
        for store in stores:
            stack.push_async_callback(store.close)
        histories = [History(store) for store in stores]
        for history in histories:
            await history.watch("/load/", after=1)
        load = _Load(stores)
        async with asyncio.timeout(100), asyncio.TaskGroup() as group:
            for worker in range(9):
                group.create_task(load.write(worker))
            for member in etcd.members:
                await load.progress(50)
                await _harm(member, fault)
                await load.progress(50)
                await _heal(member, fault)
            await load.progress(50)
            load.over = True
        for store in stores:
            await store.fresh()
        for history in histories:
            assert await check_watch(history) == []
        for key, (revision, value) in load.acknowledged.items():
            entry = await stores[0].get(key)
            assert entry is not None
            assert (entry.revision, entry.value) == (revision, value) or entry.revision > revision


async def _harm(member: Member, fault: str) -> None:
    if fault == "kill":
        member.kill()
    else:
        member.signal(signal.SIGSTOP)


async def _heal(member: Member, fault: str) -> None:
    if fault == "kill":
        member.start()
        await member.ready(CLOCK)
    else:
        member.signal(signal.SIGCONT)
