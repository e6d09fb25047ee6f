"""Quantities, and JSON Pointer's escapes for JSON patches. Source: apiserver's pkg/cel/library."""

from __future__ import annotations

from typing import Any

from steersman.api import quantity
from steersman.api.cel.functions import Overload, define, scan
from steersman.api.cel.syntax import CelError
from steersman.api.cel.values import INT_LEAST, INT_MOST, Opaque

QUANTITY = "kubernetes.Quantity"
_UNIT = 10**9


def amount(text: str) -> Opaque:
    """A quantity. Raises CelError."""
    try:
        found = quantity.parse(text)
    except ValueError as error:
        raise CelError(str(error)) from error
    return Opaque(QUANTITY, found, found.nanos)


def _is(text: str) -> bool:
    try:
        quantity.parse(text)
    except ValueError:
        return False
    return True


def _whole(given: Opaque) -> bool:
    return given.key % _UNIT == 0 and INT_LEAST <= given.key // _UNIT <= INT_MOST


def _integer(given: Opaque) -> int:
    if not _whole(given):
        raise CelError("cannot convert value to integer")
    return int(given.key // _UNIT)


def _made(nanos: int, like: Opaque) -> Opaque:
    return Opaque(QUANTITY, quantity.Quantity(nanos, like.value.format), nanos)


def _plus(sign: int) -> Any:
    return lambda a, b: _made(a.key + sign * (b.key if isinstance(b, Opaque) else b * _UNIT), a)


TABLE: list[Overload] = [
    *define(amount, f"quantity(string) {QUANTITY}", price=scan(0)),
    *define(_is, "isQuantity(string) bool", price=scan(0)),
    *define(lambda a: (a.key > 0) - (a.key < 0), f"{QUANTITY}.sign() int"),
    *define(_whole, f"{QUANTITY}.isInteger() bool"),
    *define(_integer, f"{QUANTITY}.asInteger() int"),
    *define(lambda a: a.key / _UNIT, f"{QUANTITY}.asApproximateFloat() double"),
    *define(_plus(1), f"{QUANTITY}.add({QUANTITY}) {QUANTITY}", f"{QUANTITY}.add(int) {QUANTITY}"),
    *define(_plus(-1), f"{QUANTITY}.sub({QUANTITY}) {QUANTITY}", f"{QUANTITY}.sub(int) {QUANTITY}"),
    *define(lambda a, b: (a.key > b.key) - (a.key < b.key), f"{QUANTITY}.compareTo({QUANTITY}) int"),
    *define(lambda a, b: a.key > b.key, f"{QUANTITY}.isGreaterThan({QUANTITY}) bool"),
    *define(lambda a, b: a.key < b.key, f"{QUANTITY}.isLessThan({QUANTITY}) bool"),
    *define(
        lambda text: text.replace("~", "~0").replace("/", "~1"), "~jsonpatch.escapeKey(string) string", price=scan(0)
    ),
]
