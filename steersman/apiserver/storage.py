"""Objects in the store: keys, caches, and writes by compare-and-swap.

Owns the mapping from a kind and a name to a key, one cache per resource, and the retry of a write whose object changed
meanwhile. Called by the verbs. It knows nothing of defaults, validation or admission.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from steersman.api import errors
from steersman.api.kind import Kind
from steersman.api.term import Term
from steersman.apiserver.cache import Cache, Change, Item, ItemKind, Unreadable, to_value
from steersman.lib.clock import Clock
from steersman.lib.failpoint import failpoint
from steersman.store.interface import (
    Compacted,
    Entry,
    Event,
    Guard,
    GuardFailed,
    KeyExists,
    RevisionConflict,
    Store,
    StoreUnavailable,
)
from steersman.store.sealed import SealedStore, Unopened

T = TypeVar("T")

After = Callable[[Item | None, Item | None], Awaitable[None]]
"""What follows a write of this server before it is answered: the object before (None: created) and after (deleted)."""

_LEASES = ("coordination.k8s.io", "leases")


class Storage:
    """Every resource's objects. One watch on the store feeds all caches."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._sealed = store if isinstance(store, SealedStore) else None
        self._caches: dict[tuple[str, str], Cache] = {}
        self._stop: Callable[[], None] | None = None
        self.on_change: list[Callable[[Kind, Sequence[Event]], None]] = []
        self.after: dict[tuple[str, str], After] = {}  # by where a kind is stored

    @property
    def revision(self) -> int:
        """The newest revision, which every read reflects."""
        return self._store.revision

    @property
    def store(self) -> Store:
        """The store itself, for reading the past."""
        return self._store

    async def start(self) -> None:
        """Begin to follow the store; call `open` for each kind afterwards."""
        if self._sealed is not None:
            self._sealed.on_reopen.append(self._reopened)
        self._stop = await self._store.watch("/", self._store.revision, self._events)

    async def open(self, kind: Kind) -> Cache:
        """Load a kind's objects; again with a changed kind updates how they are read."""
        location = kind.storage_location
        cache = self._caches.get(location)
        if cache is None:
            prefix = f"/{location[0] or 'core'}/{location[1]}/"
            page = await self._store.list(prefix)
            fresh = Cache(kind, page.entries, page.revision)
            stop = await self._store.watch(prefix, page.revision, fresh.apply)  # what came since the list
            stop()
            cache = self._caches.setdefault(location, fresh)
        elif kind.custom:
            cache.set_kind(kind)
        return cache

    def cache(self, kind: Kind) -> Cache:
        """The kind's cache. Raises KeyError before `open`."""
        return self._caches[kind.storage_location]

    def found(self, kind: Kind) -> Cache | None:
        """The kind's cache; None where it has none."""
        return self._caches.get(kind.storage_location)

    def objects(self, kind: Kind, namespace: str = "") -> Sequence[Item]:
        """A kind's objects as they are now, of a namespace or of all; made for kinds that have few, and mostly none.

        Raises Unreadable."""
        cache = self._caches[kind.storage_location]
        if not len(cache) and not cache.unreadable:
            return ()
        return [item for _, item in cache.items(self.prefix(kind, namespace))]

    def close_kind(self, kind: Kind) -> None:
        """Forget a custom kind's cache."""
        self._caches.pop(kind.storage_location, None)

    def _events(self, events: Sequence[Event]) -> None:
        """The store's sink: hand each run of events to its cache."""
        for event in events:
            if (cache := self._cache_of(event.key)) is not None:
                cache.apply((event,))
                for listener in self.on_change:
                    listener(cache.kind.kind, (event,))

    def _cache_of(self, key: str) -> Cache | None:
        _, group, plural, _ = key.split("/", 3)
        return self._caches.get(("" if group == "core" else group, plural))

    def _reopened(self, entry: Entry) -> None:
        """What nothing could open is open."""
        if (cache := self._cache_of(entry.key)) is not None:
            cache.reopen(entry)

    @staticmethod
    def prefix(kind: Kind, namespace: str = "") -> str:
        """What the keys of a collection begin with."""
        group, plural = kind.storage_location
        return f"/{group or 'core'}/{plural}/{namespace}/" if namespace else f"/{group or 'core'}/{plural}/"

    @staticmethod
    def key(kind: Kind, namespace: str, name: str) -> str:
        """One object's key."""
        group, plural = kind.storage_location
        where = f"{namespace}/{name}" if kind.namespaced else name
        return f"/{group or 'core'}/{plural}/{where}"

    def find(self, kind: Kind, namespace: str, name: str) -> Item | None:
        """One object, now."""
        return self._caches[kind.storage_location].get(self.key(kind, namespace, name))

    def get(self, kind: Kind, namespace: str, name: str) -> Item:
        """One object, now. Raises ApiError NotFound."""
        item = self.find(kind, namespace, name)
        if item is None:
            raise errors.not_found(kind.group, kind.plural, name)
        return item

    def _guard(self, term: Term) -> Guard:
        """What a leader's write is tied to: its Lease as it is now. Raises ApiError 409 when the term is over."""
        key = f"/{_LEASES[0]}/{_LEASES[1]}/{term.namespace}/{term.name}"
        cache = self._caches.get(_LEASES)
        item = cache.get(key) if cache is not None else None
        if item is None or not term.lasts(item.obj()):
            text = "whoever asks does not lead any more, or never did"
            raise errors.conflict(_LEASES[0], _LEASES[1], term.name, text)
        return Guard(key, item.revision)

    async def _swap(self, term: Term | None, write: Callable[[Guard | None], Awaitable[int]]) -> int:
        """One write by compare-and-swap, of a leader's only while his term lasts. Raises ApiError, StoreError."""
        if term is None:
            return await write(None)
        while True:
            with suppress(GuardFailed):  # the Lease was renewed meanwhile, or taken
                return await write(self._guard(term))

    async def create(self, kind: Kind, obj: dict[str, object], *, term: Term | None = None) -> Item:
        """Write a new object. Raises ApiError AlreadyExists; Conflict when `term` is over."""
        meta = obj["metadata"]
        assert isinstance(meta, dict)
        key = self.key(kind, meta.get("namespace", ""), meta["name"])
        failpoint("write.before_store")
        try:
            value = to_value(obj)
            revision = await self._swap(term, lambda guard: self._store.create(key, value, guard=guard))
        except KeyExists:
            error = errors.already_exists(kind.group, kind.plural, meta["name"])
            with suppress(Unreadable):
                there = self._caches[kind.storage_location].get(key)
                if there is not None and there.obj()["metadata"].get("deletionTimestamp"):
                    error.message = f"object is being deleted: {error.message}"
            raise error from None
        except StoreUnavailable as error:
            raise errors.internal(str(error)) from error
        return await self._followed(kind, None, self._written(kind, key, revision))

    async def _followed(self, kind: Kind, old: Item | None, new: Item) -> Item:
        if (after := self.after.get(kind.storage_location)) is not None:
            await after(old, new)
        return new

    def _written(self, kind: Kind, key: str, revision: int) -> Item:
        """The item of a write of ours; when it was overwritten already, the newer one serves as well."""
        failpoint("write.after_store")
        item = self._caches[kind.storage_location].get(key)
        if item is None:
            raise errors.not_found(kind.group, kind.plural, key.rpartition("/")[2])
        return item

    async def replace(self, kind: Kind, item: Item, obj: dict[str, object], *, term: Term | None = None) -> Item | None:
        """Write `obj` over `item`; the same item when nothing changed (and it need not be
        sealed anew), None when somebody else was first. Raises ApiError Conflict when `term` is over."""
        value = to_value(obj)
        key = self.key(kind, item.namespace, item.name)
        if value == self._stored(item) and not (self._sealed and await self._sealed.stale(key, item.revision)):
            return item
        failpoint("write.before_store")
        try:
            revision = await self._swap(term, lambda guard: self._store.update(key, value, item.revision, guard=guard))
        except RevisionConflict:
            return None
        except StoreUnavailable as error:
            raise errors.internal(str(error)) from error
        return await self._followed(kind, item, self._written(kind, key, revision))

    @staticmethod
    def _stored(item: Item) -> bytes:
        """The bytes that the store holds for an item: without its resourceVersion."""
        start = len(b'"metadata":{"resourceVersion":"')
        end = item.tail.index(b'"', start) + 2
        return item.kind.prefix + b'"metadata":{' + item.tail[end:]

    async def remove(self, kind: Kind, item: Item, *, term: Term | None = None) -> Item | None:
        """Delete `item`; returns it as of its deletion, None when somebody else changed it first. Raises ApiError
        Conflict when `term` is over."""
        key = self.key(kind, item.namespace, item.name)
        failpoint("write.before_store")
        try:
            revision = await self._swap(term, lambda guard: self._store.delete(key, item.revision, guard=guard))
        except RevisionConflict:
            return None
        except StoreUnavailable as error:
            raise errors.internal(str(error)) from error
        failpoint("write.after_store")
        if (after := self.after.get(kind.storage_location)) is not None:
            await after(item, None)
        return item.at(revision)

    async def past(self, kind: Kind, after: int) -> list[Change] | None:
        """Changes after a revision from the store's own history: what the cache no longer has, or never saw since it
        was made by an earlier process. None when the store has compacted it away. Raises ApiError 500."""
        events: list[Event] = []
        try:
            stop = await self._store.watch(self.prefix(kind), after, events.extend)
        except Compacted:
            return None
        except StoreUnavailable as error:
            raise errors.internal(str(error)) from error
        stop()
        cache = self.cache(kind)
        try:
            return [self._change(cache.kind, event) for event in events]
        except Unreadable:
            if cache.unreadable:
                raise
            return None  # everything can be read by now: a list helps

    @staticmethod
    def _change(kind: ItemKind, event: Event) -> Change:
        """Raises Unreadable; what an update replaced need not be readable."""
        new = None if event.value is None else kind.item(event.key, event.value, event.revision)
        if event.previous is None or (new is not None and isinstance(event.previous, Unopened)):
            return Change(event.revision, None, new)
        return Change(event.revision, kind.item(event.key, event.previous, event.revision - 1), new)

    async def close(self) -> None:
        """Stop following the store."""
        if self._stop is not None:
            self._stop()
