"""JSON objects to protobuf messages.

Owns the encoder: the mirror of `decode.py`, driven by the same table. Fields that the table does not know are left
out. Called through `protobuf.encode` with objects that the API server has checked; a value of the wrong type raises
ProtobufError.
"""

from __future__ import annotations

import re
import struct
from base64 import b64decode
from datetime import datetime
from typing import Any

import msgspec

from steersman.api.protobuf.decode import ProtobufError
from steersman.api.protobuf.table import Field, Message, Table

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_UNITS = {"h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3, "µs": 1e3, "ns": 1.0}
_ESCAPED = tuple((each.encode(), f"\\u{ord(each):04x}".encode()) for each in "<>&\u2028\u2029")  # legal in strings only


def varint(value: int) -> bytes:
    """A whole number; negative ones as int64."""
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


class Encoder:
    """Encodes messages of one table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def encode(self, obj: Any, message: Message) -> bytes:
        """The bytes of one message. Raises ProtobufError for a value that does not fit its field."""
        try:
            return self._message(obj, message)
        except (AttributeError, TypeError, ValueError, struct.error, OverflowError) as error:
            raise ProtobufError(f"cannot encode {message.name}: {error}") from None

    def _message(self, obj: Any, message: Message) -> bytes:
        if isinstance(obj, list):
            obj = {"items": obj}
        out: list[bytes] = []
        for field in message.fields:
            if field.inline:
                inner = self._message(obj, self._table.message(field.message))
                out.append(delimited(field.number, inner))
                continue
            value = obj.get(field.name)
            if value is None:
                continue
            if field.many == "*":
                out.extend(self._field(field, item) for item in value)
            elif field.many == "%":
                out.extend(self._entry(field, key, item) for key, item in sorted(value.items()))
            else:
                out.append(self._field(field, value))
        return b"".join(out)

    def _entry(self, field: Field, key: str, value: Any) -> bytes:
        return delimited(field.number, delimited(1, key.encode()) + self._field(field, value, 2))

    def _field(self, field: Field, value: Any, number: int = 0) -> bytes:
        number = number or field.number
        kind = field.type
        if kind == "s":
            return delimited(number, value.encode())
        if kind == "@":
            return delimited(number, self._message(value, self._table.message(field.message)))
        if kind in "ib":
            return varint(number << 3) + varint(int(value))
        if kind == "d":
            return varint(number << 3 | 1) + struct.pack("<d", value)
        return delimited(number, b64decode(value, validate=True) if kind == "x" else self._special(kind, value))

    def _special(self, kind: str, value: Any) -> bytes:
        if kind == "Q":
            return delimited(1, str(value).encode())
        if kind == "O":
            if isinstance(value, int):
                return varint(1 << 3) + varint(0) + varint(2 << 3) + varint(value) + delimited(3, b"")
            return varint(1 << 3) + varint(1) + varint(2 << 3) + varint(0) + delimited(3, value.encode())
        if kind == "R":
            return delimited(1, _as_go(value))
        if kind in "TU":
            return _time(value) if value else b""
        if kind == "D":
            return varint(1 << 3) + varint(parse_duration(value))
        return self._schema_or(kind, value)

    def _schema_or(self, kind: str, value: Any) -> bytes:
        """JSONSchemaPropsOr{Array,Bool,StringArray}."""
        schema = self._table.message("apiextensions.k8s.io/v1:JSONSchemaProps")
        if isinstance(value, bool):
            return varint(1 << 3) + varint(value)
        if isinstance(value, list):
            return b"".join(
                delimited(2, item.encode() if kind == "C" else self._message(item, schema)) for item in value
            )
        inner = self._message(value, schema)
        return varint(1 << 3) + varint(1) + delimited(2, inner) if kind == "B" else delimited(1, inner)


def _as_go(value: Any) -> bytes:
    """JSON as Go's encoder escapes it: clients compare a ControllerRevision's bytes with their own."""
    raw = msgspec.json.encode(value)
    for plain, escaped in _ESCAPED:
        raw = raw.replace(plain, escaped)
    return raw


def _time(value: str) -> bytes:
    moment = datetime.fromisoformat(value)
    seconds = int((moment - datetime.fromisoformat("1970-01-01T00:00:00Z")).total_seconds() // 1)
    return varint(1 << 3) + varint(seconds) + varint(2 << 3) + varint(moment.microsecond * 1000)


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration such as `1m30s`. Raises ValueError."""
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    parts = _DURATION.findall(rest)
    if rest == "0":
        return 0
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise ValueError(f"invalid duration {text!r}")
    return sign * round(sum(float(number) * _UNITS[unit] for number, unit in parts))
