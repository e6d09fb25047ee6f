from __future__ import annotations

import asyncio

from steersman.client.workqueue import WorkQueue
from steersman.lib.clock import LoopClock


async def test_a_key_waits_once_and_in_order() -> None:
    queue: WorkQueue[str] = WorkQueue(LoopClock())
    for key in "abab":
        queue.add(key)
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_added_while_worked_on_comes_again_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue(LoopClock())
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("b")
    assert await queue.get() == "b", "a is being worked on"
    assert not queue.idle
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    queue.done("b")
    assert queue.idle


async def test_back_off_doubles_from_five_milliseconds_to_a_thousand_seconds() -> None:
    clock = LoopClock()
    queue: WorkQueue[str] = WorkQueue(clock)
    waits = []
    for _ in range(20):
        began = clock.monotonic()
        queue.retry("a")
        await queue.get()
        queue.done("a")
        waits.append(round(clock.monotonic() - began, 3))
    assert waits[:4] == [0.005, 0.01, 0.02, 0.04]
    assert waits[-1] == 1000.0
    assert queue.failures("a") == 20
    queue.forget("a")
    began = clock.monotonic()
    queue.retry("a")
    await queue.get()
    assert round(clock.monotonic() - began, 3) == 0.005


async def test_of_several_waits_the_earliest_counts() -> None:
    clock = LoopClock()
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add_after("a", 100)
    queue.add_after("a", 10)
    queue.add_after("a", 50)
    assert await queue.get() == "a"
    assert round(clock.monotonic()) == 10
    queue.done("a")
    queue.add_after("b", 1000)
    assert await queue.get() == "b"
    assert round(clock.monotonic()) == 1010, "the later waits of a are forgotten"


async def test_many_workers_share_the_work_and_never_a_key() -> None:
    clock = LoopClock()
    queue: WorkQueue[int] = WorkQueue(clock)
    working: set[int] = set()
    finished: list[int] = []

    async def worker() -> None:
        while True:
            key = await queue.get()
            assert key not in working
            working.add(key)
            await clock.sleep(1)
            working.discard(key)
            finished.append(key)
            queue.done(key)

    workers = [asyncio.ensure_future(worker()) for _ in range(5)]
    for round_ in range(4):
        for key in range(10):
            queue.add(key)
        await clock.sleep(round_ * 0.3)
    await clock.sleep(60)
    assert queue.idle
    assert set(finished) == set(range(10))
    assert clock.monotonic() < 70
    for each in workers:
        each.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*workers, return_exceptions=True)
    )
