"""The store in memory: for tests and for control planes that need not outlive their process.

Owns nothing durable. Behaves as every other store (see `interface.py`); a write commits at once.
"""

from __future__ import annotations

from collections.abc import Callable

from steersman.store.index import Index, Watchers
from steersman.store.interface import (
    Entry,
    Event,
    Guard,
    GuardFailed,
    KeyExists,
    Page,
    RevisionConflict,
    Sink,
    StoreUnavailable,
)


class MemoryStore:
    """Implements `Store` with a dict of values by revision."""

    def __init__(self) -> None:
        self._index = Index()
        self._values: dict[int, bytes] = {}
        self._watchers = Watchers()
        self._closed = False

    shared = False

    @property
    def revision(self) -> int:
        """The newest committed revision."""
        return self._index.revision

    def _entry(self, key: str, revision: int) -> Entry | None:
        return Entry(key, self._values[revision], revision) if revision else None

    def _open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def _commit(self, key: str, value: bytes | None) -> int:
        revision = self._index.revision + 1
        write = self._index.apply(revision, key, deleted=value is None)
        if value is not None:
            self._values[revision] = value
        self._watchers.deliver([Event(key, revision, value, self._values.get(write.previous))])
        return revision

    async def fresh(self) -> None:
        """Every write is this process's own."""
        self._open()

    async def get(self, key: str, *, revision: int = 0) -> Entry | None:
        """The entry now, or as of `revision`."""
        self._open()
        return self._entry(key, self._index.at(key, revision) if revision else self._index.live(key))

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        """Entries in key order."""
        self._open()
        chosen, remaining = self._index.page(prefix, after, limit, revision)
        entries = [Entry(key, self._values[at], at) for key, at in chosen]
        return Page(entries, revision or self._index.revision, remaining)

    async def create(self, key: str, value: bytes, *, guard: Guard | None = None) -> int:
        """Write a new key."""
        self._open()
        if self._index.live(key):
            raise KeyExists(key)
        self._check(guard)
        return self._commit(key, value)

    async def update(self, key: str, value: bytes, expected: int, *, guard: Guard | None = None) -> int:
        """Replace a value by compare-and-swap."""
        self._expect(key, expected)
        self._check(guard)
        return self._commit(key, value)

    async def delete(self, key: str, expected: int, *, guard: Guard | None = None) -> int:
        """Remove a key by compare-and-swap."""
        self._expect(key, expected)
        self._check(guard)
        return self._commit(key, None)

    def _expect(self, key: str, expected: int) -> None:
        self._open()
        live = self._index.live(key)
        if not live or live != expected:
            raise RevisionConflict(key, self._entry(key, live))

    def _check(self, guard: Guard | None) -> None:
        if guard is not None and self._index.live(guard.key) != guard.revision:
            raise GuardFailed(guard.key)

    async def watch(self, prefix: str, after: int, sink: Sink) -> Callable[[], None]:
        """Feed `sink` the kept past and then every commit."""
        self._open()
        self._index.check(after)
        past = [
            Event(w.key, w.revision, self._values.get(w.revision), self._values.get(w.previous))
            for w in self._index.since(after, prefix)
        ]
        if past:
            sink(past)
        return self._watchers.add(prefix, sink)

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`."""
        self._open()
        for dropped in self._index.compact(revision):
            self._values.pop(dropped, None)

    async def close(self) -> None:
        """Later calls raise StoreUnavailable."""
        self._closed = True
