"""Metrics of the store: how often it is asked, how long it takes, how often it fails.

Owns `Measured`, a store around another one. Made by `cluster`; read by `server.py`. It changes nothing and never looks
at a value. The names are the original's, which has etcd behind it; here they are of whichever store there is.
Source: apiserver's pkg/storage/etcd3/metrics.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from steersman.lib.metrics import Distribution, Registry, Value
from steersman.store.interface import Entry, Guard, OnDisk, Page, Sink, Store, StoreUnavailable

T = TypeVar("T")

_LATENCIES = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
_WHAT = ("operation", "group", "resource")


class _Counts:
    """Of one operation on one resource."""

    __slots__ = ("errors", "times", "total")

    def __init__(self, times: Distribution, total: Value, errors: Callable[[], Value]) -> None:
        self.times = times
        self.total = total
        self.errors = errors


class Measured:
    """Implements `Store`."""

    def __init__(self, inner: Store, now: Callable[[], float]) -> None:
        """`now`: a monotonic clock, in seconds."""
        self._inner = inner
        self._now = now
        self.metrics = Registry()
        of = self.metrics
        self._times = of.histogram(
            "etcd_request_duration_seconds", "Seconds of the store's answers.", _WHAT, _LATENCIES
        )
        self._total = of.counter("etcd_requests_total", "Requests to the store.", _WHAT)
        self._errors = of.counter("etcd_request_errors_total", "Requests that the store failed.", _WHAT)
        start = "apiserver_storage_list"
        self._lists = of.counter(f"{start}_total", "Lists read from the store.", _WHAT[1:])
        self._fetched = of.counter(f"{start}_fetched_objects_total", "Objects read for them.", _WHAT[1:])
        self._evaluated = of.counter(f"{start}_evaluated_objects_total", "Objects looked at for them.", _WHAT[1:])
        self._returned = of.counter(f"{start}_returned_objects_total", "Objects given out for them.", _WHAT[1:])
        if isinstance(inner, OnDisk):
            whole = of.gauge("apiserver_storage_size_bytes", "Bytes of the store's files.", ("storage_cluster_id",))
            of.collect(lambda: whole.labels("etcd-0").set(inner.size()))
        self._known: dict[tuple[str, str], _Counts] = {}

    @staticmethod
    def _where(key: str) -> tuple[str, str]:
        """Group and resource of /GROUP/RESOURCE/..., the core group without a name; nothing of other keys."""
        parts = key.split("/", 3)
        if len(parts) < 4:
            return "", ""
        return "" if parts[1] == "core" else parts[1], parts[2]

    def _counts(self, operation: str, key: str) -> _Counts:
        second = key.find("/", key.find("/", 1) + 1)
        known = self._known.get(found := (operation, key[:second]))
        if known is None:
            labels = (operation, *self._where(key))
            times, total = self._times.labels(*labels), self._total.labels(*labels)
            known = self._known[found] = _Counts(times, total, lambda: self._errors.labels(*labels))
        return known

    async def _timed(self, operation: str, key: str, work: Awaitable[T]) -> T:
        counts, began = self._counts(operation, key), self._now()
        try:
            return await work
        except StoreUnavailable:
            counts.errors().value += 1
            raise
        finally:
            counts.total.value += 1
            counts.times.observe(self._now() - began)

    @property
    def revision(self) -> int:
        """As the store inside."""
        return self._inner.revision

    @property
    def shared(self) -> bool:
        """As the store inside."""
        return self._inner.shared

    async def fresh(self) -> None:
        """As the store inside."""
        await self._inner.fresh()

    async def get(self, key: str, *, revision: int = 0) -> Entry | None:
        """The entry."""
        return await self._timed("get", key, self._inner.get(key, revision=revision))

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        """Entries."""
        work = self._inner.list(prefix, after=after, limit=limit, revision=revision)
        page = await self._timed("list", prefix, work)
        where = self._where(prefix)
        self._lists.labels(*where).value += 1
        self._fetched.labels(*where).value += len(page.entries)
        self._evaluated.labels(*where).value += len(page.entries)
        self._returned.labels(*where).value += len(page.entries)
        return page

    async def create(self, key: str, value: bytes, *, guard: Guard | None = None) -> int:
        """Write a new key."""
        return await self._timed("create", key, self._inner.create(key, value, guard=guard))

    async def update(self, key: str, value: bytes, expected: int, *, guard: Guard | None = None) -> int:
        """Replace a value."""
        return await self._timed("update", key, self._inner.update(key, value, expected, guard=guard))

    async def delete(self, key: str, expected: int, *, guard: Guard | None = None) -> int:
        """Remove the key."""
        return await self._timed("delete", key, self._inner.delete(key, expected, guard=guard))

    async def watch(self, prefix: str, after: int, sink: Sink) -> Callable[[], None]:
        """Feed `sink` events."""
        return await self._inner.watch(prefix, after, sink)

    async def compact(self, revision: int) -> None:
        """As the store inside."""
        await self._inner.compact(revision)

    async def close(self) -> None:
        """As the store inside."""
        await self._inner.close()
