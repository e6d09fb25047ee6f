"""Work that takes its time, each piece at most once at the same time, and after a failure not again for a while.

Owns the running tasks. Made by the binder's feed. Source: kubernetes' pkg/util/goroutinemap/exponentialbackoff.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from steersman.api.errors import ApiError
from steersman.lib.backoff import Backoff
from steersman.lib.clock import Clock
from steersman.lib.tasks import Tasks

log = logging.getLogger(__name__)

_FIRST, _MOST = 0.5, 122.0  # seconds between failure and next attempt


class Operations:
    """Runs what it is given in the background, by name."""

    def __init__(self, clock: Clock, tasks: Tasks) -> None:
        self._clock = clock
        self._tasks = tasks
        self._running: set[str] = set()
        self._backoff: Backoff[str] = Backoff(_FIRST, _MOST)
        self._not_before: dict[str, float] = {}

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Begin `work` unless it runs already or has failed lately."""
        if name in self._running or self._not_before.get(name, 0.0) > self._clock.monotonic():
            return
        self._running.add(name)
        self._tasks.spawn(self._run(name, work), name)

    async def _run(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (ApiError, OSError, TimeoutError) as error:
            log.info("%s failed: %s", name, error)
            self._not_before[name] = self._clock.monotonic() + self._backoff.next(name)
        else:
            self._backoff.forget(name)
            self._not_before.pop(name, None)
        finally:
            self._running.discard(name)
