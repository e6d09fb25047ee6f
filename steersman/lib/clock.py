"""The one place that knows the time.

Owns the `Clock` interface and the system clock. Every component is handed a clock; none asks the operating system.
Under a virtual-time loop (`lib/virtualtime.py`) `LoopClock` makes wall-clock stamps and sleeps move together.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Wall-clock time in Unix seconds, and the way to wait."""

    def now(self) -> float:
        """Unix time in seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; negative or zero yields once."""
        ...


class SystemClock:
    """The machine's clock. Wall time may jump; `monotonic` does not."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some fixed start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the running loop."""
        await asyncio.sleep(max(seconds, 0))


class LoopClock:
    """Wall time derived from the running loop's time, so that a virtual-time loop moves both."""

    def __init__(self, start: float = 1_767_225_600.0) -> None:
        """`start`: Unix seconds at loop time 0 (default 2026-01-01T00:00:00Z)."""
        self._start = start

    def now(self) -> float:
        """Unix time in seconds."""
        return self._start + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait on the running loop."""
        await asyncio.sleep(max(seconds, 0))


def rfc3339(unix: float) -> str:
    """Unix seconds as metav1.Time writes them: whole seconds, UTC, `Z`."""
    return _written(int(unix))


@lru_cache(maxsize=64)
def _written(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(unix: float) -> str:
    """Unix seconds as metav1.MicroTime writes them: six decimals, UTC, `Z`."""
    seconds = int(unix)
    more, rest = divmod(round((unix - seconds) * 1e6), 1_000_000)
    return f"{_written(seconds + more)[:-1]}.{rest:06}Z"


def parse_rfc3339(text: str) -> float:
    """Read a metav1.Time or MicroTime as Unix seconds. Raises ValueError when it is neither."""
    return datetime.fromisoformat(text).timestamp()
