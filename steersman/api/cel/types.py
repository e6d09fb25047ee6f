"""Types as the checker knows them, and how they are written.

A type may know the most that a value of it can hold (`size`: characters, items, entries), which prices an expression
before it runs. Object types are asked for their fields one by one, so that a schema is read no further than needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

Lookup = Callable[[str], "Type | None"]


@dataclass(frozen=True, slots=True)
class Type:
    """`name` with parameters: list(int), map(string, dyn). `fields` for objects; `size` counts for the estimate."""

    name: str
    params: tuple[Type, ...] = ()
    size: int | None = field(default=None, compare=False)
    fields: Lookup | None = field(default=None, compare=False)

    def __str__(self) -> str:
        if self.name == "type" and not self.params:
            return "type"
        shown = {"google.protobuf.Timestamp": "timestamp", "google.protobuf.Duration": "duration", "null_type": "null"}
        name = shown.get(self.name, self.name)
        return f"{name}({', '.join(map(str, self.params))})" if self.params else name

    @property
    def declared(self) -> str:
        """As the type is declared, where an error about its value shows it."""
        return f"{self.name}({', '.join(each.declared for each in self.params)})" if self.params else self.name


DYN, BOOL, INT, UINT, DOUBLE, STRING, BYTES, NULL = map(
    Type, ("dyn", "bool", "int", "uint", "double", "string", "bytes", "null_type")
)
ERROR = Type("!error!")
"""Of what is wrong, and was told of: it fits everywhere."""
UNTYPED = ("dyn", "!error!")
TIMESTAMP, DURATION = Type("google.protobuf.Timestamp"), Type("google.protobuf.Duration")
_SHORT = {"timestamp": TIMESTAMP, "duration": DURATION, "null": NULL}


def list_of(item: Type, size: int | None = None) -> Type:
    """list(item)."""
    return Type("list", (item,), size)


def map_of(key: Type, value: Type, size: int | None = None) -> Type:
    """map(key, value)."""
    return Type("map", (key, value), size)


def object_of(name: str, fields: Lookup) -> Type:
    """An object with known fields."""
    return Type(name, (), None, fields)


def optional_of(item: Type) -> Type:
    """optional_type(item)."""
    return Type("optional_type", (item,))


@dataclass(frozen=True, slots=True)
class Signature:
    """One overload. Single capital letters are type parameters."""

    args: tuple[Type, ...]
    result: Type
    member: bool


@lru_cache(maxsize=2048)
def signature(text: str) -> tuple[str, Signature]:
    """Read `string.startsWith(string) bool`, `size(list(A)) int` or, of a namespace, `~ip.isCanonical(string) bool`."""
    head, _, result = text.rpartition(") ")
    where, _, args = head.partition("(") if not re.match(r"(list|map|optional_type)\(", head) else _member(head)
    parsed = [_type(each) for each in _split(args)]
    receiver, dot, name = where.rpartition(".")
    if dot and not where.startswith("~"):
        return name, Signature((_type(receiver), *parsed), _type(result), True)
    return where.lstrip("~"), Signature(tuple(parsed), _type(result), False)


def _member(head: str) -> tuple[str, str, str]:
    depth = 0
    for at, char in enumerate(head):
        depth += (char == "(") - (char == ")")
        if char == ")" and depth == 0:
            name, _, args = head[at + 1 :].partition("(")
            return head[: at + 1] + name, "(", args
    raise ValueError(head)


def _split(text: str) -> list[str]:
    found, depth, last = [], 0, 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            found.append(text[last:at].strip())
            last = at + 1
    return [*found, text[last:].strip()] if text.strip() else []


def _type(text: str) -> Type:
    name, bracket, rest = text.partition("(")
    if bracket:
        return Type(name, tuple(_type(each) for each in _split(rest[:-1])))
    return _SHORT.get(text) or Type(text)


def is_parameter(kind: Type) -> bool:
    """A, B, K..."""
    return len(kind.name) == 1


def assignable(wanted: Type, given: Type, bound: dict[str, Type]) -> bool:
    """Whether `given` goes where `wanted` is asked; binds type parameters."""
    if is_parameter(wanted):
        known = bound.get(wanted.name)
        if known is None or is_parameter(known):
            bound[wanted.name] = given
            return True
        if fits := assignable(known, given, bound):
            bound[wanted.name] = _general(known, given)
        return fits
    if wanted.name in UNTYPED or given.name in UNTYPED or is_parameter(given):
        return True
    if given.name == "null_type" and (wanted.fields is not None or wanted.name.startswith(("google.", "optional"))):
        return True
    if wanted.name != given.name:
        return False
    if not wanted.params or not given.params or (given.size == 0 and given.params[-1].name == "dyn"):
        return True
    pairs = zip(wanted.params, given.params, strict=False)
    return all(assignable(one, other, bound) for one, other in pairs)


def _general(one: Type, other: Type) -> Type:
    """The one of two types, that go together, which says less; [] and {} say nothing."""
    if 0 in (one.size, other.size):
        return other if one.size == 0 else one
    return one if _says_no_more(one, other) else other


def _says_no_more(one: Type, other: Type) -> bool:
    if one.name == "dyn" or is_parameter(one):
        return True
    if one.name != other.name or len(one.params) != len(other.params):
        return False
    return one.name == "type" or all(map(_says_no_more, one.params, other.params))


def substituted(kind: Type, bound: dict[str, Type]) -> Type:
    """With its parameters bound; what is not bound is dyn."""
    if is_parameter(kind):
        return bound.get(kind.name, DYN)
    return replace(kind, params=tuple(substituted(each, bound) for each in kind.params)) if kind.params else kind


def joined(kinds: Sequence[Type]) -> Type:
    """The type of what is any of these."""
    if not kinds:
        return DYN
    first = kinds[0]
    for each in kinds[1:]:
        if not assignable(first, each, {}):
            return DYN
        first = _general(first, each)
    sizes = [each.size for each in kinds]
    return replace(first, size=None if None in sizes else max(size or 0 for size in sizes))
