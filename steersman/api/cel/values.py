"""Values at run time, where Python's own are not enough, and what holds for all: equality, order, type, text.

int is `int` within 64 bits, uint `Uint`, double `float`, bytes `bytes`, list `list`, map `dict`, null `None`. A map's
keys are as Python's, except that `True` is no `1`: bool keys are wrapped. Source: cel-go's common/types.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from steersman.api.cel.syntax import CelError

INT_LEAST, INT_MOST, UINT_MOST = -(2**63), 2**63 - 1, 2**64 - 1
NANOS = 1_000_000_000
_TIME_LEAST, _TIME_MOST = -62135596800, 253402300799  # years 1 to 9999
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_STAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_SPAN = re.compile(r"(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 10**6, "s": NANOS, "m": 60 * NANOS, "h": 3600 * NANOS}


class Uint(int):
    """A uint."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    """Nanoseconds since 1970 in UTC."""

    nanos: int

    def at(self, hours: str = "") -> datetime.datetime:
        """The calendar's view, in a zone of the IANA database or at a fixed offset. Raises CelError."""
        found = _EPOCH + datetime.timedelta(seconds=self.nanos // NANOS)
        return found.astimezone(_zone(hours)) if hours else found

    def __str__(self) -> str:
        fraction = self.nanos % NANOS
        tail = f".{fraction:09}".rstrip("0") if fraction else ""
        return f"{self.at():%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + tail + "Z"


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """Nanoseconds."""

    nanos: int

    def __str__(self) -> str:
        whole, rest = divmod(abs(self.nanos), NANOS)
        tail = f".{rest:09}".rstrip("0") if rest else ""
        return f"{'-' if self.nanos < 0 else ''}{whole}{tail}s"


@dataclass(frozen=True, slots=True)
class Optional:
    """optional.of(value); `optional.none()` has no value."""

    present: bool
    value: Any = None


NONE = Optional(False)


@dataclass(frozen=True, slots=True)
class TypeValue:
    """What type(x) gives."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """A value of a library: its CEL type, what Python knows it as, what equality goes by, and fields if it has any."""

    type: str
    value: Any
    key: Any
    fields: Mapping[str, Any] = field(default_factory=dict)


class Keyed(list[Any]):
    """A list whose order means nothing: of type set, or with `keys`, which are named as expressions name them, map.

    Equality is its own where it stands on the left, and so is `+`: what has the same key stands once, at its old place.
    Source: apiserver's pkg/cel/common/valuesunstructured.go.
    """

    def __init__(self, items: Iterable[Any], keys: Sequence[str] = ()) -> None:
        super().__init__(items)
        self.keys = keys

    def _key(self, item: Any) -> Any:
        if not self.keys:
            return type_name(item), item
        return tuple((type_name(found), found) for found in (item.get(key) for key in self.keys))

    def same(self, other: Any) -> bool:
        """self == other."""
        if not isinstance(other, list) or len(self) != len(other):
            return False
        mine = {self._key(item): item for item in self}
        try:
            return all(
                key in mine and equal(mine[key], item) for key, item in ((self._key(each), each) for each in other)
            )
        except (TypeError, AttributeError):  # elements of another kind, which have no key
            return False

    def joined(self, other: list[Any]) -> Keyed:
        """self + other. Raises CelError."""
        try:
            found = {self._key(item): item for item in self}
            found |= {key: item for item in other if (key := self._key(item)) not in found or self.keys}
        except (TypeError, AttributeError):
            raise CelError("no such overload") from None
        return Keyed(found.values(), self.keys)


@lru_cache(maxsize=256)
def _zone(name: str) -> datetime.tzinfo:
    if found := re.fullmatch(r"([+-]?)(\d\d):(\d\d)", name):
        minutes = int(found[2]) * 60 + int(found[3])
        return datetime.timezone(datetime.timedelta(minutes=-minutes if found[1] == "-" else minutes))
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise CelError(f"unknown time zone {name}") from error


def timestamp(text: str) -> Timestamp:
    """RFC 3339. Raises CelError."""
    found = _STAMP.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        year, month, day, hour, minute, second = (int(found[place]) for place in range(1, 7))
        seconds = int((datetime.datetime(year, month, day, hour, minute, second) - datetime.datetime(1970, 1, 1))
                      / datetime.timedelta(seconds=1))  # fmt: skip
        if found[8] != "Z":
            shift = int(found[8][1:3]) * 3600 + int(found[8][4:]) * 60
            seconds += shift if found[8][0] == "-" else -shift
    except ValueError as error:
        raise CelError(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse') from error
    return bounded_time(seconds * NANOS + int((found[7] or "0").ljust(9, "0")))


def bounded_time(nanos: int) -> Timestamp:
    """Raises CelError outside the years 1 to 9999."""
    if not _TIME_LEAST <= nanos // NANOS <= _TIME_MOST:
        raise CelError("timestamp overflow")
    return Timestamp(nanos)


def duration(text: str) -> Duration:
    """Go's notation: 1h30m, -1.5s. Raises CelError."""
    body = text[1:] if text[:1] in ("+", "-") else text
    total, at = 0, 0
    while at < len(body) or not at:
        found = _SPAN.match(body, at)
        if found is None or not (found[1] or found[2]):
            if body == "0":
                break
            raise CelError(f'time: invalid duration "{text[:100]}"')
        if len(found[0]) > 40:
            raise CelError(f'time: invalid duration "{text[:100]}"')
        unit = _UNITS[found[3]]
        total += int(found[1] or "0") * unit
        if found[2]:
            total += int(found[2]) * unit // 10 ** len(found[2])
        at = found.end()
    return bounded_span(-total if text[:1] == "-" else total)


def bounded_span(nanos: int) -> Duration:
    """Raises CelError outside 64 bits."""
    if not INT_LEAST <= nanos <= INT_MOST:
        raise CelError("duration overflow")
    return Duration(nanos)


_NAMES: dict[type, str] = {
    bool: "bool", int: "int", Uint: "uint", float: "double", str: "string", bytes: "bytes", list: "list", dict: "map",
    type(None): "null_type", Timestamp: "google.protobuf.Timestamp", Duration: "google.protobuf.Duration",
    TypeValue: "type", Optional: "optional_type",
}  # fmt: skip


def type_name(value: Any) -> str:
    """The name of a value's CEL type."""
    if isinstance(value, Opaque):
        return value.type
    return _NAMES.get(type(value)) or next((_NAMES[each] for each in (dict, list) if isinstance(value, each)), "dyn")


def is_number(value: Any) -> bool:
    """int, uint or double."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(one: Any, other: Any) -> bool:
    """Heterogeneous equality: numbers by value, anything else only within its type."""
    kind = type(one)
    if kind is type(other) and kind in (str, int, bool, float, bytes):
        return bool(one == other)
    if is_number(one) or is_number(other):
        return is_number(one) and is_number(other) and one == other
    if isinstance(one, list):
        if isinstance(one, Keyed):
            return one.same(other)
        return isinstance(other, list) and len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        if not isinstance(other, dict) or len(one) != len(other):
            return False
        return all(key in other and equal(value, other[key]) for key, value in one.items())
    if isinstance(one, Opaque):
        return isinstance(other, Opaque) and one.type == other.type and bool(one.key == other.key)
    if isinstance(one, Optional):
        return (
            isinstance(other, Optional)
            and one.present == other.present
            and (not one.present or equal(one.value, other.value))
        )
    return type(one) is type(other) and bool(one == other)


def ordered(one: Any, other: Any) -> bool:
    """Whether the two can be compared by <."""
    if is_number(one):
        return is_number(other)
    return type(one) is type(other) and isinstance(one, str | bytes | bool | Timestamp | Duration)


@dataclass(frozen=True, slots=True)
class BoolKey:
    """A bool as a map's key, lest it be the number 1."""

    value: bool


def as_key(value: Any) -> Any:
    """What a value is as a map's key. Raises CelError for what can be none."""
    kind = type(value)
    if kind is str or kind is int:
        return value
    if kind is bool:
        return BoolKey(value)
    if kind is Uint:
        return value
    if kind is float:
        return int(value) if value.is_integer() else value
    raise CelError(f"unsupported key type: {type_name(value)}")


def from_key(key: Any) -> Any:
    """The value that a map's key is."""
    return key.value if type(key) is BoolKey else key


def number_text(value: float) -> str:
    """A double as Go's strconv prints it with format g of the shortest length."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    return text[:-2] if text.endswith(".0") else text
