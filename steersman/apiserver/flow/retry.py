"""When to come again: the Retry-After of those who are turned away, longer the more there are.

Called by `gate.py`. Source: apiserver's pkg/util/flowcontrol/dropped_requests_tracker.go.
"""

from __future__ import annotations

from collections import deque

_MOST = 32  # seconds


class Drops:
    """One priority level's."""

    def __init__(self) -> None:
        self.seconds = 1
        self._history: deque[tuple[int, int]] = deque()  # Unix second, requests turned away in it
        self._second = 0
        self._count = 0
        self._raised = 0

    def note(self, second: int) -> None:
        """One more, in this Unix second."""
        if second == self._second:
            self._count += 1
            return
        self._history.append((self._second, self._count))
        while second - self._history[0][0] > min(2 * self.seconds, _MOST) and len(self._history) > 1:
            self._history.popleft()
        self._second, self._count = second, 1
        lately = sum(count for at, count in self._history if second - at <= self.seconds)
        if second - self._raised >= self.seconds and lately >= 3 * self.seconds:
            self.seconds, self._raised = min(2 * self.seconds, _MOST), second
        elif lately < self.seconds:
            self.seconds = max(1, self.seconds - 1)
