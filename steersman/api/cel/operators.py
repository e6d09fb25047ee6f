"""Arithmetic, comparison, conversion, time: the standard definitions of cel-spec, with cel-go's error texts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from steersman.api.cel.functions import Overload, define, matching, no_such_overload, product, scan
from steersman.api.cel.syntax import CelError
from steersman.api.cel.values import (
    INT_LEAST,
    INT_MOST,
    NANOS,
    UINT_MOST,
    Duration,
    Keyed,
    Opaque,
    Timestamp,
    TypeValue,
    Uint,
    as_key,
    bounded_span,
    bounded_time,
    duration,
    equal,
    number_text,
    ordered,
    timestamp,
    type_name,
)

REGEX_MOST = 10_000


def integer(value: int) -> int:
    """An int of 64 bits. Raises CelError."""
    if not INT_LEAST <= value <= INT_MOST:
        raise CelError("integer overflow")
    return value


def unsigned(value: int) -> Uint:
    """A uint of 64 bits. Raises CelError."""
    if not 0 <= value <= UINT_MOST:
        raise CelError("unsigned integer overflow")
    return Uint(value)


def add(a: Any, b: Any) -> Any:
    """a + b."""
    kind = type(a)
    if kind is type(b):
        if kind is int:
            return integer(a + b)
        if kind in (str, float, list, bytes):
            return a + b
        if kind is Uint:
            return unsigned(int(a) + int(b))
        if kind is Duration:
            return bounded_span(a.nanos + b.nanos)
    if kind is Timestamp and isinstance(b, Duration):
        return bounded_time(a.nanos + b.nanos)
    if kind is Duration and isinstance(b, Timestamp):
        return bounded_time(a.nanos + b.nanos)
    if isinstance(a, list) and isinstance(b, list):
        return a.joined(b) if isinstance(a, Keyed) else [*a, *b]
    raise no_such_overload("_+_", (a, b))


def subtract(a: Any, b: Any) -> Any:
    """a - b."""
    kind = type(a)
    if kind is type(b):
        if kind is int:
            return integer(a - b)
        if kind is float:
            return a - b
        if kind is Uint:
            return unsigned(int(a) - int(b))
        if kind in (Duration, Timestamp):
            return bounded_span(a.nanos - b.nanos)
    if kind is Timestamp and isinstance(b, Duration):
        return bounded_time(a.nanos - b.nanos)
    raise no_such_overload("_-_", (a, b))


def multiply(a: Any, b: Any) -> Any:
    """a * b."""
    if type(a) is type(b):
        if type(a) is int:
            return integer(a * b)
        if type(a) is float:
            return a * b
        if type(a) is Uint:
            return unsigned(int(a) * int(b))
    raise no_such_overload("_*_", (a, b))


def divide(a: Any, b: Any) -> Any:
    """a / b; whole numbers are cut towards zero."""
    if type(a) is type(b):
        if type(a) is float:
            if b == 0:
                return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)
            return a / b
        if type(a) in (int, Uint):
            if b == 0:
                raise CelError("division by zero")
            quotient = abs(int(a)) // abs(int(b))
            return Uint(quotient) if type(a) is Uint else integer(quotient if (a < 0) == (b < 0) else -quotient)
    raise no_such_overload("_/_", (a, b))


def modulo(a: Any, b: Any) -> Any:
    """a % b, with the sign of a."""
    if type(a) is type(b) and type(a) in (int, Uint):
        if b == 0:
            raise CelError("modulus by zero")
        rest = abs(int(a)) % abs(int(b))
        return Uint(rest) if type(a) is Uint else (-rest if a < 0 else rest)
    raise no_such_overload("_%_", (a, b))


def negate(a: Any) -> Any:
    """-a."""
    if type(a) is int:
        return integer(-a)
    if type(a) is float:
        return -a
    raise no_such_overload("-_", (a,))


def contains(needle: Any, hay: Any) -> bool:
    """needle in hay."""
    if isinstance(hay, dict):
        try:
            return as_key(needle) in hay
        except CelError:
            return False
    if isinstance(hay, list):
        if type(needle) is str:
            return needle in hay
        return any(equal(needle, each) for each in hay)
    raise no_such_overload("@in", (needle, hay))


def _compare(name: str, test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def run(a: Any, b: Any) -> bool:
        if not ordered(a, b):
            raise no_such_overload(name, (a, b))
        return test(a, b)

    return run


less = _compare("_<_", lambda a, b: a < b)
less_equal = _compare("_<=_", lambda a, b: a <= b)
greater = _compare("_>_", lambda a, b: a > b)
greater_equal = _compare("_>=_", lambda a, b: a >= b)


def _size(value: Any) -> int:
    return len(value)


def _int(value: Any) -> int:
    if isinstance(value, float):
        if not -(2.0**63) < value < 2.0**63:
            raise CelError("integer overflow")
        return int(value)
    if isinstance(value, str):
        if len(value) > 40 or not value.lstrip("+-").isascii() or not value.lstrip("+-").isdigit():
            raise CelError(f'strconv.ParseInt: parsing "{value[:100]}": invalid syntax')
        value = int(value)
    if isinstance(value, Timestamp):
        return value.nanos // NANOS
    if isinstance(value, Duration):
        return value.nanos
    return integer(int(value))


def _uint(value: Any) -> Uint:
    if isinstance(value, float) and not 0 <= value < 2.0**64:
        raise CelError("unsigned integer overflow")
    if isinstance(value, str) and (len(value) > 40 or not value.isascii() or not value.isdigit()):
        raise CelError(f'strconv.ParseUint: parsing "{value[:100]}": invalid syntax')
    return unsigned(int(value))


def _double(value: Any) -> float:
    try:
        if isinstance(value, str) and ("_" in value or value != value.strip()):
            raise ValueError
        return float(value)
    except ValueError as error:
        raise CelError(f'strconv.ParseFloat: parsing "{value[:100]}": invalid syntax') from error


def text(value: Any) -> str:
    """string(value)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise CelError("invalid UTF-8 in bytes, cannot convert to string") from error
    if isinstance(value, Opaque):
        return str(value.value)
    return str(value) if isinstance(value, str | Timestamp | Duration) else str(int(value))


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "TRUE", "True", "t", "T", "1"):
        return True
    if value in ("false", "FALSE", "False", "f", "F", "0"):
        return False
    raise CelError(f'strconv.ParseBool: parsing "{value[:100]}": invalid syntax')


def _matches(value: str, pattern: str) -> bool:
    return bool(regex(pattern).search(value))


def regex(pattern: str) -> Any:
    """An RE2 pattern, which runs in linear time. Raises CelError."""
    import re2  # type: ignore[import-not-found]

    if len(pattern) > REGEX_MOST:
        raise CelError("error parsing regexp: expression nests too deeply")
    try:
        options = re2.Options()
        options.log_errors = False
        return re2.compile(pattern, options)
    except re2.error as error:
        shown = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise CelError(f"error parsing regexp: {shown}") from error


_PARTS: dict[str, Callable[[Any], int]] = {
    "getFullYear": lambda at: at.year,
    "getMonth": lambda at: at.month - 1,
    "getDayOfYear": lambda at: at.timetuple().tm_yday - 1,
    "getDayOfMonth": lambda at: at.day - 1,
    "getDate": lambda at: at.day,
    "getDayOfWeek": lambda at: at.isoweekday() % 7,
    "getHours": lambda at: at.hour,
    "getMinutes": lambda at: at.minute,
    "getSeconds": lambda at: at.second,
    "getMilliseconds": lambda at: at.microsecond // 1000,
}
_SPANS = {"getHours": 3600 * NANOS, "getMinutes": 60 * NANOS, "getSeconds": NANOS, "getMilliseconds": 10**6}


def _times() -> list[Overload]:
    def part(name: str) -> Callable[..., int]:
        return lambda when, zone="": _PARTS[name](when.at(zone))

    def span(name: str) -> Callable[[Duration], int]:
        def run(given: Duration) -> int:
            whole = abs(given.nanos) // _SPANS[name]
            if name == "getMilliseconds":
                whole %= 1000
            return -whole if given.nanos < 0 else whole

        return run

    found: list[Overload] = []
    for name in _PARTS:
        found += define(part(name), f"timestamp.{name}() int", f"timestamp.{name}(string) int")
    for name in _SPANS:
        found += define(span(name), f"duration.{name}() int")
    return found


_ORDERED = ("bool", "int", "uint", "double", "string", "bytes", "timestamp", "duration")
_MIXED = [(a, b) for a in ("int", "uint", "double") for b in ("int", "uint", "double") if a != b]


def _comparisons() -> list[Overload]:
    found: list[Overload] = []
    for name, run in (("_<_", less), ("_<=_", less_equal), ("_>_", greater), ("_>=_", greater_equal)):
        pairs = [(each, each) for each in _ORDERED] + _MIXED
        found += define(run, *(f"{name}({a}, {b}) bool" for a, b in pairs), price=scan(0))
    return found


TABLE: list[Overload] = [
    *define(lambda a, b: equal(a, b), "_==_(A, A) bool", price=scan(0)),
    *define(lambda a, b: not equal(a, b), "_!=_(A, A) bool", price=scan(0)),
    *_comparisons(),
    *define(
        add, "_+_(int, int) int", "_+_(uint, uint) uint", "_+_(double, double) double",
        "_+_(timestamp, duration) timestamp", "_+_(duration, timestamp) timestamp", "_+_(duration, duration) duration",
    ),
    *define(add, "_+_(string, string) string", "_+_(bytes, bytes) bytes", price=scan(0, 1)),
    *define(add, "_+_(list(A), list(A)) list(A)"),
    *define(
        subtract, "_-_(int, int) int", "_-_(uint, uint) uint", "_-_(double, double) double",
        "_-_(timestamp, timestamp) duration", "_-_(timestamp, duration) timestamp", "_-_(duration, duration) duration",
    ),
    *define(multiply, "_*_(int, int) int", "_*_(uint, uint) uint", "_*_(double, double) double"),
    *define(divide, "_/_(int, int) int", "_/_(uint, uint) uint", "_/_(double, double) double"),
    *define(modulo, "_%_(int, int) int", "_%_(uint, uint) uint"),
    *define(negate, "-_(int) int", "-_(double) double"),
    *define(lambda a: not a, "!_(bool) bool"),
    *define(contains, "@in(A, list(A)) bool", price=lambda sizes: 1 + sizes[1]),
    *define(contains, "@in(A, map(A, B)) bool"),
    *define(_size, *(f"size({a}) int" for a in ("string", "bytes", "list(A)", "map(A, B)"))),
    *define(_size, *(f"{a}.size() int" for a in ("string", "bytes", "list(A)", "map(A, B)"))),
    *define(_int, *(f"int({a}) int" for a in ("int", "uint", "double", "string", "timestamp", "duration"))),
    *define(_uint, *(f"uint({a}) uint" for a in ("uint", "int", "double", "string"))),
    *define(_double, *(f"double({a}) double" for a in ("double", "int", "uint", "string"))),
    *define(
        text,
        *(f"string({a}) string" for a in ("string", "bool", "int", "uint", "double", "bytes", "timestamp", "duration")),
        *(f"string({a}) string" for a in ("net.IP", "net.CIDR")),
        price=scan(0),
    ),
    *define(lambda a: a if isinstance(a, bytes) else a.encode(), "bytes(bytes) bytes", "bytes(string) bytes",
            price=scan(0)),
    *define(_bool, "bool(bool) bool", "bool(string) bool"),
    *define(
        lambda a: a if isinstance(a, Timestamp) else timestamp(a) if isinstance(a, str) else bounded_time(a * NANOS),
        "timestamp(timestamp) timestamp", "timestamp(string) timestamp", "timestamp(int) timestamp",
    ),
    *define(
        lambda a: a if isinstance(a, Duration) else duration(a) if isinstance(a, str) else bounded_span(a),
        "duration(duration) duration", "duration(string) duration", "duration(int) duration",
    ),
    *define(lambda a: a, "dyn(A) dyn"),
    *define(lambda a: TypeValue(type_name(a)), "type(A) type"),
    *define(lambda a, b: b in a, "string.contains(string) bool", price=product),
    *define(lambda a, b: a.startswith(b), "string.startsWith(string) bool", price=scan(1)),
    *define(lambda a, b: a.endswith(b), "string.endsWith(string) bool", price=scan(1)),
    *define(_matches, "string.matches(string) bool", "matches(string, string) bool", price=matching),
    *_times(),
]  # fmt: skip
