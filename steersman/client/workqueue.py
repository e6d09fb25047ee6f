"""Keys that wait to be worked on: each once, never two workers on one key, failures backing off.

Owns the order of work. Called by the controller loop and by whoever works on keys. Source: client-go's workqueue: fair
(first come first served), deduplicating, and a key that is added while it is worked on comes again afterwards.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from steersman.client.metrics import QueueMetrics
from steersman.lib.backoff import Backoff
from steersman.lib.clock import Clock

K = TypeVar("K", bound=Hashable)

RETRY_FIRST, RETRY_MOST = 0.005, 1000.0  # seconds, as client-go's default rate limiter


class WorkQueue(Generic[K]):
    """A queue of keys for any number of workers on one loop."""

    def __init__(
        self, clock: Clock, metrics: QueueMetrics | None = None, retry: tuple[float, float] = (RETRY_FIRST, RETRY_MOST)
    ) -> None:
        """`metrics` are told of every key; `retry`: seconds until the first retry, and the most; each doubles."""
        self._clock = clock
        self._metrics = metrics
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()
        self._working: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._count = 0
        self._backoff: Backoff[K] = Backoff(*retry)
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._rings = 0.0  # when the timer does

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Whether nothing is ready and nobody works."""
        return not self._ready and not self._working

    def add(self, key: K) -> None:
        """Work on `key` soon; again is harmless."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if self._metrics is not None:
            self._metrics.added(key)
        if key not in self._working:
            self._ready.append(key)
            self._wake()

    def add_after(self, key: K, seconds: float) -> None:
        """Work on `key` after a while; of several waits the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        due = self._clock.monotonic() + seconds
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._later, (due, self._count, key))
        self._arm()

    def retry(self, key: K) -> None:
        """Work on `key` again after its back-off."""
        if self._metrics is not None:
            self._metrics.retried()
        self.add_after(key, self._backoff.next(key))

    def forget(self, key: K) -> None:
        """`key` succeeded: its back-off starts anew."""
        self._backoff.forget(key)

    def failures(self, key: K) -> int:
        """How often `key` has failed since it was forgotten."""
        return self._backoff.failures(key)

    async def get(self) -> K:
        """The next key; the worker must call `done` with it."""
        while not self._ready:
            self._promote()
            if self._ready:
                break
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            self._arm()
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # somebody else's turn
                raise
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._working.add(key)
        if self._metrics is not None:
            self._metrics.begun(key)
        if self._ready:
            self._wake()
        return key

    def _wake(self) -> None:
        """One of those who wait, if any, has something to do."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _arm(self) -> None:
        """One timer rings for the whole queue when the next key is due, as long as somebody waits."""
        if not self._later or not self._waiters:
            return
        due = self._later[0][0]
        if self._timer is not None:
            if self._rings <= due:
                return
            self._timer.cancel()
        self._rings = due
        wait = max(due - self._clock.monotonic(), 0.0)
        self._timer = asyncio.get_running_loop().call_later(wait, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._promote()
        self._arm()

    def _promote(self) -> None:
        now = self._clock.monotonic()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)

    def done(self, key: K) -> None:
        """The worker has finished with `key`, well or not."""
        self._working.discard(key)
        if self._metrics is not None:
            self._metrics.done(key)
        if key in self._dirty:
            self._ready.append(key)
            self._wake()
