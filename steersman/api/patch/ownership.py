"""Who manages which field: managedFields after an ordinary write, and the comparison that it rests on.

Owns `update`, `compare` and the reading and writing of managedFields. Called by the API server on create, update and
patch, after defaulting and before admission; by `apply.py` too. Subtrees that are equal are skipped, so that a write
costs what it changes. Pure: time is an argument. Source: KEP-555, structured-merge-diff's merge.Updater, apimachinery's
util/managedfields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from steersman.api.patch import fieldset, types
from steersman.api.patch.fieldset import LEAF, MEMBER, Set
from steersman.api.patch.types import Type
from steersman.api.resource import Object

MAX_UPDATERS = 10
ANCIENT = "ancient-changes"
_SPECS, _LONG = 512, 16_384  # how many specs of a kind are remembered, and bytes of the longest

STRIPPED = fieldset.of(
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
)
"""Fields that nobody manages."""

_VALUES = frozenset(("labels", "annotations"))
"""Of metadata: whose keys are fields, whatever their values are."""
_PLAIN = frozenset(("name", "namespace", "generateName", "uid", "creationTimestamp"))
"""Of metadata: fields whatever they say."""
_WHOLE = frozenset(("apiVersion", "kind", "metadata", "spec", "status"))

_MISSING = object()


class Manager(NamedTuple):
    """Who writes. `operation` is Update or Apply."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells managers apart; an applier is the same in all versions."""
        version = "" if self.operation == "Apply" else self.api_version
        return (self.name, self.operation, version, self.subresource)


class Entry:
    """One manager's fields, and when they last changed (RFC 3339).

    It holds them as a set or as FieldsV1 and makes the other when it is asked for: most writes change nobody's fields.
    """

    __slots__ = ("_fields", "_wire", "manager", "time")

    def __init__(
        self, manager: Manager, fields: Set | None, time: str = "", *, wire: Mapping[str, Any] | None = None
    ) -> None:
        """One of `fields` and `wire` is given; `wire` has been looked at before."""
        self.manager = manager
        self.time = time
        self._fields = fields
        self._wire = wire

    @property
    def fields(self) -> Set:
        """The fields. Raises ValueError when FieldsV1 makes no sense."""
        if self._fields is None:
            self._fields = fieldset.decode(self._wire or {})
        return self._fields

    @property
    def wire(self) -> Mapping[str, Any]:
        """FieldsV1; shared, so never to be changed."""
        if self._wire is None:
            self._wire = fieldset.encode(self._fields or {})
        return self._wire

    def having(self, fields: Set) -> Entry:
        """The same with other fields."""
        return self if fields is self._fields else Entry(self.manager, fields, self.time)

    def at(self, time: str) -> Entry:
        """The same, changed at another time."""
        return Entry(self.manager, self._fields, time, wire=self._wire)


Managed = dict[tuple[str, str, str, str], Entry]


@dataclass(slots=True)
class Difference:
    """What is new, other, and gone in one object against another."""

    added: Set
    modified: Set
    removed: Set

    def filtered(self, ignore: Set, keep: Set | None) -> Difference:
        """Without the ignored fields and what is below them; only below `keep` when that is given."""
        if not ignore and keep is None:
            return self
        found = (fieldset.without(each, ignore) for each in (self.added, self.modified, self.removed))
        return Difference(*(each if keep is None else fieldset.only(each, keep) for each in found))


def read(obj: Mapping[str, Any], *, trusted: bool = False) -> Managed:
    """The entries of metadata.managedFields. Raises ValueError when they make no sense.

    `trusted`: the fields were looked at when they were stored, and need not be again.
    """
    out: Managed = {}
    for i, entry in enumerate((obj.get("metadata") or {}).get("managedFields") or ()):
        operation, version = entry.get("operation"), entry.get("apiVersion")
        if operation not in ("Apply", "Update"):
            raise ValueError("operation must be `Apply` or `Update`")
        if not version:
            raise ValueError("apiVersion must not be empty")
        if entry.get("fieldsType") != "FieldsV1":
            raise ValueError(f"invalid fieldsType in managed fields entry {i}")
        manager = Manager(entry.get("manager") or "", operation, version, entry.get("subresource") or "")
        wire = entry.get("fieldsV1") or {}
        fields = None if trusted else fieldset.decode(wire)
        out[manager.key] = Entry(manager, fields, entry.get("time") or "", wire=wire)
    return out


def write(obj: Object, managed: Managed) -> None:
    """Set metadata.managedFields, in the original's order."""
    metadata = obj.setdefault("metadata", {})
    if not managed:
        metadata.pop("managedFields", None)
        return
    entries = sorted(managed.values(), key=lambda each: (each.manager.operation, each.time, each.manager.key))
    metadata["managedFields"] = [_encode(entry) for entry in entries]


def _encode(entry: Entry) -> Object:
    manager = entry.manager
    out: Object = {"manager": manager.name, "operation": manager.operation, "apiVersion": manager.api_version}
    if entry.time:
        out["time"] = entry.time
    out["fieldsType"] = "FieldsV1"
    out["fieldsV1"] = entry.wire
    if manager.subresource:
        out["subresource"] = manager.subresource
    return out


def update(
    live: Mapping[str, Any] | None,
    new: Object,
    type: Type,
    manager: Manager,
    now: str,
    *,
    ignore: Set | None = None,
    keep: Set | None = None,
) -> None:
    """Set managedFields of `new` after an ordinary write of it over `live` (None: a create).

    `ignore` are fields that this endpoint resets, `keep` the only ones it may change. What the client sent as
    managedFields counts: an empty list takes everybody's fields away, something unreadable is as if not sent.
    """
    managed = _start(live, new, manager)
    new["metadata"].pop("managedFields", None)
    if live is not None and not managed:
        return  # nobody manages anything, and this write is not where that starts
    if live is None and not managed and keep is None and (shape := _shape(new, ignore)) is not None:
        wire = type.shapes.get(shape)
        if wire is None:
            wire = _claimed(new, type, ignore)
            remember(type.shapes, shape, wire)
        write(new, {manager.key: Entry(manager, None, now, wire=wire)} if wire else {})
        return
    difference = _first(new, type) if live is None else compare(live, new, type)
    found = difference.filtered(ignore or {}, keep)
    managed = _take_over(managed, found, manager, now)
    write(new, _capped(managed))


def _start(live: Mapping[str, Any] | None, new: Object, manager: Manager) -> Managed:
    sent = new["metadata"].get("managedFields")
    known = (live or {}).get("metadata", {}).get("managedFields")
    if not manager.subresource and sent is not None and sent != known:
        if not sent or sent == [{}]:
            return {}
        found = _readable(new, trusted=False)
        if found:
            return found
    return _readable(live or {}, trusted=True)


def _readable(obj: Mapping[str, Any], *, trusted: bool) -> Managed:
    try:
        return read(obj, trusted=trusted)
    except ValueError:
        return {}


def _take_over(managed: Managed, found: Difference, manager: Manager, now: str) -> Managed:
    """Everybody loses what changed or went; this manager gains what changed or came."""
    changed = fieldset.union(found.modified, found.added)
    lost = fieldset.union(changed, found.removed)
    out: Managed = {}
    for key, entry in managed.items():
        gone = found.removed if key == manager.key else lost
        kept = entry
        if gone and fieldset.touches(entry.wire, gone):
            kept = Entry(entry.manager, None, entry.time, wire=fieldset.reduced(entry.wire, gone) or {})
        if kept.wire:
            out[key] = kept
    gained = fieldset.difference(changed, STRIPPED)
    if gained:
        mine = out.get(manager.key)
        if mine is None:
            out[manager.key] = Entry(manager, gained, now)
        elif fieldset.covers(mine.wire, gained):
            out[manager.key] = mine.at(now)
        else:
            out[manager.key] = Entry(manager, None, now, wire=fieldset.joined(mine.wire, gained))
    return out


def _capped(managed: Managed) -> Managed:
    """At most ten updaters: the oldest of a version become one."""
    if len(managed) <= MAX_UPDATERS:
        return managed
    updaters = sorted(
        (entry for entry in managed.values() if entry.manager.operation == "Update"),
        key=lambda entry: (entry.time, entry.manager.key),
    )
    excess = len(updaters) - MAX_UPDATERS
    if excess <= 0:
        return managed
    out = dict(managed)
    for entry in updaters[: excess + 1]:
        bucket = Manager(ANCIENT, "Update", entry.manager.api_version)
        del out[entry.manager.key]
        before = out.get(bucket.key)
        fields = fieldset.union(entry.fields, before.fields) if before else entry.fields
        out[bucket.key] = Entry(bucket, fields, entry.time)
    return out


def _shape(new: Object, ignore: Set | None) -> bytes | None:
    """All that decides who owns what of a new object, as text: objects of one template are alike in it. None for what
    is rarely like another."""
    body: Object | None = None
    if isinstance(new.get("spec"), dict) and _WHOLE.issuperset(new):
        body = new
    elif new.get("kind") == "Event":
        body = _fields_of(new)
    if body is None:
        return None
    meta: Object = {}
    for key, value in new["metadata"].items():
        if key in _PLAIN and value is not None:
            meta[key] = ""
        elif key in _VALUES and isinstance(value, dict) and None not in value.values():
            meta[key] = list(value)
        else:
            meta[key] = [value]
    return msgspec.json.encode([ignore, meta, {**body, "metadata": None}])


def _fields_of(event: Object) -> Object | None:
    """An Event's fields without their values, which nobody owns one by one; None for one with lists or nulls."""
    found: Object = {}
    for key, value in event.items():
        inner = list(value) if key not in ("metadata", "apiVersion", "kind") and isinstance(value, dict) else None
        if value is None or isinstance(value, list):
            return None
        if inner is not None and any(each is None or isinstance(each, (dict, list)) for each in value.values()):
            return None
        found[key] = value if key in ("apiVersion", "kind") else inner
    return found


def _claimed(new: Object, type: Type, ignore: Set | None) -> Mapping[str, Any]:
    """FieldsV1 of whoever makes an object."""
    found = _first(new, type).filtered(ignore or {}, None)
    return fieldset.encode(fieldset.difference(fieldset.union(found.modified, found.added), STRIPPED))


def _first(new: Object, type: Type) -> Difference:
    """What a create adds: everything. Pods of one template differ in their metadata only, so a spec is remembered."""
    spec = new.get("spec")
    if not isinstance(spec, dict):
        return compare({}, new, type)
    text = msgspec.json.encode(spec)
    known = type.specs.get(text)
    if known is None:
        known = fieldset.Kept(compare({}, {"spec": spec}, type).added.get("f:spec") or {})
        remember(type.specs, text, known)
    found = compare({}, {key: value for key, value in new.items() if key != "spec"}, type)
    if known:
        found.added["f:spec"] = known
    return found


def remember(known: dict[bytes, Any], text: bytes, found: Mapping[str, Any]) -> None:
    """Keep what a text came to, within limits."""
    if len(text) < _LONG:
        if len(known) >= _SPECS:
            known.clear()
        known[text] = found


def compare(old: Mapping[str, Any], new: Mapping[str, Any], type: Type) -> Difference:
    """What differs between two objects of a type."""
    out = Difference({}, {}, {})
    _compare(old, new, type, out)
    return out


def _compare(old: Any, new: Any, type: Type, out: Difference) -> None:
    """Fill `out`, whose sets belong to this place. Both sides are there and differ, or one is missing."""
    if old is _MISSING:
        _everything(new, type, out.added)
        return
    if new is _MISSING:
        _everything(old, type, out.removed)
        return
    if isinstance(old, dict) and isinstance(new, dict) and type.kind not in (types.ATOMIC, types.SCALAR):
        for key in old.keys() | new.keys():
            before, after = old.get(key, _MISSING), new.get(key, _MISSING)
            if before is _MISSING or after is _MISSING:
                if before is None or after is None:
                    continue  # a time that is not known: Go writes null, which is nobody's
                empty = type.absent(key)
                if empty is not None:
                    before, after = (empty if each is _MISSING else each for each in (before, after))
            if before is _MISSING or after is _MISSING or before != after:
                _descend(f"f:{key}", before, after, type.field(key), out)
    elif isinstance(old, list) and isinstance(new, list) and type.kind in (types.KEYED, types.SET) and (old or new):
        _compare_lists(old, new, type, out)
    else:
        out.modified[MEMBER] = {}


def _compare_lists(old: list[Any], new: list[Any], type: Type, out: Difference) -> None:
    before, after = by_path(old, type), by_path(new, type)
    for path in before.keys() | after.keys():
        one, other = before.get(path, _MISSING), after.get(path, _MISSING)
        if one is _MISSING or other is _MISSING or one != other:
            _descend(path, one, other, type.element, out)


def _descend(path: str, old: Any, new: Any, type: Type, out: Difference) -> None:
    inner = Difference({}, {}, {})
    _compare(old, new, type, inner)
    for mine, below in ((out.added, inner.added), (out.modified, inner.modified), (out.removed, inner.removed)):
        if below:
            mine[path] = below


def by_path(items: list[Any], type: Type) -> dict[str, Any]:
    """Items by their path element; of two with the same the last counts, one without a key does not."""
    out: dict[str, Any] = {}
    for item in items:
        try:
            out[type.path(item)] = item
        except ValueError:
            continue
    return out


def _everything(value: Any, type: Type, out: Set) -> None:
    """Every path at and below `value`, itself included."""
    out[MEMBER] = {}
    kind = type.kind
    if kind in (types.ATOMIC, types.SCALAR):
        return
    if isinstance(value, dict):
        for key, item in value.items():
            _below(f"f:{key}", item, type.field(key), out)
    elif isinstance(value, list) and kind in (types.KEYED, types.SET):
        for path, item in by_path(value, type).items():
            _below(path, item, type.element, out)


def _below(path: str, item: Any, type: Type, out: Set) -> None:
    if isinstance(item, (dict, list)) and item:
        inner: Set = {}
        _everything(item, type, inner)
        out[path] = inner
    else:
        out[path] = LEAF


def field_set(obj: Any, type: Type) -> Set:
    """The fields that an applied configuration names: leaves, list items and free map keys, empty maps."""
    out: Set = {}
    _fields(obj, type, out)
    return out


def _fields(value: Any, type: Type, out: Set) -> None:
    kind = type.kind
    if isinstance(value, dict) and kind not in (types.ATOMIC, types.SCALAR):
        for key, item in value.items():
            inner: Set = {}
            _fields(item, type.field(key), inner)
            if item is None or item == {} or not type.named(key):
                inner[MEMBER] = {}
            if inner:
                out[f"f:{key}"] = inner
    elif isinstance(value, list) and kind in (types.KEYED, types.SET):
        for path, item in by_path(value, type).items():
            inner = {MEMBER: {}}
            _fields(item, type.element, inner)
            out[path] = inner
    else:
        out[MEMBER] = {}
