"""Lists, sets and optionals. Source: apiserver's pkg/cel/library (lists), cel-go's ext (sets, lists)."""

from __future__ import annotations

import itertools
from typing import Any

from steersman.api.cel.functions import Overload, define, whole
from steersman.api.cel.operators import add, less
from steersman.api.cel.syntax import CelError
from steersman.api.cel.values import NONE, Duration, Optional, Uint, equal

_SUMMED = ("int", "uint", "double", "duration")
_COMPARED = ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes")


def _sorted(values: list[Any]) -> bool:
    return not any(less(b, a) for a, b in itertools.pairwise(values))


def _sum(values: list[Any]) -> Any:
    if not values:
        return 0
    first = values[0]
    total: Any = Uint(0) if type(first) is Uint else Duration(0) if isinstance(first, Duration) else type(first)(0)
    for each in values:
        total = add(total, each)
    return total


def _least(values: list[Any]) -> Any:
    if not values:
        raise CelError("min called on empty list")
    best = values[0]
    for each in values[1:]:
        best = each if less(each, best) else best
    return best


def _most(values: list[Any]) -> Any:
    if not values:
        raise CelError("max called on empty list")
    best = values[0]
    for each in values[1:]:
        best = each if less(best, each) else best
    return best


def _index(values: list[Any], wanted: Any) -> int:
    return next((at for at, each in enumerate(values) if equal(each, wanted)), -1)


def _last_index(values: list[Any], wanted: Any) -> int:
    return next((at for at in range(len(values) - 1, -1, -1) if equal(values[at], wanted)), -1)


def _distinct(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    seen: set[Any] = set()
    for each in values:
        if isinstance(each, str | int | float) and not isinstance(each, bool):
            if each not in seen:
                seen.add(each)
                found.append(each)
        elif not any(equal(each, other) for other in found):
            found.append(each)
    return found


def _slice(values: list[Any], start: int, end: int) -> list[Any]:
    if start < 0 or end < 0:
        raise CelError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise CelError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if end > len(values):
        raise CelError(f"cannot slice({start}, {end}), list is length {len(values)}")
    return values[start:end]


def _flat(values: list[Any], depth: int = 1) -> list[Any]:
    if depth < 0:
        raise CelError("level must be non-negative")
    found: list[Any] = []
    for each in values:
        if isinstance(each, list) and depth:
            found += _flat(each, depth - 1)
        else:
            found.append(each)
    return found


def _sort(values: list[Any]) -> list[Any]:
    for one, other in itertools.pairwise(values):
        less(one, other)
    return sorted(values)


def _sort_by(values: list[Any], keys: list[Any]) -> list[Any]:
    _sort(keys)
    return [values[at] for at in sorted(range(len(values)), key=keys.__getitem__)]


def _range(count: int) -> list[int]:
    if count > 1_000_000:
        raise CelError("lists.range: size too large")
    return list(range(count))


def _has(values: list[Any], wanted: Any) -> bool:
    return any(equal(wanted, each) for each in values)


def _within(hay: list[Any], wanted: list[Any]) -> bool:
    return all(_has(hay, each) for each in wanted)


def _value(given: Optional) -> Any:
    if not given.present:
        raise CelError("optional.none() dereference")
    return given.value


def _non_zero(value: Any) -> Optional:
    empty = value is None or value == 0 or (isinstance(value, (str, bytes, list, dict)) and not value)
    return NONE if empty or value == Duration(0) else Optional(True, value)


def _pairs(sizes: Any) -> int:
    return 1 + sizes[0] * sizes[1]


TABLE: list[Overload] = [
    *define(_sorted, *(f"list({a}).isSorted() bool" for a in _COMPARED), price=whole(0)),
    *define(_sum, *(f"list({a}).sum() {a}" for a in _SUMMED), price=whole(0)),
    *define(_least, *(f"list({a}).min() {a}" for a in _COMPARED), price=whole(0)),
    *define(_most, *(f"list({a}).max() {a}" for a in _COMPARED), price=whole(0)),
    *define(_index, "list(A).indexOf(A) int", price=whole(0)),
    *define(_last_index, "list(A).lastIndexOf(A) int", price=whole(0)),
    *define(_distinct, "list(A).distinct() list(A)", price=lambda sizes: 1 + sizes[0] * sizes[0]),
    *define(lambda values: values[::-1], "list(A).reverse() list(A)", price=whole(0)),
    *define(lambda values: Optional(True, values[0]) if values else NONE, "list(A).first() optional_type(A)"),
    *define(lambda values: Optional(True, values[-1]) if values else NONE, "list(A).last() optional_type(A)"),
    *define(_slice, "list(A).slice(int, int) list(A)", price=whole(0)),
    *define(_flat, "list(list(A)).flatten() list(A)", "list(dyn).flatten(int) list(dyn)", price=whole(0)),
    *define(_sort, *(f"list({a}).sort() list({a})" for a in _COMPARED), price=whole(0)),
    *define(
        _sort_by,
        *(f"list(A).@sortByAssociatedKeys(list({a})) list(A)" for a in _COMPARED),
        price=lambda sizes: 11 + 2 * sizes[1] * sizes[1],
    ),
    *define(_range, "~lists.range(int) list(int)"),
    *define(_within, "~sets.contains(list(A), list(A)) bool", price=_pairs),
    *define(lambda a, b: _within(a, b) and _within(b, a), "~sets.equivalent(list(A), list(A)) bool", price=_pairs),
    *define(lambda a, b: any(_has(b, each) for each in a), "~sets.intersects(list(A), list(A)) bool", price=_pairs),
    *define(lambda value: Optional(True, value), "~optional.of(A) optional_type(A)"),
    *define(_non_zero, "~optional.ofNonZeroValue(A) optional_type(A)"),
    *define(lambda: NONE, "~optional.none() optional_type(A)"),
    *define(lambda given: given.present, "optional_type(A).hasValue() bool"),
    *define(_value, "optional_type(A).value() A"),
    *define(lambda a, b: a if a.present else b, "optional_type(A).or(optional_type(A)) optional_type(A)"),
    *define(lambda a, b: a.value if a.present else b, "optional_type(A).orValue(A) A"),
]
