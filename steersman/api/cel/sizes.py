"""How large a value may be, and arithmetic that stops at 2^64-1, where nothing is known any more.

Owns `Size` and what estimates are counted in. Called by the estimate of costs and its table of calls. Pure.
Source: cel-go's checker/cost.go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MOST = 2**64 - 1
TRAVERSAL, REGEX = 0.1, 0.25  # units for a character of a text, and of a regular expression


def priced(count: int, factor: float) -> int:
    """`count` times a factor, rounded up."""
    return min(MOST, math.ceil(float(count) * factor))


@dataclass(frozen=True, slots=True)
class Size:
    """At least and at most so many characters, bytes, items or entries."""

    least: int = 0
    most: int = MOST

    def __add__(self, other: Size) -> Size:
        return Size(min(MOST, self.least + other.least), min(MOST, self.most + other.most))

    def __mul__(self, other: Size) -> Size:
        return Size(min(MOST, self.least * other.least), min(MOST, self.most * other.most))

    def __or__(self, other: Size) -> Size:
        return Size(min(self.least, other.least), max(self.most, other.most))

    def traversed(self, times: float = 1) -> int:
        """What going through all of it costs at worst."""
        return priced(self.most, times * TRAVERSAL)


ONE = Size(1, 1)
UNKNOWN = Size()
