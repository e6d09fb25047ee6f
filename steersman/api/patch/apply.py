"""Server-side apply: an author's configuration merged into what is there, by who manages which field.

Owns `apply`. Called by the API server's patch verb for apply-patch bodies. Returns a new object, which shares what is
the same with its arguments, and leaves those alone. Pure: time is an argument. Source: KEP-555, structured-merge-diff's
merge.Updater.Apply and apimachinery's util/managedfields.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from steersman.api import errors
from steersman.api.errors import ApiError
from steersman.api.patch import fieldset, ownership, types
from steersman.api.patch.fieldset import MEMBER, Set
from steersman.api.patch.ownership import Entry, Managed, Manager
from steersman.api.patch.types import Type
from steersman.api.resource import Object

BEFORE_FIRST = "before-first-apply"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_MISSING = object()
_EXPECTED = {
    "string": "string",
    "boolean": "boolean",
    "integer": "numeric (int or float)",
    "number": "numeric (int or float)",
    "array": "list",
    "object": "map",
}
_GO_TYPES: dict[type, str] = {str: "string", bool: "boolean", int: "int", float: "float", dict: "map", list: "list"}

Conflicts = list[tuple[Entry, tuple[str, ...]]]


def apply(
    live: Object | None,
    config: Object,
    type: Type,
    manager: str,
    now: str,
    *,
    subresource: str = "",
    force: bool = False,
    ignore: Set | None = None,
    keep: Set | None = None,
) -> Object:
    """`live` (None: there is none yet) with `config` merged in, and managedFields that say so.

    `ignore` are fields that this endpoint resets, `keep` the only ones it may change. The result is not defaulted.
    Raises ApiError 400 (config carries managedFields), 409 (conflicts), 500 (fields or keys that the schema has not).
    """
    if (config.get("metadata") or {}).get("managedFields") is not None:
        raise errors.bad_request("metadata.managedFields must be nil")
    me = Manager(manager, "Apply", config.get("apiVersion", ""), subresource)
    current = dict(live) if live is not None else {}
    managed = _readable(current)
    if current.get("metadata"):
        current["metadata"] = {key: value for key, value in current["metadata"].items() if key != "managedFields"}
    if live is not None and not managed:
        managed = _before_first(current, type, me, now, ignore or {})
    named = check(config, type)
    result, after, conflicts = _apply(current, config, type, named, managed, me, now, ignore or {}, keep)
    if conflicts and not force:
        conflicts = _not_allowed(conflicts, current, type, me)
        if conflicts:
            raise _conflict(conflicts)
    _remember(result, config, manager)
    ownership.write(result, after)
    return result


def check(config: Object, type: Type) -> Set:
    """The fields that a configuration names. Raises ApiError 500 for fields, keys or values that the schema has not."""
    try:
        return _named(config, type)
    except ValueError as error:
        raise ApiError(500, "", f"failed to create typed patch object ({_what(config)}): {error}") from None


def _what(config: Object) -> str:
    metadata = config.get("metadata") or {}
    name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
    version = config.get("apiVersion", "")
    return f"{name}; {version if '/' in version else f'/{version}'}, Kind={config.get('kind', '')}"


def _readable(obj: Mapping[str, Any]) -> Managed:
    try:
        return ownership.read(obj, trusted=True)
    except ValueError as error:
        raise errors.internal(f"failed to decode managed fields: {error}") from None


def _before_first(live: Object, type: Type, me: Manager, now: str, ignore: Set) -> Managed:
    """Everything that was there before anybody was asked belongs to one unnamed manager."""
    fields = fieldset.difference(ownership.compare({}, live, type).added, ownership.STRIPPED)
    fields = fieldset.without(fields, ignore)
    manager = Manager(BEFORE_FIRST, "Update", me.api_version)
    return {manager.key: Entry(manager, fields, now)} if fields else {}


def _apply(
    live: Object,
    config: Object,
    type: Type,
    named: Set,
    managed: Managed,
    me: Manager,
    now: str,
    ignore: Set,
    keep: Set | None,
) -> tuple[Object, Managed, Conflicts]:
    """The merged object, who manages what then, and with whom that conflicts."""
    merged = merge(live, config, type)
    mine = fieldset.without(named, ignore)
    if keep is not None:
        mine = fieldset.only(mine, keep)
    last = managed.get(me.key)
    others = {key: entry for key, entry in managed.items() if key != me.key}
    result = merged
    owns = fieldset.difference(mine, ownership.STRIPPED)
    wire = fieldset.encode(owns)
    if last is not None and last.wire != wire:
        owned = mine
        for entry in others.values():
            owned = fieldset.union(owned, entry.fields)
        result = _prune(merged, type, last.fields, owned)
        result = result if isinstance(result, dict) else {}
    found = ownership.compare(live, result, type).filtered(ignore, keep)
    touched = fieldset.union(found.modified, found.added)
    conflicts: Conflicts = []
    after: Managed = {}
    for key, entry in others.items():
        both = fieldset.intersection(entry.fields, touched)
        if both:
            conflicts += [(entry, path) for path in fieldset.members(both)]
        left = fieldset.difference(fieldset.difference(entry.fields, both), found.removed)
        if left:
            after[key] = entry.having(left)
    if owns:
        then = now if result != live else last.time if last is not None else ""  # what changes nothing has no time
        after[me.key] = Entry(me, owns, wire=wire, time=then)
    return result, after, conflicts


def _named(config: Object, type: Type) -> Set:
    """The fields that a configuration names; the same spec is not looked at twice. Raises ValueError."""
    spec = config.get("spec")
    if not isinstance(spec, dict):
        check_fields(config, type, "")
        return ownership.field_set(config, type)
    bare = {key: value for key, value in config.items() if key != "spec"}
    text = b"applied " + msgspec.json.encode(spec)
    found = type.specs.get(text)
    if found is None:
        check_fields(config, type, "")
        found = fieldset.Kept(ownership.field_set({"spec": spec}, type).get("f:spec") or {})
        ownership.remember(type.specs, text, found)
    else:
        check_fields(bare, type, "")
    out = ownership.field_set(bare, type)
    if found:
        out["f:spec"] = found
    return out


def merge(live: Any, config: Any, type: Type) -> Any:
    """`config` over `live`, by the type's merge rules; neither is changed."""
    kind = type.kind
    if isinstance(live, dict) and isinstance(config, dict) and kind not in (types.ATOMIC, types.SCALAR):
        out = dict(live)
        for key, value in config.items():
            out[key] = merge(live[key], value, type.field(key)) if key in live else value
        return out
    if isinstance(live, list) and isinstance(config, list) and kind in (types.KEYED, types.SET):
        return _merge_lists(live, config, type)
    return config


def check_fields(value: Any, type: Type, path: str) -> None:
    """Fields are the schema's, and list items have their keys, each once. Raises ValueError."""
    if isinstance(value, dict) and type.kind not in (types.ATOMIC, types.SCALAR):
        for key, item in value.items():
            if type.closed and not type.named(key):
                raise ValueError(f"{path}.{key}: field not declared in schema")
            check_fields(item, type.field(key), f"{path}.{key}")
    elif isinstance(value, list) and type.kind in (types.KEYED, types.SET):
        seen: set[str] = set()
        for i, item in enumerate(value):
            try:
                element = type.path(item)
            except ValueError as error:
                raise ValueError(f"{path}: element {i}: {error}") from None
            if element in seen:
                raise ValueError(f"{path}: duplicate entries for key {fieldset.show((element,))}")
            seen.add(element)
            try:
                check_fields(item, type.element, "")
            except ValueError as error:
                raise ValueError(f"{path}{fieldset.show((element,))}{error}") from None
    elif value is not None and (wanted := type.expects) and not _is(value, wanted):
        got = _GO_TYPES.get(value.__class__, "")
        raise ValueError(f"{path}: expected {_EXPECTED[wanted]}, got {got or f'&value.{value!r}'}")


def _is(value: Any, wanted: str) -> bool:
    if wanted == "string":
        return isinstance(value, str)
    if wanted == "boolean":
        return isinstance(value, bool)
    if wanted in ("integer", "number"):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, list if wanted == "array" else dict)


def _merge_lists(live: list[Any], config: list[Any], type: Type) -> list[Any]:
    """Items of both: the author's in his order, the others where they were between them."""
    wanted = {type.path(item): item for item in config}
    before: list[tuple[str | None, Any]] = []
    for item in live:
        try:
            before.append((type.path(item), item))
        except ValueError:
            before.append((None, item))
    known = {path: item for path, item in before if path is not None}
    shared = [path for path in wanted if path in known]
    out: list[Any] = []
    order, theirs, done = list(wanted), 0, set[str]()
    position = 0
    while theirs < len(before) or position < len(order):
        path = before[theirs][0] if theirs < len(before) else _MISSING
        if path is not _MISSING and (path is None or path not in wanted):
            out.append(before[theirs][1])
            theirs += 1
        elif path is not _MISSING and (path in done or (shared and path != shared[0])):
            theirs += 1
        else:
            if position >= len(order):
                theirs += 1
                continue
            mine = order[position]
            item = wanted[mine]
            out.append(merge(known[mine], item, type.element) if mine in known else item)
            done.add(mine)
            position += 1
            if shared and mine == shared[0]:
                shared.pop(0)
    return out


def _prune(value: Any, type: Type, last: Set, owned: Set) -> Any:
    """`value` without what only this author's last configuration had named.

    A named field goes when `last` has it or something below it, and `owned` (by anybody, now) neither. A list item or
    free map key goes when it is itself a member of `last` and not of `owned`.
    """
    kind = type.kind
    if isinstance(value, dict) and kind not in (types.ATOMIC, types.SCALAR):
        out: dict[str, Any] = {}
        for key, item in value.items():
            kept, there = _keep(f"f:{key}", item, type.field(key), last, owned, named=type.named(key))
            if there and (kept not in ({}, []) or item in ({}, [])):
                out[key] = kept
        return out
    if isinstance(value, list) and kind in (types.KEYED, types.SET):
        items = [_keep(_path(type, item), item, type.element, last, owned, named=False) for item in value]
        return [item for item, there in items if there]
    return value


def _keep(path: str, item: Any, type: Type, last: Set, owned: Set, *, named: bool) -> tuple[Any, bool]:
    """What is left of one field or item, and whether it stays."""
    before, now = last.get(path), owned.get(path)
    if before is None:
        return item, True
    if named and now is None:
        return None, False
    if not named and MEMBER in before and (now is None or MEMBER not in now):
        return None, False
    return _prune(item, type, before, now or {}), True


def _path(type: Type, item: Any) -> str:
    try:
        return type.path(item)
    except ValueError:
        return ""


def _not_allowed(conflicts: Conflicts, live: Object, type: Type, me: Manager) -> Conflicts:
    """For kubectl: what its client-side apply had set, and nobody changed since, is no conflict."""
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    if me.name != "kubectl" or not text:
        return conflicts
    try:
        last = json.loads(text)
    except (ValueError, RecursionError):
        return conflicts
    if not isinstance(last, dict) or last.get("apiVersion") != me.api_version:
        return conflicts
    found = ownership.compare(last, live, type)
    allowed = ownership.field_set(last, type)
    for changed in (found.modified, found.added, found.removed):
        allowed = fieldset.difference(allowed, changed)
    return [(entry, path) for entry, path in conflicts if not fieldset.has(allowed, path)]


def _remember(result: Object, config: Object, manager: str) -> None:
    """For kubectl: keep the annotation of client-side apply true while it is there."""
    annotations = (result.get("metadata") or {}).get("annotations") or {}
    if manager != "kubectl" or not annotations.get(LAST_APPLIED):
        return
    applied = copy.deepcopy(config)
    own = (applied.get("metadata") or {}).get("annotations") or {}
    own.pop(LAST_APPLIED, None)
    text = json.dumps(applied, separators=(",", ":"), sort_keys=True, ensure_ascii=False) + "\n"
    result["metadata"] = {**result["metadata"], "annotations": {**annotations, LAST_APPLIED: text}}


def _conflict(conflicts: Conflicts) -> ApiError:
    """409, one cause for each field."""
    conflicts = sorted(conflicts, key=lambda each: (each[0].manager.key, fieldset.show(each[1])))
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {_who(entry)}",
            "field": fieldset.show(path),
        }
        for entry, path in conflicts
    ]
    if len(conflicts) == 1:
        entry, path = conflicts[0]
        message = f"Apply failed with 1 conflict: conflict with {_who(entry)}: {fieldset.show(path)}"
    else:
        lines: dict[str, list[str]] = {}
        for entry, path in conflicts:
            lines.setdefault(_who(entry), []).append(f"- {fieldset.show(path)}")
        parts = [line for who, paths in lines.items() for line in (f"conflicts with {who}:", *paths)]
        text = "\n".join(parts)
        message = f"Apply failed with {len(conflicts)} conflicts: {text}"
    return ApiError(409, "Conflict", message, {"causes": causes})


def _who(entry: Entry) -> str:
    manager = entry.manager
    shown = json.dumps(manager.name)
    if manager.subresource:
        shown += f" with subresource {json.dumps(manager.subresource)}"
    if manager.operation == "Update":
        shown += f" using {manager.api_version}"
    return shown
