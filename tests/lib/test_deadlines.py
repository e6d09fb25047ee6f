"""Limits of many tasks: what takes too long ends, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from steersman.lib.clock import LoopClock
from steersman.lib.deadlines import Deadlines
from steersman.lib.virtualtime import VirtualLoop

CLOCK = LoopClock()


def quickly(test: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await test()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


def test_what_comes_in_time_is_given() -> None:
    async def work() -> str:
        await CLOCK.sleep(59)
        return "done"

    async def test() -> None:
        assert await Deadlines().within(60, work()) == "done"

    quickly(test)


def test_what_does_not_come_ends_within_a_second() -> None:
    async def test() -> None:
        began = CLOCK.monotonic()
        with pytest.raises(TimeoutError):
            await Deadlines().within(60, CLOCK.sleep(1000))
        assert began + 60 <= CLOCK.monotonic() <= began + 61.001

    quickly(test)


def test_of_one_limit_inside_another_the_first_counts() -> None:
    async def test() -> None:
        limits = Deadlines()

        async def outer() -> str:
            with pytest.raises(TimeoutError):
                await limits.within(60, CLOCK.sleep(120))
            await CLOCK.sleep(1)
            return "went on"

        assert await limits.within(90, outer()) == "went on"

    quickly(test)


def test_who_is_cancelled_by_others_stays_cancelled() -> None:
    async def test() -> None:
        task = asyncio.ensure_future(Deadlines().within(60, CLOCK.sleep(50)))
        await CLOCK.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    quickly(test)


def test_it_sleeps_when_there_is_nothing_to_look_after() -> None:
    async def test() -> None:
        limits = Deadlines()
        await limits.within(60, CLOCK.sleep(0))
        assert limits.looking
        await CLOCK.sleep(2)
        assert not limits.looking

    quickly(test)
