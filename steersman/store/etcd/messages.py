"""etcd's v3 messages that the store needs, as bytes and as values.

Pure. Called by `etcd/store.py`. Source: etcd's rpc.proto and kv.proto (field numbers).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from steersman.lib.grpc.wire import Value, data, fields, number

RANGE = "/etcdserverpb.KV/Range"
TXN = "/etcdserverpb.KV/Txn"
COMPACT = "/etcdserverpb.KV/Compact"
WATCH = "/etcdserverpb.Watch/Watch"

EVERY_KEY = (b"\0", b"\0")  # key and range_end that mean all keys


@dataclass(slots=True)
class KeyValue:
    """One key at one revision."""

    key: bytes = b""
    value: bytes = b""
    created: int = 0
    revision: int = 0


@dataclass(slots=True)
class Found:
    """The answer to a range request."""

    revision: int = 0
    items: list[KeyValue] = field(default_factory=list)
    count: int = 0  # of all keys in the range, with those that the limit left out


@dataclass(slots=True)
class Written:
    """The answer to a compare-and-swap. `current` is what stood in the way, None when nothing was there."""

    revision: int = 0
    succeeded: bool = False
    current: KeyValue | None = None


@dataclass(slots=True)
class Change:
    """One event of a watch."""

    item: KeyValue
    deleted: bool = False
    previous: KeyValue | None = None

    @property
    def created(self) -> bool:
        """Whether the key was absent before."""
        return not self.deleted and self.item.created == self.item.revision


@dataclass(slots=True)
class Told:
    """One message of a watch."""

    revision: int = 0
    canceled: bool = False
    compacted: int = 0
    reason: str = ""
    changes: list[Change] = field(default_factory=list)


def end_of(prefix: bytes) -> bytes:
    """The range_end of all keys with a prefix."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else b"\0"


def range_request(key: bytes, end: bytes = b"", *, limit: int = 0, revision: int = 0, count: bool = False) -> bytes:
    """A linearizable read: it sees every write that was acknowledged before it was asked."""
    return data(1, key) + (data(2, end) if end else b"") + number(3, limit) + number(4, revision) + number(9, count)


def swap_request(key: bytes, value: bytes | None, expected: int, guard: tuple[bytes, int] | None = None) -> bytes:
    """Put `value` (None: delete) if the key's last revision is `expected` (0: absent), else read what is there.

    `guard`: another key, and the revision that must be its last.
    """
    compared = data(1, _is_at(key, expected)) + (data(1, _is_at(*guard)) if guard is not None else b"")
    wanted = data(3, data(1, key)) if value is None else data(2, data(1, key) + data(2, value))
    return compared + data(2, wanted) + data(3, data(1, data(1, key)))


def _is_at(key: bytes, revision: int) -> bytes:
    return number(2, 2) + data(3, key) + (number(6, revision) or b"\x30\0")  # target MOD, result EQUAL


def watch_request(key: bytes, end: bytes, start: int) -> bytes:
    """Events from revision `start` on, each with the value before it."""
    return data(1, data(1, key) + data(2, end) + number(3, start) + number(6, 1))


def compact_request(revision: int) -> bytes:
    """Forget what is older."""
    return number(1, revision)


def _int(value: Value) -> int:
    if isinstance(value, bytes):
        raise ValueError("a number was expected")
    return value


def _bytes(value: Value) -> bytes:
    if isinstance(value, int):
        raise ValueError("bytes were expected")
    return value


def header_revision(message: bytes) -> int:
    """ResponseHeader.revision of an answer's field 1."""
    for at, value in fields(message):
        if at == 1:
            return next((_int(inner) for name, inner in fields(_bytes(value)) if name == 3), 0)
    return 0


def _key_value(message: bytes) -> KeyValue:
    found = KeyValue()
    for at, value in fields(message):
        if at == 1:
            found.key = _bytes(value)
        elif at == 2:
            found.created = _int(value)
        elif at == 3:
            found.revision = _int(value)
        elif at == 5:
            found.value = _bytes(value)
    return found


def range_answer(message: bytes) -> Found:
    """Raises ValueError."""
    found = Found(header_revision(message))
    for at, value in fields(message):
        if at == 2:
            found.items.append(_key_value(_bytes(value)))
        elif at == 4:
            found.count = _int(value)
    return found


def swap_answer(message: bytes) -> Written:
    """Raises ValueError."""
    found = Written(header_revision(message))
    for at, value in fields(message):
        if at == 2:
            found.succeeded = bool(value)
        elif at == 3:
            for name, inner in fields(_bytes(value)):
                if name == 1 and (items := range_answer(_bytes(inner)).items):
                    found.current = items[0]
    return found


def watch_answer(message: bytes) -> Told:
    """Raises ValueError."""
    told = Told()
    for at, value in fields(message):
        if at == 11:
            told.changes.append(_change(_bytes(value)))
        elif at == 1:
            told.revision = next((_int(inner) for name, inner in fields(_bytes(value)) if name == 3), 0)
        elif at == 4:
            told.canceled = bool(value)
        elif at == 5:
            told.compacted = _int(value)
        elif at == 6:
            told.reason = _bytes(value).decode(errors="replace")
    return told


def _change(message: bytes) -> Change:
    change = Change(KeyValue())
    for at, value in fields(message):
        if at == 1:
            change.deleted = value == 1
        elif at == 2:
            change.item = _key_value(_bytes(value))
        elif at == 3:
            change.previous = _key_value(_bytes(value))
    return change
