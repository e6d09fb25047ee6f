"""The store's contract: keys, bytes and revisions.

Owns the `Store` protocol, its values and its errors; `steersman.testing.suites.store` checks every implementation.
Called only by the API server. It never decodes a value and never knows a kind.

One revision counter serves the whole store: every successful write takes the next one. All methods run on the
event loop of their caller. A watch sink is called, in revision order, *before* the writer of that revision resumes,
so whoever feeds a cache from a sink can answer a reader with his own writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Entry:
    """One key's value. `revision` is that of its last write."""

    key: str
    value: bytes
    revision: int


class Event:
    """One committed write. `value` is None for a deletion; `previous` is None for a creation.

    A store may hand over the way to the previous value instead, which is gone when a compaction comes first: few want
    it.
    """

    __slots__ = ("_previous", "key", "revision", "value")

    def __init__(
        self, key: str, revision: int, value: bytes | None, previous: bytes | Callable[[], bytes | None] | None
    ) -> None:
        self.key = key
        self.revision = revision
        self.value = value
        self._previous = previous

    @property
    def previous(self) -> bytes | None:
        """What the write replaced. Raises StoreUnavailable when it cannot be read."""
        if callable(self._previous):
            self._previous = self._previous()
        return self._previous

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        mine, theirs = (self.key, self.revision, self.value), (other.key, other.revision, other.value)
        return mine == theirs and self.previous == other.previous

    def __hash__(self) -> int:
        return hash((self.key, self.revision))

    def __repr__(self) -> str:
        return f"Event({self.key!r}, {self.revision}, {self.value!r}, {self.previous!r})"


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in key order as of `revision`; `remaining` counts those after the last one that were left out."""

    entries: Sequence[Entry]
    revision: int
    remaining: int = 0


class StoreError(Exception):
    """Base of what a store says no with."""


class KeyExists(StoreError):
    """`create` found the key there."""


class RevisionConflict(StoreError):
    """The key's last write is not the one the caller named; `current` is its entry, None when it is gone."""

    def __init__(self, key: str, current: Entry | None) -> None:
        super().__init__(key)
        self.current = current


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition of a write: another key's last write is still `revision`."""

    key: str
    revision: int


class GuardFailed(StoreError):
    """The guard's key was written meanwhile, or is gone; nothing was done, and watchers have heard of that write."""


class Compacted(StoreError):
    """The revision asked for is no longer kept; `oldest` still is."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"required revision has been compacted, oldest is {oldest}")
        self.oldest = oldest


class FutureRevision(StoreError):
    """The revision asked for has not been written yet."""


class StoreUnavailable(StoreError):
    """The store does not answer (disk full, I/O error, no quorum, closed). A local write was then not made durable;
    whether one over the network was is not known. Both may be tried again: a compare-and-swap happens once."""


Sink = Callable[[Sequence[Event]], None]
"""Takes events in revision order, each exactly once. Must not block and must not raise."""


@runtime_checkable
class OnDisk(Protocol):
    """A store that has files of its own."""

    def size(self) -> int:
        """Bytes of them; 0 when they cannot be looked at."""
        ...


class Store(Protocol):
    """A revisioned, durable, watchable map of text keys to bytes."""

    @property
    def revision(self) -> int:
        """The newest committed revision; 1 for a store that was never written."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes write to it too: then `revision` is what this one has seen, see `fresh`."""
        ...

    async def fresh(self) -> None:
        """Return when this process has seen every write that was acknowledged to anybody before the call.

        Raises StoreUnavailable."""
        ...

    async def get(self, key: str, *, revision: int = 0) -> Entry | None:
        """The entry now, or as of `revision`. Raises Compacted, FutureRevision."""
        ...

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        """Entries whose key starts with `prefix` and sorts after `after`, at most `limit` (0: all), now or as
        of `revision`. Raises Compacted, FutureRevision."""
        ...

    async def create(self, key: str, value: bytes, *, guard: Guard | None = None) -> int:
        """Write a new key; returns its revision. Raises KeyExists, GuardFailed, StoreUnavailable."""
        ...

    async def update(self, key: str, value: bytes, expected: int, *, guard: Guard | None = None) -> int:
        """Replace the value whose last revision is `expected`; returns the new one. Raises RevisionConflict,
        GuardFailed."""
        ...

    async def delete(self, key: str, expected: int, *, guard: Guard | None = None) -> int:
        """Remove the key whose last revision is `expected`; returns the deletion's. Raises RevisionConflict,
        GuardFailed."""
        ...

    async def watch(self, prefix: str, after: int, sink: Sink) -> Callable[[], None]:
        """Feed `sink` every event with a revision greater than `after`, the kept past first; returns the stop
        function. Raises Compacted, FutureRevision."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`. Raises Compacted when that is done already, FutureRevision."""
        ...

    async def close(self) -> None:
        """Finish what is accepted, then stop; later calls raise StoreUnavailable."""
        ...
