"""The compactor: history ends when it is an interval old, and the revision moves though nobody else writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from steersman.cluster.storage import compact
from steersman.lib.clock import LoopClock
from steersman.lib.tasks import Tasks
from steersman.lib.virtualtime import VirtualLoop
from steersman.store.interface import Compacted, Guard, StoreUnavailable
from steersman.store.memory import MemoryStore

MINUTE = 60.0
CLOCK = LoopClock()


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())


def test_an_idle_store_moves_on_and_forgets() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with Tasks() as tasks:
            tasks.spawn(compact(store, CLOCK, 5 * MINUTE), "compaction")
            first = await store.create("/core/configmaps/default/a", b"1")
            await CLOCK.sleep(6 * MINUTE)
            assert (await store.list("/core/", revision=first)).revision == first  # younger than the first interval
            await CLOCK.sleep(5 * MINUTE)
            with pytest.raises(Compacted):
                await store.list("/core/", revision=first)
            page = await store.list("/core/")
            assert page.revision > first
            assert [entry.value for entry in page.entries] == [b"1"]

    run(story)


def test_of_several_servers_one_compacts() -> None:
    async def story() -> None:
        store, done = Counted(), 12
        async with Tasks() as tasks:
            for _ in range(3):
                tasks.spawn(compact(store, CLOCK, 5 * MINUTE), "compaction")
                await CLOCK.sleep(MINUTE)
            await CLOCK.sleep(done * 5 * MINUTE)
        assert done - 1 <= store.compactions <= done + 1

    run(story)


def test_a_store_that_does_not_answer_is_asked_again() -> None:
    async def story() -> None:
        store = Counted()
        async with Tasks() as tasks:
            tasks.spawn(compact(store, CLOCK, 5 * MINUTE), "compaction")
            store.broken = True
            await CLOCK.sleep(16 * MINUTE)
            assert store.compactions == 0
            store.broken = False
            await CLOCK.sleep(10 * MINUTE)
            assert store.compactions == 1  # there was nothing to forget before the first mark

    run(story)


class Counted(MemoryStore):
    """How often it was compacted; and it may refuse writes."""

    compactions = 0
    broken = False

    async def compact(self, revision: int) -> None:
        await super().compact(revision)
        self.compactions += 1

    async def create(self, key: str, value: bytes, *, guard: Guard | None = None) -> int:
        if self.broken:
            raise StoreUnavailable("disk full")
        return await super().create(key, value)
