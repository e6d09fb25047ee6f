"""The watch cache: every object of one resource as bytes, and who watches it.

Owns the current state of a resource in memory, its recent past, and delivery to watchers. Fed by the store's events in
commit order, before the writer resumes, so a read after a write sees it. Objects are bytes plus small metadata, never
dicts: an event or an object is encoded once and the same bytes go to everybody.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, overload

import msgspec

from steersman.api.errors import ApiError
from steersman.api.kind import Kind
from steersman.api.resource import Object
from steersman.store.interface import Entry, Event
from steersman.store.sealed import ENCRYPTED, NOT_HERE, Unopened

decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_OPEN = b'"metadata":{'
_RV = b'"metadata":{"resourceVersion":"'
_MANY = 5_000  # objects that are not looked up at once
KEPT = 8_192  # events per resource that a watch can resume from
WATCH_LISTS = "watch lists"  # in a server's extras: how long they took
_AFTER_ALL = "\U0010ffff"
_ESCAPED = ((b"<", rb"\u003c"), (b">", rb"\u003e"), (b"&", rb"\u0026"), (b"\xe2\x80\xa8", rb"\u2028"),
            (b"\xe2\x80\xa9", rb"\u2029"))  # fmt: skip


def encode(value: Any) -> bytes:
    """JSON as Go's encoder writes it, with what could be taken for HTML or for the end of a line escaped."""
    data = _encode(value)
    if b"<" in data or b">" in data or b"&" in data or not data.isascii():
        for plain, escaped in _ESCAPED:  # they stand in strings only
            data = data.replace(plain, escaped)
    return data


@lru_cache(maxsize=1024)
def prefix_of(kind: str, api_version: str) -> bytes:
    """What every stored object of a kind begins with."""
    return b'{"kind":%b,"apiVersion":%b,' % (encode(kind), encode(api_version))


def stored_api_version(kind: Kind) -> str:
    """The apiVersion that a kind's objects are stored in; a view of another kind is stored as that one."""
    if kind.stored_as is None:
        return kind.api_version(kind.storage_version.name)
    return f"{kind.stored_as[0]}/v1" if kind.stored_as[0] else "v1"


def to_value(obj: Object) -> bytes:
    """The bytes to store: kind, apiVersion and metadata first, no resourceVersion."""
    meta = obj["metadata"]
    meta = {key: value for key, value in meta.items() if key != "resourceVersion"}
    rest = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion", "metadata")}
    return encode({"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": meta, **rest})


class _Labelled(msgspec.Struct):
    """Of an object's metadata only what selectors want; the rest is passed over undecoded."""

    labels: dict[str, str] | None = None


class _Labels(msgspec.Struct):
    metadata: _Labelled


_labels_of = msgspec.json.Decoder(_Labels).decode
_NONE: Mapping[str, str] = {}


class Unreadable(ApiError):
    """500: a stored value is encrypted, and no key opens it. `why` in the original's words."""

    def __init__(self, kind: Kind, key: str, why: str, revision: int = 0) -> None:
        super().__init__(500, "InternalError", f"Internal error occurred: {why}", {"causes": [{"message": why}]})
        _, group, rest = key.split("/", 2)
        self.shown = f"/registry/{group}/{rest}" if kind.custom else f"/registry/{rest}"  # the original's key
        self.kind, self.key, self.why, self.revision = kind, key, why, revision

    def in_list(self) -> Unreadable:
        """The same where it was met in a list."""
        return Unreadable(self.kind, self.key, f'unable to transform key "{self.shown}": {self.why}')


class Item(msgspec.Struct, eq=False, gc=False):
    """One object at one revision. `tail` is its JSON without the head `{"kind":…,"apiVersion":…,`.

    The cycle collector does not look at items: with 150,000 of them a full collection would stop the server for an
    eighth of a second, and there is no way from an item back to itself.
    """

    kind: ItemKind
    namespace: str
    name: str
    tail: bytes
    revision: int
    _labels: Mapping[str, str] | None = None
    _fields: Mapping[str, str] | None = None

    @property
    def json(self) -> bytes:
        """The whole object in its storage version."""
        return self.kind.prefix + self.tail

    def obj(self) -> Object:
        """A fresh, mutable copy."""
        decoded: Object = decode(self.kind.prefix + self.tail)
        return decoded

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels, decoded when a selector first asks."""
        if self._labels is None:
            self._labels = _labels_of(self.kind.prefix + self.tail).metadata.labels or _NONE
        return self._labels

    def field(self, path: str) -> str:
        """A selectable field's value."""
        if path == "metadata.name":
            return self.name
        if path == "metadata.namespace":
            return self.namespace
        if self._fields is None:
            obj = self.obj()
            self._fields = {name: getter(obj) for name, getter in self.kind.kind.fields.items()}
        return self._fields.get(path, "")

    def at(self, revision: int) -> Item:
        """The same object with another resourceVersion: what a deletion shows."""
        end = self.tail.index(b'"', len(_RV))
        tail = b"%b%d%b" % (_RV, revision, self.tail[end:])
        return Item(self.kind, self.namespace, self.name, tail, revision)


class ItemKind:
    """What all items of one kind share."""

    __slots__ = ("kind", "prefix", "storage_api_version")

    def __init__(self, kind: Kind, api_version: str = "") -> None:
        self.kind = kind
        self.storage_api_version = api_version or stored_api_version(kind)
        self.prefix = prefix_of(kind.kind, self.storage_api_version)

    def item(self, key: str, value: bytes, revision: int) -> Item:
        """The item for stored bytes; an older storage version is converted, unless that takes a webhook.

        Raises Unreadable.
        """
        if not value.startswith(self.prefix):
            if value.startswith(ENCRYPTED) or isinstance(value, Unopened):
                raise Unreadable(self.kind, key, value.why if isinstance(value, Unopened) else NOT_HERE, revision)
            if self.kind.custom and self.kind.convert is not None and (older := self._older(value)) is not None:
                return older.item(key, value, revision)
            value = self._converted(value)
        start = len(self.prefix) + len(_OPEN)
        tail = b'%b%d",%b' % (_RV, revision, value[start:])
        parts = key.split("/")
        namespace = parts[3] if self.kind.namespaced else ""
        return Item(self, namespace, parts[-1], tail, revision)

    def _older(self, value: bytes) -> ItemKind | None:
        """What items share that are stored in another version of the kind."""
        for version in self.kind.versions:
            api_version = self.kind.api_version(version.name)
            if value.startswith(prefix_of(self.kind.kind, api_version)):
                return ItemKind(self.kind, api_version)
        return None

    def _converted(self, value: bytes) -> bytes:
        obj = decode(value)
        if self.kind.convert is not None:
            obj = self.kind.convert(obj, self.storage_api_version)
        obj["apiVersion"] = self.storage_api_version
        return to_value(obj)


class Change:
    """One event: the item before (None: created) and after (None: deleted). `frames` is what watchers share of it."""

    __slots__ = ("frames", "new", "old", "revision")

    def __init__(self, revision: int, old: Item | None, new: Item | None) -> None:
        self.revision = revision
        self.old = old
        self.new = new
        self.frames: dict[Any, bytes] = {}


def _as_read(item: Item, key: str) -> Item:
    """A custom object as its schema, which may be younger than it, has it: pruned and with defaults."""
    obj = item.obj()
    if obj["apiVersion"] == stored_api_version(item.kind.kind):
        item.kind.kind.default(obj)
    return item.kind.item(key, to_value(obj), item.revision)


class _Frozen(Sequence[Item]):
    """Many objects as they were at one moment, looked up when they are asked for.

    Copying the table of all objects takes two milliseconds for 150,000; looking each of them up takes thirty.
    """

    def __init__(self, keys: Sequence[str], items: Mapping[str, Item]) -> None:
        self._keys = keys
        self._items = items

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | Sequence[Item]:
        if isinstance(at, int):
            return self._items[self._keys[at]]
        return list(map(self._items.__getitem__, self._keys[at]))


class Told:
    """What watches of one version have sent: events by the binary digits of their size less one, and bytes."""

    __slots__ = ("bytes", "counts")

    def __init__(self) -> None:
        self.counts = [0] * 64
        self.bytes = 0


Watcher = Callable[[Change], None]


class Cache:
    """All objects of one resource. Reads are immediate and never stale for this process's own writes."""

    def __init__(self, kind: Kind, entries: Sequence[Entry], revision: int) -> None:
        self.kind = ItemKind(kind)
        self._unreadable: dict[str, Unreadable] = {}
        made = ((entry.key, self._item(entry.key, entry.value, entry.revision)) for entry in entries)
        self._items = {key: item for key, item in made if item is not None}
        if kind.custom:
            self._items = {key: _as_read(item, key) for key, item in self._items.items()}
        self._keys = sorted(self._items)
        self.size = self._measured()
        self._changes: deque[Change] = deque()
        self._watchers: dict[int, Watcher] = {}
        self._ends: dict[int, Callable[[], None]] = {}
        self._next = 0
        self.heard = self.told = self.broken = 0  # events heard, and told; watches that could not go on
        self.lists = self.fetched = self.returned = 0  # lists, objects looked at and given out for them
        self.newest = self.initial = 0  # lists of what is newest; events of how things were when a watch began
        self.by_version: dict[str, Told] = {}
        self.audiences: dict[Any, Any] = {}  # of watchers that are told the same, as the watch verb keeps them
        self.oldest = revision  # a watch may resume after this revision and any later one

    def __len__(self) -> int:
        return len(self._keys)

    def _measured(self) -> int:
        """`size`: bytes of all objects."""
        return sum(len(item.tail) for item in self._items.values())

    @property
    def unreadable(self) -> bool:
        """Whether there are objects that nobody can read."""
        return bool(self._unreadable)

    def set_kind(self, kind: Kind) -> None:
        """The kind's definition changed (custom resources): objects are read anew when their version did."""
        fresh = ItemKind(kind)
        if fresh.prefix == self.kind.prefix and kind.versions == self.kind.kind.versions:
            self.kind.kind = kind
            return
        for key, item in self._items.items():
            self._items[key] = _as_read(fresh.item(key, to_value(item.obj()), item.revision), key)
        self.kind = fresh
        self.size = self._measured()

    def _item(self, key: str, value: bytes, revision: int) -> Item | None:
        """The item; None for what nobody can read, which is noted."""
        try:
            return self.kind.item(key, value, revision)
        except Unreadable as error:
            self._unreadable[key] = error
            return None

    def get(self, key: str) -> Item | None:
        """One object. Raises Unreadable."""
        item = self._items.get(key)
        if item is None and key in self._unreadable:
            raise self._unreadable[key]
        return item

    def span(self, prefix: str, after: str = "") -> tuple[int, int]:
        """Positions of the keys with `prefix` that sort after `after`. Raises Unreadable when one cannot be read."""
        if self._unreadable:
            for key in sorted(self._unreadable):
                if key.startswith(prefix):
                    raise self._unreadable[key].in_list()
        first = bisect_left(self._keys, prefix)
        if after:
            first = max(first, bisect_right(self._keys, after))
        return first, max(first, bisect_left(self._keys, prefix + _AFTER_ALL))

    def slice(self, prefix: str, after: str = "", most: int = 0) -> tuple[list[str], Sequence[Item]]:
        """Keys with `prefix` that sort after `after`, and their objects, as they are now; `most` of them (0: all)."""
        first, last = self.span(prefix, after)
        keys = self._keys[first : min(last, first + most) if most else last]
        if len(keys) > _MANY:
            return keys, _Frozen(keys, self._items.copy())
        return keys, list(map(self._items.__getitem__, keys))

    def items(self, prefix: str, after: str = "") -> Iterator[tuple[str, Item]]:
        """Objects in key order."""
        first, last = self.span(prefix, after)
        items = self._items
        return ((key, items[key]) for key in self._keys[first:last])

    def apply(self, events: Sequence[Event]) -> None:
        """Take committed writes over, in order, and tell watchers."""
        self.heard += len(events)
        for event in events:
            old = self._items.get(event.key)
            unread = self._unreadable.pop(event.key, None) if self._unreadable else None
            if event.value is None:
                if unread is not None:
                    self._broken(event.revision)
                if old is None:
                    continue
                self._forget(event.key)
                new = None
            else:
                new = self._item(event.key, event.value, event.revision)
                if new is None:  # another server's, with keys that are not here; readers are told when they ask
                    self._forget(event.key)
                    self._broken(event.revision)
                    continue
                self._items[event.key] = new
                self.size += len(new.tail)
                if old is None:
                    insort(self._keys, event.key)
                else:
                    self.size -= len(old.tail)
            self._tell(Change(event.revision, old, new))

    def _forget(self, key: str) -> None:
        if (item := self._items.pop(key, None)) is not None:
            self.size -= len(item.tail)
            del self._keys[bisect_left(self._keys, key)]

    def _broken(self, revision: int) -> None:
        """Watches cannot go on over what nobody can read: they end, and whoever resumes is told why."""
        self.oldest = revision
        self.broken += len(self._ends)
        for end in tuple(self._ends.values()):
            end()

    def reopen(self, entry: Entry) -> None:
        """What could not be read can be; nobody has watched since."""
        unread = self._unreadable.get(entry.key)
        if unread is None or unread.revision != entry.revision:
            return
        del self._unreadable[entry.key]
        if (item := self._item(entry.key, entry.value, entry.revision)) is not None:
            item = self._items[entry.key] = _as_read(item, entry.key) if self.kind.kind.custom else item
            self.size += len(item.tail)
            insort(self._keys, entry.key)

    def _tell(self, change: Change) -> None:
        self._changes.append(change)
        if len(self._changes) > KEPT:
            self.oldest = self._changes.popleft().revision
        self.told += 1
        for watcher in tuple(self._watchers.values()):
            watcher(change)
        change.frames = {}  # everybody has been told: bytes that nobody is likely to ask for again

    def since(self, revision: int) -> list[Change] | None:
        """Changes after `revision`; None when some are no longer kept."""
        if revision < self.oldest:
            return None
        first = bisect_right(self._changes, revision, key=lambda change: change.revision)
        return [self._changes[i] for i in range(first, len(self._changes))]

    def watch(self, watcher: Watcher, end: Callable[[], None] | None = None) -> Callable[[], None]:
        """Tell `watcher` of every change from now on; returns the stop function.

        `end` is called when something happened that cannot be told: resume, to learn what."""
        self._next += 1
        number = self._next
        self._watchers[number] = watcher
        if end is not None:
            self._ends[number] = end

        def stop() -> None:
            self._watchers.pop(number, None)
            self._ends.pop(number, None)

        return stop

    @property
    def watchers(self) -> int:
        """How many watch."""
        return len(self._watchers)
