"""Many small pieces for one peer become one write: a write costs a TLS record and a system call, whatever is in it.

Owns `Joining`, one per server, which knows the streams that have something to send, and when to. A piece that comes
after a quiet moment goes out at once, behind the answers that are ready; while pieces keep coming, all streams are
written to once a moment, or, where that takes long, with a pause of half as long. Fed by `streams.py` and `crowd.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MOMENT, _LONGEST = 0.001, 0.05  # seconds between two writes to a stream, where there are few and where there are many


class Joining:
    """Calls `flush` of every stream that has something to send, soon."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now`: a monotonic clock, in seconds."""
        self._now = now
        self._waiting: list[Callable[[], None]] = []
        self._due = now()

    def soon(self, flush: Callable[[], None]) -> None:
        """Call `flush`, which must not raise, once: this stream waits from now on."""
        if not self._waiting:
            loop, left = asyncio.get_running_loop(), self._due - self._now()
            if left > 0:
                loop.call_later(left, self._flush)
            else:
                loop.call_soon(loop.call_soon, self._flush)
        self._waiting.append(flush)

    def _flush(self) -> None:
        began = self._now()
        waiting, self._waiting = self._waiting, []
        for flush in waiting:
            flush()
        ended = self._now()
        self._due = ended + min(max(MOMENT, (ended - began) / 2), _LONGEST)
