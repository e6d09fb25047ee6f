"""Exponential back-off as a value: no clock inside, the caller waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K")


@dataclass
class Backoff(Generic[K]):
    """Delays per key: `initial` seconds, doubled at each failure, at most `maximum`."""

    initial: float
    maximum: float
    _failures: dict[K, int] = field(default_factory=dict)

    def next(self, key: K) -> float:
        """Seconds to wait after one more failure of `key`."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        return min(self.initial * 2 ** min(count, 62), self.maximum)

    def failures(self, key: K) -> int:
        """How often `key` has failed since it was last forgotten."""
        return self._failures.get(key, 0)

    def forget(self, key: K) -> None:
        """`key` succeeded: start from `initial` again."""
        self._failures.pop(key, None)
