"""Long time limits for many tasks, looked after together.

Owns `Deadlines`. A timer per request costs as much as reading its head does; a limit of a minute may be a second late.
For short limits there is `asyncio.timeout`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")

_EVERY = 1.0  # seconds between two looks: how late a limit may be


class _Limit:
    """One task's. `passed` when it was cancelled for it."""

    __slots__ = ("at", "passed", "task")

    def __init__(self, task: asyncio.Task[Any], at: float) -> None:
        self.task = task
        self.at = at
        self.passed = False


class Deadlines:
    """Ends what takes too long. It looks while there is something to look after, and sleeps otherwise."""

    def __init__(self) -> None:
        self._limits: set[_Limit] = set()
        self.looking = False  # whether a timer runs

    async def within(self, seconds: float, work: Awaitable[T]) -> T:
        """What `work` gives. Raises TimeoutError when it takes longer, by up to a second more; it is cancelled then."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        limit, cancelled = _Limit(task, loop.time() + seconds), task.cancelling()
        self._limits.add(limit)
        if not self.looking:
            self.looking = True
            loop.call_later(_EVERY, self._look)
        try:
            return await work
        except asyncio.CancelledError:
            if limit.passed and task.uncancel() <= cancelled:
                raise TimeoutError from None
            raise
        finally:
            self._limits.discard(limit)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for limit in self._limits:
            if limit.at <= now and not limit.passed:
                limit.passed = True
                limit.task.cancel()
        self.looking = bool(self._limits)
        if self.looking:
            loop.call_later(_EVERY, self._look)
