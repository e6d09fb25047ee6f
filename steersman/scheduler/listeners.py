"""Who waits for a change of what the scheduler knows.

Owns the list of them. Called by `devices.py` and `volumes.py`, whose claims bindings wait for.
"""

from __future__ import annotations

from collections.abc import Callable


class Listeners:
    """Functions to call at every change; each may stop while it is called."""

    def __init__(self) -> None:
        self._all: dict[object, Callable[[], None]] = {}

    def add(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` at every change, until what is returned is called."""
        mark = object()
        self._all[mark] = listener

        def stop() -> None:
            del self._all[mark]

        return stop

    def tell(self) -> None:
        """Something has changed."""
        for listener in list(self._all.values()):
            listener()
