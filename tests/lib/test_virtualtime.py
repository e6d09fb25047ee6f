"""Virtual time, far from its beginning."""

from __future__ import annotations

import asyncio

import pytest

from steersman.lib.clock import LoopClock
from steersman.lib.virtualtime import VirtualLoop

YEAR = 365 * 86400.0


@pytest.mark.parametrize("years", [0, 1, 10])
def test_short_waits_end_long_after_the_beginning(years: int) -> None:
    """A double's last digit grows with the time: a timer must not wait for less than it."""

    async def wait() -> float:
        clock = LoopClock()
        await clock.sleep(years * YEAR)
        began = clock.monotonic()
        for number in range(1, 200):
            await clock.sleep(0.1 / number)
        return clock.monotonic() - began

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(wait()) == pytest.approx(sum(0.1 / number for number in range(1, 200)), abs=1e-4)
