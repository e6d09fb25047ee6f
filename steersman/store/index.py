"""Which revision of which key is live, and which were before: the bookkeeping of a local store, without values.

Owns the map from keys to revisions, the log of writes since the last compaction, and the watchers. Called by
`memory.py` and `sqlite.py`, which keep the values by revision. Pure: no I/O, no waiting.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from itertools import islice

import msgspec

from steersman.store.interface import Compacted, Event, FutureRevision, Sink

FIRST_REVISION = 1
_AFTER_ALL = "\U0010ffff"


class Write(msgspec.Struct, frozen=True, gc=False):
    """One committed write. `previous` is the revision it replaced, 0 when the key was absent.

    Not the cycle collector's concern: there is one for every write since the last compaction.
    """

    revision: int
    key: str
    deleted: bool
    previous: int


class Index:
    """Live revisions in key order, and the writes that led to them."""

    def __init__(self) -> None:
        self.revision = FIRST_REVISION
        self.oldest = FIRST_REVISION
        self._live: dict[str, int] = {}
        self._keys: list[str] = []
        self._log: list[Write] = []

    def live(self, key: str) -> int:
        """The revision of the last write of `key`; 0 when it is absent."""
        return self._live.get(key, 0)

    def apply(self, revision: int, key: str, *, deleted: bool) -> Write:
        """Record a committed write; revisions must ascend."""
        write = Write(revision, key, deleted, self._live.get(key, 0))
        if deleted:
            if write.previous:
                del self._live[key]
                del self._keys[bisect_left(self._keys, key)]
        else:
            if not write.previous:
                self._add(key)
            self._live[key] = revision
        self._log.append(write)
        self.revision = revision
        return write

    def _add(self, key: str) -> None:
        if not self._keys or key > self._keys[-1]:
            self._keys.append(key)
        else:
            insort(self._keys, key)

    def check(self, revision: int) -> None:
        """Raises Compacted or FutureRevision unless the state at `revision` can be read."""
        if revision > self.revision:
            raise FutureRevision(f"revision {revision} is newer than {self.revision}")
        if revision < self.oldest:
            raise Compacted(self.oldest)

    def page(
        self, prefix: str, after: str = "", limit: int = 0, revision: int = 0
    ) -> tuple[list[tuple[str, int]], int]:
        """Keys under `prefix` that sort after `after`, with their revisions, as of `revision` (0: now): at most `limit`
        of them (0: all), and how many are left. Costs what the page holds and what has changed since `revision`.

        Raises Compacted, FutureRevision.
        """
        first = bisect_left(self._keys, prefix)
        if after:
            first = max(first, bisect_right(self._keys, after))
        last = max(first, bisect_left(self._keys, prefix + _AFTER_ALL) if prefix else len(self._keys))
        undone: dict[str, int] = {}
        if revision:
            self.check(revision)
            for write in self.since(revision, prefix):
                if write.key > after:
                    undone.setdefault(write.key, write.previous)
        count = last - first + sum((at > 0) - (key in self._live) for key, at in undone.items())
        keys, live = self._keys, self._live
        same = ((keys[i], live[keys[i]]) for i in range(first, last) if keys[i] not in undone)
        back = sorted((key, at) for key, at in undone.items() if at)
        chosen = list(islice(merge(same, back) if back else same, limit or None))
        return chosen, count - len(chosen)

    def at(self, key: str, revision: int) -> int:
        """The last write of `key` up to `revision`, 0 when it was absent then. Raises Compacted, FutureRevision."""
        self.check(revision)
        return next((write.previous for write in self.since(revision, key) if write.key == key), self.live(key))

    def since(self, after: int, prefix: str) -> Iterator[Write]:
        """Writes newer than `after` under `prefix`, oldest first."""
        first = bisect_right(self._log, after, key=lambda write: write.revision)
        return (write for write in self._log[first:] if write.key.startswith(prefix))

    def compact(self, revision: int) -> list[int]:
        """Forget the writes up to `revision`; returns the revisions whose values nobody can ask for any more.

        Raises Compacted when that is done already, FutureRevision.
        """
        if revision > self.revision:
            raise FutureRevision(f"revision {revision} is newer than {self.revision}")
        if revision <= self.oldest:
            raise Compacted(self.oldest)
        cut = bisect_right(self._log, revision, key=lambda write: write.revision)
        dropped: list[int] = []
        for write in self._log[:cut]:
            if write.previous:
                dropped.append(write.previous)
            if write.deleted:
                dropped.append(write.revision)
        del self._log[:cut]
        self.oldest = revision
        return dropped

    def restore(self, revision: int, oldest: int) -> None:
        """After replaying a saved log: the revisions that were recorded beside it."""
        self.revision = max(self.revision, revision)
        self.oldest = oldest
        cut = bisect_right(self._log, oldest, key=lambda write: write.revision)
        del self._log[:cut]


class Watchers:
    """Who wants to hear of which keys. Delivery is a plain call, in the order of commits."""

    def __init__(self) -> None:
        self._sinks: dict[int, tuple[str, Sink]] = {}
        self._next = 0

    def add(self, prefix: str, sink: Sink) -> Callable[[], None]:
        """Deliver events under `prefix` to `sink` from now on; returns the stop function."""
        self._next += 1
        number = self._next
        self._sinks[number] = (prefix, sink)

        def stop() -> None:
            self._sinks.pop(number, None)

        return stop

    def deliver(self, events: Sequence[Event]) -> None:
        """Hand a commit's events to everybody who asked for some of them."""
        for prefix, sink in tuple(self._sinks.values()):
            mine = [event for event in events if event.key.startswith(prefix)]
            if mine:
                sink(mine)
