"""Sets of fields, in the shape of FieldsV1.

Owns the algebra of field sets and their form on the wire. A set is a tree of dicts: keys are path elements (`f:spec`,
`k:{"name":"a"}`, `v:"x"`), and the key `.` marks a path that is a member itself. On the wire a member without children
is `{}`. Called by `ownership.py` and `apply.py`. Pure. Source: structured-merge-diff's fieldpath.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Set = dict[str, Any]

MEMBER = "."
LEAF: Set = {MEMBER: {}}
"""The set of a path that is a member and has nothing below. Shared: never change it."""


class Kept(Set):
    """A set that is used often and never changed, with its FieldsV1."""

    __slots__ = ("wire",)

    def __init__(self, found: Set) -> None:
        super().__init__(found)
        self.wire = encode(found)


def decode(fields: Mapping[str, Any]) -> Set:
    """The set behind FieldsV1. Raises ValueError for what is none."""
    if not isinstance(fields, Mapping):
        raise ValueError("fieldsV1 must be an object")
    out: Set = {}
    for key, inner in fields.items():
        if key == MEMBER:
            out[MEMBER] = {}
        elif key[:2] not in ("f:", "k:", "v:", "i:"):
            raise ValueError(f"unknown path element {key!r}")
        else:
            out[key] = decode(inner) if inner else LEAF
    return out


def encode(found: Set) -> dict[str, Any]:
    """FieldsV1 of a set."""
    out: dict[str, Any] = {}
    for key in sorted(found):
        inner = found[key]
        if inner is LEAF or key == MEMBER or (len(inner) == 1 and MEMBER in inner):
            out[key] = {}
        else:
            out[key] = inner.wire if isinstance(inner, Kept) else encode(inner)
    return out


def touches(fields: Mapping[str, Any], found: Set) -> bool:
    """Whether FieldsV1 and a set have a member in common."""
    if not fields:
        return MEMBER in found
    for key, inner in found.items():
        theirs = fields.get(key)
        if theirs is not None and (key == MEMBER or touches(theirs, inner)):
            return True
    return False


def covers(fields: Mapping[str, Any], found: Set) -> bool:
    """Whether FieldsV1 has every member of a set."""
    if not fields:
        return len(found) == (MEMBER in found)
    for key, inner in found.items():
        theirs = fields.get(key)
        if theirs is None or (key != MEMBER and not covers(theirs, inner)):
            return False
    return True


def joined(fields: Mapping[str, Any], found: Set) -> Mapping[str, Any]:
    """FieldsV1 with the members of a set as well; only what changes is made anew."""
    if not fields:
        return encode({MEMBER: {}, **found}) if len(found) > (MEMBER in found) else fields
    out, new = dict(fields), False
    for key, inner in found.items():
        mine = out.get(key)
        new = new or mine is None
        if mine is None:
            out[key] = encode(inner) if len(inner) > (MEMBER in inner) else {}
        elif key != MEMBER:
            out[key] = joined(mine, inner)
    return {key: out[key] for key in sorted(out)} if new else out


def reduced(fields: Mapping[str, Any], found: Set) -> Mapping[str, Any] | None:
    """FieldsV1 without the members of a set; None when nothing is left."""
    if not fields:
        return None if MEMBER in found else fields
    out: dict[str, Any] = {}
    for key, inner in fields.items():
        theirs = found.get(key)
        if theirs is None:
            out[key] = inner
        elif key != MEMBER and (left := reduced(inner, theirs)) is not None:
            out[key] = left
    if not out:
        return None
    return out if len(out) > (MEMBER in out) else {}


def union(one: Set, other: Set) -> Set:
    """Members of either."""
    if not other or one is other:
        return one
    if not one:
        return other
    out = dict(one)
    for key, inner in other.items():
        mine = out.get(key)
        out[key] = inner if mine is None else union(mine, inner)
    return out


def difference(one: Set, other: Set) -> Set:
    """Members of `one` that are not in `other`."""
    if not other:
        return one
    out: Set = {}
    for key, inner in one.items():
        theirs = other.get(key)
        if theirs is None:
            out[key] = inner
        elif key != MEMBER and (left := difference(inner, theirs)):
            out[key] = left
    return out


def without(one: Set, other: Set) -> Set:
    """`one` without the members of `other` and everything below them."""
    out: Set = {}
    for key, inner in one.items():
        theirs = other.get(key)
        if theirs is None:
            out[key] = inner
        elif key != MEMBER and MEMBER not in theirs and (left := without(inner, theirs)):
            out[key] = left
    return out


def intersection(one: Set, other: Set) -> Set:
    """Members of both."""
    out: Set = {}
    for key, inner in one.items():
        theirs = other.get(key)
        if theirs is None:
            continue
        if key == MEMBER:
            out[MEMBER] = {}
        elif both := intersection(inner, theirs):
            out[key] = both
    return out


def only(one: Set, prefixes: Set) -> Set:
    """The members of `one` at or below a member of `prefixes`; an element `*` of a prefix stands for any."""
    out: Set = {}
    for key, inner in one.items():
        if key == MEMBER:
            continue
        theirs = prefixes.get(key, prefixes.get("*"))
        if theirs is None:
            continue
        if MEMBER in theirs:
            out[key] = inner
        elif left := only(inner, theirs):
            out[key] = left
    return out


def insert(found: Set, path: tuple[str, ...]) -> None:
    """Make a path a member, in place."""
    for key in path:
        inner = found.get(key)
        if inner is None or inner is LEAF:
            inner = found[key] = dict(inner or {})
        found = inner
    found[MEMBER] = {}


def of(*paths: str) -> Set:
    """The set of some field paths, such as `metadata.name`; `*` stands for any element."""
    out: Set = {}
    for path in paths:
        insert(out, tuple(part if part == "*" else f"f:{part}" for part in path.split(".")))
    return out


def has(found: Set, path: tuple[str, ...]) -> bool:
    """Whether a path is a member."""
    for key in path:
        if key not in found:
            return False
        found = found[key]
    return MEMBER in found


def members(found: Set, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every member's path, outer ones first."""
    if MEMBER in found and path:
        yield path
    for key, inner in sorted(found.items()):
        if key != MEMBER:
            yield from members(inner, (*path, key))


def show(path: tuple[str, ...]) -> str:
    """A path as conflicts show it: `.spec.containers[name="a"].image`."""
    return "".join(_show(element) for element in path)


def _show(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "k:":
        pairs = json.loads(text).items()
        return f"[{','.join(f'{key}={json.dumps(value)}' for key, value in pairs)}]"
    return f"[={text}]" if kind == "v:" else f"[{text}]"
