"""What an expression may cost at worst, from the sizes that a schema allows.

Owns the walk over a checked tree. A size is known of what a path from a variable leads to, of what stands in the
expression, and of what some functions give; nothing bounds the rest. Loops count as the macros that they are short for.
Called for rules of definitions and for selectors of devices. Pure. Source: cel-go's checker/cost.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from steersman.api.cel import calls
from steersman.api.cel.calls import Operand
from steersman.api.cel.evaluate import LIST_COST, MAP_COST, STRUCT_COST
from steersman.api.cel.sizes import MOST, ONE, UNKNOWN, Size
from steersman.api.cel.syntax import (
    Bind,
    Call,
    Comprehension,
    Ident,
    ListLiteral,
    Literal,
    MapLiteral,
    Node,
    Select,
    StructLiteral,
)
from steersman.api.cel.types import Type, is_parameter

REQUEST_MOST = 3 * 1024 * 1024  # bytes of a request's body: nothing in it is larger
Roots = Callable[[str], Type | None]
_SCALARS = ("bool", "double", "google.protobuf.Duration", "int", "google.protobuf.Timestamp", "uint")
_SIZED = ("string", "bytes", "list", "map", "dyn")
_NOWHERE = Type("")  # a path that no schema knows


def worst(tree: Node, roots: Roots, *, open_maps: bool = False) -> int:
    """The most that evaluating a checked tree costs, at most 2^64-1.

    `roots` tells the types of variables; with `open_maps`, `map.name` is an entry too.
    """
    return min(MOST, _Walk(roots, open_maps).of(tree).cost)


@dataclass(frozen=True, slots=True)
class _Entries:
    """How large the keys (of a list: one) and the items are of a collection that the expression makes."""

    list: bool
    key: Size
    value: Size

    def joined(self, other: _Entries | None) -> _Entries | None:
        return other and _Entries(self.list, self.key | other.key, self.value | other.value)


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of a node. `place`: the declared type that its path leads to, None without a path."""

    cost: int
    size: Size | None = None
    place: Type | None = None
    entries: _Entries | None = None

    @property
    def bounds(self) -> Size:
        return self.size or UNKNOWN


def _declared(place: Type | None) -> Size | None:
    if place is None or place is _NOWHERE or (place.size is None and place.name in _SIZED):
        return None
    return Size(0, place.size or 0)


def _of_type(kind: Type) -> Size | None:
    if kind.name == "optional_type" and kind.params:
        return _of_type(kind.params[0])
    return ONE if kind.name in _SCALARS else None


def _inner(place: Type, name: str) -> Type:
    if place.name not in ("list", "map") or not place.params:
        return _NOWHERE
    return place.params[0 if name == "@keys" else -1]


class _Walk:
    def __init__(self, roots: Roots, open_maps: bool) -> None:
        self._roots = roots
        self._open_maps = open_maps
        self._locals: dict[str, list[_Found]] = {}

    def _step(self, place: Type | None, name: str) -> Type:
        """Where `@items`, `@keys` or a field leads; without a path, where a variable of that name would."""
        if place is None:
            return self._roots(name) or _NOWHERE
        if name in ("@items", "@keys"):
            return _NOWHERE if name == "@keys" and place.name == "list" else _inner(place, name)
        if self._open_maps and place.name == "map" and place.params[-1].name == "dyn":
            return place.params[-1]
        return (place.fields(name) if place.fields is not None else None) or _NOWHERE

    def of(self, node: Node) -> _Found:
        """What is known of a node, its cost included."""
        return _STEPS[type(node)](self, node)

    def _sum(self, nodes: list[Node]) -> int:
        return sum(self.of(each).cost for each in nodes)

    def literal(self, node: Literal) -> _Found:
        size = len(node.value) if isinstance(node.value, (str, bytes)) else 1
        return _Found(0, Size(size, size))

    def ident(self, node: Ident) -> _Found:
        if known := self._locals.get(node.name):
            found = known[-1]
            size = _declared(found.place) or _of_type(node.type) or found.size
            return _Found(1, size, found.place, found.entries)
        place = self._roots(node.name) or _NOWHERE
        if place.name == "optional_type" and place.params:
            place = place.params[0]
        return _Found(1, _declared(place) or _of_type(node.type), place)

    def select(self, node: Select) -> _Found:
        if isinstance(node.type, Type) and node.type.name == "type":
            return _Found(1, _declared(self._roots(node.name)))
        operand = self.of(node.operand)
        if node.test:
            return _Found(operand.cost, ONE)
        if node.optional:
            return _Found(operand.cost + 1, _of_type(node.type))
        kind = node.operand.type
        step = 1 if kind.name == "map" or kind.fields is not None or is_parameter(kind) else 0
        place = self._step(operand.place, node.name)
        return _Found(operand.cost + step, _declared(place) or _of_type(node.type), place)

    def call(self, node: Call) -> _Found:
        parts = ([node.target] if node.target is not None else []) + node.args
        found = [self.of(each) for each in parts]
        inside = sum(each.cost for each in found)
        if node.function == "dyn" and node.target is None:
            return _Found(inside + 1, found[0].size, None, found[0].entries)
        if node.function in ("_&&_", "_||_"):
            return _Found(inside, ONE)
        if node.function == "_?_:_":
            return self._choice(*found)
        if node.function == "_[_]":
            return self._index(node, found[0], inside + 1)
        operands = [self._operand(part, each) for part, each in zip(parts, found, strict=True)]
        made = calls.price(node.function, operands, member=node.target is not None)
        entries = None
        if node.function == "_+_" and found[0].entries is not None:
            entries = found[0].entries.joined(found[1].entries)
        size = made.size or _of_type(node.type)
        return _Found(min(MOST, inside + made.cost), size, None, entries)

    def _operand(self, node: Node, found: _Found) -> Operand:
        kind: Type = node.type
        item = UNKNOWN
        if kind.params:
            item = _declared(self._step(found.place, "@items") if found.place is not None else None) or UNKNOWN
        number = node.value if isinstance(node, Literal) and type(node.value) is int else None
        return Operand(kind, found.bounds, item, number)

    def _choice(self, asked: _Found, one: _Found, other: _Found) -> _Found:
        entries = one.entries.joined(other.entries) if one.entries is not None else None
        return _Found(asked.cost + max(one.cost, other.cost), one.bounds | other.bounds, None, entries)

    def _index(self, node: Call, operand: _Found, cost: int) -> _Found:
        place = self._step(operand.place, "@items")
        inner = operand.entries.value if operand.entries is not None else None
        return _Found(cost, inner or _declared(place) or _of_type(node.type), place)

    def list_literal(self, node: ListLiteral) -> _Found:
        found = [self.of(each) for each in node.items]
        value = found[0].bounds if found else Size(0, 0)
        for each in found[1:]:
            value |= each.bounds
        count = len(found)
        cost = LIST_COST + sum(each.cost for each in found)
        return _Found(cost, Size(count, count), None, _Entries(True, ONE, value))

    def map_literal(self, node: MapLiteral) -> _Found:
        keys = [self.of(key) for key, _, _ in node.items]
        values = [self.of(value) for _, value, _ in node.items]
        key = keys[0].bounds if keys else Size(0, 0)
        value = values[0].bounds if values else Size(0, 0)
        for one, other in zip(keys, values, strict=True):
            key, value = key | one.bounds, value | other.bounds
        cost = MAP_COST + sum(each.cost for each in (*keys, *values))
        return _Found(cost, Size(len(keys), len(keys)), None, _Entries(False, key, value))

    def struct_literal(self, node: StructLiteral) -> _Found:
        return _Found(STRUCT_COST + self._sum([value for _, value, _, _ in node.items]))

    def comprehension(self, node: Comprehension) -> _Found:
        over = self.of(node.range)
        known = self._variables(node, over)
        for name, each in zip(node.variables, known, strict=True):
            self._locals.setdefault(name, []).append(each)
        body = self.of(node.body)
        where = self.of(node.where).cost if node.where is not None else 0
        if node.macro == "filter":  # accu + [the variable], where the body says so
            where, body = body.cost, self._known_variable(node.variables[0], node)
        for name in node.variables:
            self._locals[name].pop()
        start, step, end = _LOOPS[node.macro]
        cost = min(MOST, over.cost + start + end + over.bounds.most * (where + step + body.cost))
        if node.macro in _COLLECTING:
            entries = _Entries(True, ONE, Size(0, 0) | body.bounds) if start == LIST_COST else None
            return _Found(cost, over.bounds, None, entries)
        return _Found(cost, ONE)

    def _known_variable(self, name: str, node: Comprehension) -> _Found:
        known = self._locals[name][-1]
        kind: Type = node.type.params[0] if node.type.params else Type("dyn")
        return _Found(1, _declared(known.place) or _of_type(kind) or known.size)

    def _variables(self, node: Comprehension, over: _Found) -> list[_Found]:
        entries = over.entries
        is_list = entries.list if entries is not None else node.range.type.name == "list"
        key = _Found(0, entries.key if entries else None, self._step(over.place, "@keys"))
        value = _Found(0, entries.value if entries else None, self._step(over.place, "@items"))
        if len(node.variables) == 2:
            return [key, value]
        return [value if is_list else key]

    def bind(self, node: Bind) -> _Found:
        value = self.of(node.value)
        bound = value
        if node.optional:  # the value of an optional is what a function gives: no path leads there
            kind: Type = node.value.type
            inner = kind.params[0] if kind.name == "optional_type" and kind.params else Type("dyn")
            bound = _Found(value.cost + 1, _of_type(inner))
        self._locals.setdefault(node.name, []).append(bound)
        body = self.of(node.body)
        self._locals[node.name].pop()
        made = LIST_COST + bound.cost + body.cost
        if not node.optional:
            return _Found(made, body.size, None, body.entries)
        return _Found(value.cost + 1 + made + (1 if node.optional == "optMap" else 0), _of_type(node.type))


_COLLECTING = ("map", "filter", "transformList", "transformMap", "transformMapEntry")
_LOOPS: Mapping[str, tuple[int, int, int]] = {
    "all": (0, 3, 1),
    "exists": (0, 4, 1),
    "exists_one": (0, 2, 2),
    "existsOne": (0, 2, 2),
    "map": (LIST_COST, 2 + LIST_COST, 1),
    "filter": (LIST_COST, 2 + LIST_COST, 1),
    "transformList": (LIST_COST, 2 + LIST_COST, 1),
    "transformMap": (MAP_COST, 3, 1),
    "transformMapEntry": (MAP_COST, 2, 1),
}
"""Units of a macro before its loop, in each round besides body and condition, and after it."""
_STEPS: Mapping[type, Callable[[_Walk, Any], _Found]] = {
    Literal: _Walk.literal,
    Ident: _Walk.ident,
    Select: _Walk.select,
    Call: _Walk.call,
    ListLiteral: _Walk.list_literal,
    MapLiteral: _Walk.map_literal,
    StructLiteral: _Walk.struct_literal,
    Comprehension: _Walk.comprehension,
    Bind: _Walk.bind,
}
