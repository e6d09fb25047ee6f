"""Seats and queues, under virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.api.resource import Object
from steersman.apiserver.flow.level import Level
from steersman.apiserver.flow.shares import Limits
from steersman.lib.clock import SystemClock
from steersman.lib.tasks import Tasks


class Time:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(seats: int, queues: int = 8, hand: int = 2, length: int = 50) -> tuple[Level, Time]:
    now = Time()
    level = Level("some", now)
    queuing = {"queues": queues, "handSize": hand, "queueLengthLimit": length}
    response: Object = {"type": "Queue", "queuing": queuing} if queues else {"type": "Reject"}
    spec = {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": response}}
    level.configure({"metadata": {"name": "some", "uid": "u"}, "spec": spec}, Limits(seats, seats, seats))
    return level, now


async def test_who_finds_no_seat_waits_for_one() -> None:
    level, _ = made(1)
    level.sit(1)
    async with Tasks() as tasks:
        waiting = tasks.spawn(level.wait(level.hand("a", "x"), 1, 60), "waiting")
        await settled()
        assert (level.waiting, level.room(1)) == (1, False)
        level.rise(1)
        turn = await waiting
        assert turn is not None
        assert (level.waiting, level.taken) == (0, 1)
        level.leave(turn)
        assert level.taken == 0


async def test_nobody_overtakes_those_who_wait() -> None:
    level, _ = made(2)
    level.sit(1)
    async with Tasks() as tasks:
        wide = tasks.spawn(level.wait(level.hand("a", "x"), 2, 60), "wide")
        await settled()
        assert not level.room(1)
        level.rise(1)
        assert await wide is not None


async def test_a_full_queue_turns_away() -> None:
    level, _ = made(1, queues=1, hand=1, length=2)
    level.sit(1)
    async with Tasks() as tasks:
        for _ in range(2):
            tasks.spawn(level.wait(level.hand("a", "x"), 1, 60), "waiting")
        await settled()
        assert await level.wait(level.hand("a", "x"), 1, 60) is None
        assert level.waiting == 2


async def test_without_queues_nobody_waits() -> None:
    level, _ = made(1, queues=0)
    level.sit(1)
    assert await level.wait(level.hand("a", "x"), 1, 60) is None


async def test_who_waits_too_long_goes() -> None:
    level, _ = made(1)
    level.sit(1)
    assert await level.wait(level.hand("a", "x"), 1, 0) is None
    assert level.waiting == 0
    level.rise(1)
    assert level.room(1)


@pytest.mark.parametrize("called", [False, True])
async def test_who_hangs_up_leaves_no_gap(called: bool) -> None:
    level, _ = made(1)
    level.sit(1)
    async with Tasks() as tasks:
        first = tasks.spawn(level.wait(level.hand("a", "x"), 1, 60), "first")
        second = tasks.spawn(level.wait(level.hand("a", "y"), 1, 60), "second")
        await settled()
        if called:
            level.rise(1)
            first.cancel()
        else:
            first.cancel()
            await settled()
            level.rise(1)
        turn = await second
        assert turn is not None
        assert (level.taken, level.waiting) == (1, 0)


async def test_a_busy_flow_does_not_hold_up_a_quiet_one() -> None:
    level, now = made(1, queues=64, hand=1)
    crowd, quiet = level.hand("a", "crowd"), level.hand("a", "quiet")
    assert crowd != quiet
    level.sit(1)
    order: list[str] = []

    async def one(name: str, hand: tuple[int, ...]) -> None:
        turn = await level.wait(hand, 1, 1e6)
        assert turn is not None
        order.append(name)
        now.now += 1.0
        level.leave(turn)

    async with Tasks() as tasks:
        every = [tasks.spawn(one("crowd", crowd), "crowd") for _ in range(20)]
        await settled()
        every += [tasks.spawn(one("quiet", quiet), "quiet") for _ in range(3)]
        await settled()
        level.rise(1)
        await asyncio.gather(*every)
    assert [at for at, name in enumerate(order) if name == "quiet"][-1] <= 6


async def test_what_is_wider_than_the_level_goes_alone() -> None:
    level, _ = made(2)
    assert level.room(5)
    level.sit(5)
    assert not level.room(1)


@pytest.mark.parametrize(("queues", "seats"), [(1, 5), (0, 1)])
async def test_queues_that_go_take_nobody_with_them(queues: int, seats: int) -> None:
    level, _ = made(1)
    level.sit(1)
    async with Tasks() as tasks:
        waiting = [tasks.spawn(level.wait(level.hand("a", str(n)), 1, 60), "waiting") for n in range(4)]
        await settled()
        queuing = {"queues": queues, "handSize": queues, "queueLengthLimit": 1}
        spec = {"type": "Limited", "limited": {"limitResponse": {"queuing": queuing}}}
        level.configure({"metadata": {"name": "some"}, "spec": spec}, Limits(seats, seats, seats))
        for turn in await asyncio.gather(*waiting):
            assert turn is not None
            level.leave(turn)
        level.rise(1)
        assert (level.taken, level.waiting) == (0, 0)


@given(queues=st.integers(1, 300), hand=st.integers(1, 8), flow=st.text(max_size=20))
def test_a_hand_has_no_card_twice(queues: int, hand: int, flow: str) -> None:
    level, _ = made(1, queues=queues, hand=min(hand, queues))
    dealt = level.hand("schema", flow)
    assert len(set(dealt)) == len(dealt) == min(hand, queues)
    assert all(0 <= card < queues for card in dealt)
    assert dealt == level.hand("schema", flow)


async def settled() -> None:
    """Let every task come to where it waits."""
    for _ in range(5):
        await SystemClock().sleep(0)
