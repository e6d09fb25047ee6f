"""Many small pieces for one peer become one write: a write costs a TLS record and a system call, whatever is in it.

Owns `Joining`, one per server, which knows the streams that have something to send, and when to. A piece that comes
after a quiet moment goes out with what else this turn of the loop brings; while they keep coming, a stream is written
to once a moment. Fed by `streams.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MOMENT = 0.001  # seconds; what the loop's timers can tell apart


class Joining:
    """Calls `flush` of every stream that has something to send, soon."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []
        self._last = 0.0

    def soon(self, flush: Callable[[], None]) -> None:
        """Call `flush`, which must not raise, once: this stream waits from now on."""
        if not self._waiting:
            loop = asyncio.get_running_loop()
            since = loop.time() - self._last
            if since >= MOMENT:
                loop.call_soon(self._flush)
            else:
                loop.call_later(MOMENT - since, self._flush)
        self._waiting.append(flush)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for flush in waiting:
            flush()
        self._last = asyncio.get_running_loop().time()
