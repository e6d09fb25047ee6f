"""An event loop in which waiting costs nothing.

When nothing is ready and no outside work is pending, the loop's clock jumps to the next timer. Thread-pool jobs and
other outside work hold the clock still (`hold`). Used by tests and by simulations; never by a cluster with
real containers, since a subprocess or a peer process looks like "nothing to do" from inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections.abc import Callable, Iterator
from typing import Any

_RESOLUTION = 1e-7
"""Seconds by which timers fire early: more than the last digit of a double after ten years, or they never would."""
_REAL_WAIT = 0.01  # seconds: how long one real wait lasts while outside work holds the clock


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Polls sockets without waiting, and moves the loop's clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.virtual_now = 0.0
        self.holds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Ready file descriptors; when there are none and nothing holds the clock, jump by `timeout`."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.holds or timeout is None:
            return super().select(_REAL_WAIT if timeout is None or self.holds else timeout)
        self.virtual_now += max(timeout, 0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose `time()` is virtual and starts at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self._clock_resolution = _RESOLUTION

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.virtual_now

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the clock still while work outside the loop is pending."""
        self._jumping.holds += 1
        try:
            yield
        finally:
            self._jumping.holds -= 1

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """As asyncio's, with the clock held until the job is done."""
        self._jumping.holds += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._release)
        return future

    def _release(self, _: asyncio.Future[Any]) -> None:
        self._jumping.holds -= 1
