"""The store on etcd: any number of API servers may share one cluster.

Owns one watch on all of etcd's keys, from which everything that this process tells of is fed: a write returns when that
watch has shown it, so a cache fed from a sink reflects the writer's own writes, as with a local store. The watch is on
all keys and not on a prefix since then every revision shows itself, and how far it has come is known exactly (etcd
before 3.4.25 answers requests for progress too early). Keys are kept under `/registry`, as kube-apiserver's are. It
never decodes a value.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Sequence

from steersman.lib.clock import Clock
from steersman.lib.failpoint import failpoint
from steersman.lib.grpc.channel import OUT_OF_RANGE, GrpcError
from steersman.lib.tasks import Tasks
from steersman.store.etcd import messages
from steersman.store.etcd.link import Link, Servers
from steersman.store.etcd.messages import EVERY_KEY, Change, KeyValue, Told, Written
from steersman.store.index import FIRST_REVISION, Watchers
from steersman.store.interface import (
    Compacted,
    Entry,
    Event,
    FutureRevision,
    Guard,
    GuardFailed,
    KeyExists,
    Page,
    RevisionConflict,
    Sink,
    StoreUnavailable,
)

log = logging.getLogger(__name__)

PREFIX = "/registry"
_CHUNK = 5_000  # entries asked for at a time
_PATIENCE = 10.0  # seconds for a watch to show what etcd has acknowledged
_LOST = "etcd compacted events that this server had not seen; it has to start anew"
_AGAIN = 0.1  # seconds between attempts to watch
_WITH_LEADER = {"hasleader": "true"}  # a member that is cut off from the others ends the watch


class EtcdStore:
    """Implements `Store`. Make it with `EtcdStore.open`."""

    shared = True

    def __init__(self, link: Link, clock: Clock, revision: int, prefix: str) -> None:
        self._link = link
        self._clock = clock
        self._root = prefix.encode()
        self._revision = revision
        self._oldest = FIRST_REVISION
        self._watchers = Watchers()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = itertools.count()
        self._asking: list[asyncio.Future[None]] = []
        self._asked = False
        self._tasks = Tasks()
        self.lost = asyncio.Event()  # set when events were missed: whoever keeps a cache has to start anew
        self._tasks.spawn(self._follow(), "etcd watch")

    @classmethod
    async def open(cls, servers: Servers, clock: Clock, prefix: str = PREFIX) -> EtcdStore:
        """Connect; keys begin with `prefix`. Raises StoreUnavailable, ValueError (a bad URL), OSError (TLS files)."""
        link = Link(servers)
        try:
            answer = await link.read(messages.RANGE, _PROBE)
        except GrpcError as error:
            raise StoreUnavailable(f"etcd refuses: {error.message}") from error
        return cls(link, clock, messages.header_revision(answer), prefix)

    @property
    def revision(self) -> int:
        """The newest revision that every watcher here has been told of."""
        return self._revision

    # Following etcd --------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while not self._link.closed and not self.lost.is_set():
            try:
                await self._watch(EVERY_KEY, self._revision + 1, self._take, self._never)
            except Compacted as error:
                log.error("etcd compacted revision %d before this server saw it", self._revision + 1)
                self._oldest = error.oldest
                self.lost.set()
                self._give_up(_LOST)
            except StoreUnavailable as error:
                log.warning("the watch on etcd ended: %s", error)
                await self._clock.sleep(_AGAIN)

    @staticmethod
    def _never() -> bool:
        return False

    async def _watch(
        self, keys: tuple[bytes, bytes], start: int, take: Callable[[Told], None], enough: Callable[[], bool]
    ) -> None:
        """One watch stream until `enough` says so. Raises StoreUnavailable, Compacted."""
        channel = await self._link.channel()
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle(error: Exception | None) -> None:
            if over.done():
                return
            if error is None:
                over.set_result(None)
            else:
                over.set_exception(error)

        def message(raw: bytes) -> None:
            try:
                told = messages.watch_answer(raw)
            except ValueError as error:
                settle(StoreUnavailable(f"etcd sent a broken message: {error}"))
                return
            if told.compacted:
                settle(Compacted(told.compacted))
            elif told.canceled:
                settle(StoreUnavailable(told.reason or "the watch was cancelled"))
            elif not over.done():
                take(told)
                if enough():
                    settle(None)

        def end(error: GrpcError | None) -> None:
            settle(StoreUnavailable(error.message if error else "etcd ended the watch"))

        try:
            stream = channel.stream(messages.WATCH, message, end, _WITH_LEADER)
            stream.send(messages.watch_request(*keys, start))
        except GrpcError as error:
            raise StoreUnavailable(error.message) from error
        try:
            await over
        except StoreUnavailable as error:
            self._link.drop(channel, str(error))
            raise
        finally:
            stream.cancel()

    def _take(self, told: Told) -> None:
        """Events of the one watch: tell everybody, then let writers go on."""
        if not told.changes:
            return
        events = [event for change in told.changes if (event := self._event(change)) is not None]
        self._revision = told.changes[-1].item.revision
        if events:
            self._watchers.deliver(events)
        while self._waiting and self._waiting[0][0] <= self._revision:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)

    def _give_up(self, why: str) -> None:
        """What is waited for will not come."""
        for _, _, future in self._waiting:
            if not future.done():
                future.set_exception(StoreUnavailable(why))

    async def _reach(self, revision: int) -> None:
        """Wait until everything up to `revision` was told. Raises StoreUnavailable."""
        if revision <= self._revision:
            return
        self._open()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (revision, next(self._count), future))
        try:
            async with asyncio.timeout(_PATIENCE):
                await future
        except TimeoutError:
            text = f"etcd is at revision {revision}, its watch showed {self._revision} within {_PATIENCE:g} s"
            raise StoreUnavailable(text) from None

    def _open(self) -> None:
        if self._link.closed:
            raise StoreUnavailable("the store is closed")
        if self.lost.is_set():
            raise StoreUnavailable(_LOST)

    async def fresh(self) -> None:
        """Until this process has seen every write that anybody had acknowledged; callers at one time share a read."""
        self._open()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asking.append(future)
        if not self._asked:
            self._asked = True
            self._tasks.spawn(self._ask(), "etcd revision")
        await future

    async def _ask(self) -> None:
        try:
            while self._asking:
                askers, self._asking = self._asking, []
                error: StoreUnavailable | None = None
                try:
                    await self._reach(messages.header_revision(await self._read(_PROBE)))
                except StoreUnavailable as problem:
                    error = problem
                for future in askers:
                    if future.done():
                        continue
                    if error is None:
                        future.set_result(None)
                    else:
                        future.set_exception(StoreUnavailable(str(error)))
        finally:
            self._asked = False

    # Reading ---------------------------------------------------------------------------------------------------

    async def _read(self, request: bytes, revision: int = 0) -> bytes:
        self._open()
        try:
            return await self._link.read(messages.RANGE, request)
        except GrpcError as error:
            raise self._refusal(error, revision) from error

    def _refusal(self, error: GrpcError, revision: int) -> Exception:
        if error.code == OUT_OF_RANGE and "compacted" in error.message:
            self._oldest = max(self._oldest, revision + 1)
            return Compacted(self._oldest)
        if error.code == OUT_OF_RANGE:
            return FutureRevision(f"revision {revision} is newer than {self._revision}")
        return StoreUnavailable(f"etcd refuses: {error.message}")

    async def get(self, key: str, *, revision: int = 0) -> Entry | None:
        """The entry now, or as of `revision`."""
        answer = await self._read(messages.range_request(self._key(key), revision=revision), revision)
        return next((self._entry(item) for item in messages.range_answer(answer).items), None)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        """Entries in key order; asked for in chunks of one revision."""
        first, end = self._key(prefix), messages.end_of(self._key(prefix))
        if after:
            first = max(first, self._key(after) + b"\0")
        entries: list[Entry] = []
        at, total = revision, 0
        while first < end:
            room = min(limit - len(entries), _CHUNK) if limit else _CHUNK
            answer = await self._read(messages.range_request(first, end, limit=room, revision=at), at)
            found = messages.range_answer(answer)
            total = total or found.count
            at = at or found.revision
            entries += [self._entry(item) for item in found.items]
            if len(entries) >= total or (limit and len(entries) >= limit):
                break
            first = found.items[-1].key + b"\0"
        if not revision:
            await self._reach(at)
        return Page(entries, at, total - len(entries))

    async def watch(self, prefix: str, after: int, sink: Sink) -> Callable[[], None]:
        """Feed `sink` the kept past and then every commit."""
        self._open()
        if after > self._revision:
            await self.fresh()
        if after > self._revision:
            raise FutureRevision(f"revision {after} is newer than {self._revision}")
        if after == self._revision:
            return self._watchers.add(prefix, sink)
        held: list[Event] | None = []

        def relay(events: Sequence[Event]) -> None:
            if held is None:
                sink(events)
            else:
                held.extend(events)

        stop = self._watchers.add(prefix, relay)
        try:
            past = await self._past(after, self._revision)
        except BaseException:
            stop()
            raise
        if mine := [event for event in past if event.key.startswith(prefix)]:
            sink(mine)
        if held:
            sink(held)
        held = None
        return stop

    async def _past(self, after: int, last: int) -> Sequence[Event]:
        """What happened after one revision up to another. Raises Compacted, StoreUnavailable."""
        if after < self._oldest:
            raise Compacted(self._oldest)
        changes: list[Change] = []

        def take(told: Told) -> None:
            changes.extend(change for change in told.changes if change.item.revision <= last)
            nonlocal reached
            reached = reached or bool(told.changes and told.changes[-1].item.revision >= last)

        reached = False
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._watch(EVERY_KEY, after + 1, take, lambda: reached)
        except TimeoutError:
            raise StoreUnavailable(f"etcd did not tell its past within {_PATIENCE:g} s") from None
        except Compacted as error:
            self._oldest = max(self._oldest, error.oldest)
            raise
        for change in changes:
            if change.previous is None and not change.created:  # somebody compacted while we read
                raise Compacted(change.item.revision)
        return [event for change in changes if (event := self._event(change)) is not None]

    # Writing ---------------------------------------------------------------------------------------------------

    async def create(self, key: str, value: bytes, *, guard: Guard | None = None) -> int:
        """Write a new key."""
        written = await self._swap(key, value, 0, guard)
        if not written.succeeded:
            raise KeyExists(key)
        return written.revision

    async def update(self, key: str, value: bytes, expected: int, *, guard: Guard | None = None) -> int:
        """Replace a value by compare-and-swap."""
        return await self._replace(key, value, expected, guard)

    async def delete(self, key: str, expected: int, *, guard: Guard | None = None) -> int:
        """Remove a key by compare-and-swap."""
        return await self._replace(key, None, expected, guard)

    async def _replace(self, key: str, value: bytes | None, expected: int, guard: Guard | None) -> int:
        written = await self._swap(key, value, expected or -1, guard)
        if not written.succeeded:
            raise RevisionConflict(key, None if written.current is None else self._entry(written.current))
        return written.revision

    async def _swap(self, key: str, value: bytes | None, expected: int, guard: Guard | None) -> Written:
        """One transaction; returns when its outcome shows in this process too, so that a loser can look again."""
        self._open()
        failpoint("etcd.before_swap")
        try:
            also = None if guard is None else (self._key(guard.key), guard.revision)
            answer = await self._link.call(messages.TXN, messages.swap_request(self._key(key), value, expected, also))
        except GrpcError as error:
            raise StoreUnavailable(f"etcd refuses: {error.message}") from error
        failpoint("etcd.after_swap")
        written = messages.swap_answer(answer)
        await self._reach(written.revision)
        if guard is not None and not written.succeeded:
            there = 0 if written.current is None else written.current.revision
            if there == max(expected, 0):  # of the two conditions it was not this one
                raise GuardFailed(guard.key)
        return written

    # Keys ------------------------------------------------------------------------------------------------------

    def _key(self, key: str) -> bytes:
        return self._root + key.encode()

    def _entry(self, item: KeyValue) -> Entry:
        return Entry(item.key[len(self._root) :].decode(), item.value, item.revision)

    def _event(self, change: Change) -> Event | None:
        """None for a key that is not ours."""
        item = change.item
        if not item.key.startswith(self._root + b"/"):
            return None
        previous = None if change.previous is None else change.previous.value
        key = item.key[len(self._root) :].decode(errors="replace")
        return Event(key, item.revision, None if change.deleted else item.value, previous)

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`."""
        self._open()
        try:
            await self._link.call(messages.COMPACT, messages.compact_request(revision))
        except GrpcError as error:
            raise self._refusal(error, revision - 1) from error
        self._oldest = max(self._oldest, revision)

    async def close(self) -> None:
        """Stop following; later calls raise StoreUnavailable."""
        self._link.close()
        await self._tasks.close()
        self._give_up("the store is closed")
        for future in self._asking:
            if not future.done():
                future.set_exception(StoreUnavailable("the store is closed"))


_PROBE = messages.range_request(b"compact_rev_key", count=True)
