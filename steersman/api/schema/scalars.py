"""Values that are more than a JSON type: quantities, times, bytes.

Owns the marker types that decoders are built with and the hook that msgspec calls for each. A hook gets the JSON value
and returns what is stored: a quantity or time in canonical form. It raises ValueError with the wording of the Go
type's UnmarshalJSON. Called only through decoders.
"""

from __future__ import annotations

import binascii
import re
from datetime import UTC, datetime
from typing import Any

from steersman.api.quantity import FORMAT_ERROR, canonical


class _AnyText(type):
    """Makes msgspec accept what the hook returns: its check is `isinstance(value, marker)`."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, str)


class Quantity(metaclass=_AnyText):
    """resource.Quantity."""


class Time(metaclass=_AnyText):
    """metav1.Time: seconds, in UTC."""


class MicroTime(metaclass=_AnyText):
    """metav1.MicroTime: microseconds, in UTC."""


class Base64(metaclass=_AnyText):
    """[]byte."""


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")


def hook(marker: type, value: Any) -> Any:
    """msgspec's `dec_hook`. Raises ValueError."""
    if marker is Quantity:
        return _quantity(value)
    if not isinstance(value, str):
        raise ValueError(f"json: cannot unmarshal {json_type(value)} into Go value of type {_GO_TYPES[marker]}")
    if marker is Base64:
        return _base64(value)
    return as_time(value, micro=marker is MicroTime)


def json_type(value: Any) -> str:
    """What Go's encoding/json calls the type of a decoded value."""
    for types, name in ((bool, "bool"), ((int, float), "number"), (str, "string"), (list, "array"), (dict, "object")):
        if isinstance(value, types):
            return name
    return "null"


_GO_TYPES: dict[type, str] = {Time: "string", MicroTime: "string", Base64: "[]uint8"}


def _quantity(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(FORMAT_ERROR)
    return canonical(value if isinstance(value, str) else repr(value))


def as_time(value: str, *, micro: bool = False) -> str:
    """A moment as it is stored. Raises ValueError with Go's text."""
    layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
    try:
        if not _RFC3339.fullmatch(value):
            raise ValueError
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"') from None
    if micro:
        _six_digits(value, layout)
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    if len(value) == 20:
        return value
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


def _six_digits(value: str, layout: str) -> None:
    """Go's layout wants a point and six digits. Raises ValueError with Go's text."""
    rest = value[19:]
    if not re.match(r"\.\d{6}", rest):
        raise ValueError(f'parsing time "{value}" as "{layout}": cannot parse "{rest}" as ".000000"')
    if rest[7:8].isdigit():
        raise ValueError(f'parsing time "{value}" as "{layout}": cannot parse "{rest[7:]}" as "Z07:00"')


def _base64(value: str) -> str:
    try:
        binascii.a2b_base64(value.replace("\n", "").replace("\r", ""), strict_mode=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"illegal base64 data at input byte {_bad_byte(value)}") from None
    return value


def _bad_byte(value: str) -> int:
    """Where Go's decoder would stop: the first foreign character, or the end of the last whole group."""
    for i, char in enumerate(value):
        if not (char.isascii() and (char.isalnum() or char in "+/\r\n")):
            return i
    return len(value) // 4 * 4
