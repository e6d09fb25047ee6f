"""What is raised where an object is wanted in a version that only a conversion webhook can make.

Owns the exception, which lies below both its raisers (`conversion`, `encode`) and those who wait (`app`, `watch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from steersman.api.resource import Object


class Fetcher(Protocol):
    """Who can convert, given time."""

    async def fetch(self, objects: Sequence[Object], wanted: str) -> None:
        """Convert and remember. Raises ApiError."""
        ...


class Unconverted(Exception):
    """Objects are wanted in another version, which only the webhook can make."""

    def __init__(self, converter: Fetcher, objects: Sequence[Object], wanted: str) -> None:
        super().__init__(wanted)
        self.converter = converter
        self.objects = list(objects)
        self.wanted = wanted
