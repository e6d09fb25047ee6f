"""Protobuf messages to JSON objects.

Owns the decoder: driven by the table, straight to dicts, with Go's JSON forms for times, quantities and the like.
Unknown fields are skipped, zero values dropped where Go's JSON omits them. Called through `protobuf.decode`. Hostile
input (truncated, too deep, wrong wire types) raises ProtobufError and never anything else.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from steersman.api import durations
from steersman.api.protobuf.table import Field, Message, Table
from steersman.api.quantity import canonical

DEEPEST = 150
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class ProtobufError(ValueError):
    """The bytes are not the message that they should be."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, next position). Raises IndexError at the end of `data`, ProtobufError for more than 64 bits."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while shift < 70:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + 1
        shift += 7
    raise ProtobufError("proto: integer overflow")


def signed(value: int) -> int:
    """A varint as int64."""
    return value - (1 << 64) if value >> 63 else value


class Decoder:
    """Decodes messages of one table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def decode(self, data: bytes, message: Message) -> dict[str, Any]:
        """The JSON object of one message. Raises ProtobufError."""
        try:
            return self._message(data, message, 0)
        except (IndexError, struct.error):
            raise ProtobufError("unexpected EOF") from None

    def _message(self, data: bytes, message: Message, depth: int) -> dict[str, Any]:
        if depth > DEEPEST:
            raise ProtobufError("proto: exceeded max depth")
        out: dict[str, Any] = {}
        fields = message.by_number
        at, end = 0, len(data)
        while at < end:
            tag, at = varint(data, at)
            field = fields.get(tag >> 3)
            raw, at = _raw(data, at, tag & 7)
            if field is not None:
                self._set(out, field, raw, depth)
        return out

    def _set(self, out: dict[str, Any], field: Field, raw: int | bytes, depth: int) -> None:
        if field.many == "*":
            items = out.setdefault(field.name, [])
            if isinstance(raw, bytes) and field.type in "ib":
                items.extend(self._packed(raw, field))
            else:
                items.append(self._value(field, raw, depth))
        elif field.many == "%":
            key, value = self._entry(field, raw, depth)
            out.setdefault(field.name, {})[key] = value
        else:
            value = self._value(field, raw, depth)
            if field.inline:
                out.update(value)
            elif value is not None and (value or not field.drop_zero):
                out[field.name] = value
            else:
                out.pop(field.name, None)

    def _packed(self, raw: bytes, field: Field) -> list[Any]:
        values: list[Any] = []
        at = 0
        while at < len(raw):
            value, at = varint(raw, at)
            values.append(signed(value) if field.type == "i" else bool(value))
        return values

    def _entry(self, field: Field, raw: int | bytes, depth: int) -> tuple[str, Any]:
        entry = _bytes(field, raw)
        key, value = "", self._value(field, b"" if field.type not in "ib" else 0, depth)
        at = 0
        while at < len(entry):
            tag, at = varint(entry, at)
            part, at = _raw(entry, at, tag & 7)
            if tag >> 3 == 1:
                key = _text(_bytes(field, part))
            elif tag >> 3 == 2:
                value = self._value(field, part, depth)
        return key, value

    def _value(self, field: Field, raw: int | bytes, depth: int) -> Any:
        kind = field.type
        if kind == "s":
            return _text(_bytes(field, raw))
        if kind == "@":
            message = self._table.message(field.message)
            value = self._message(_bytes(field, raw), message, depth + 1)
            return value.get("items", []) if _is_list(message) else value
        if kind in "ib":
            if isinstance(raw, bytes):
                raise _wrong_type(field)
            return signed(raw) if kind == "i" else bool(raw)
        data = _bytes(field, raw)
        if kind == "x":
            return b64encode(data).decode()
        if kind == "d":
            return _float(struct.unpack("<d", data)[0])
        return self._special(field, kind, data, depth)

    def _special(self, field: Field, kind: str, data: bytes, depth: int) -> Any:
        parts = _parts(data)
        if kind == "Q":
            try:
                return canonical(_text(_bytes(field, parts.get(1, b""))) or "0")
            except ValueError as error:
                raise ProtobufError(str(error)) from None
        if kind == "O":
            if _integer(field, parts.get(1, 0)) == 0:
                return signed(_integer(field, parts.get(2, 0)))
            return _text(_bytes(field, parts.get(3, b"")))
        if kind == "R":
            return self._raw_json(_bytes(field, parts.get(1, b"")))
        if kind in "TU":
            seconds, nanos = signed(_integer(field, parts.get(1, 0))), _integer(field, parts.get(2, 0))
            return _time(seconds, nanos, micro=kind == "U") if parts else None
        if kind == "D":
            return durations.show(signed(_integer(field, parts.get(1, 0))))
        return self._schema_or(kind, data, parts, depth)

    def _schema_or(self, kind: str, data: bytes, parts: dict[int, int | bytes], depth: int) -> Any:
        """JSONSchemaPropsOr{Array,Bool,StringArray}."""
        schema = self._table.message("apiextensions.k8s.io/v1:JSONSchemaProps")
        one = parts.get(2 if kind == "B" else 1)
        if isinstance(one, bytes):
            return self._message(one, schema, depth + 1)
        if kind == "B":
            return bool(one if one is not None else parts.get(1, 0))
        many = [part for number, part in _all_parts(data) if number == 2 and isinstance(part, bytes)]
        return [_text(part) if kind == "C" else self._message(part, schema, depth + 1) for part in many]

    def _raw_json(self, raw: bytes) -> Any:
        if not raw:
            return None
        try:
            return msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ProtobufError("the raw part of a message is not JSON") from None


def _raw(data: bytes, at: int, wire: int) -> tuple[int | bytes, int]:
    if wire == _BYTES:
        size, at = varint(data, at)
        if at + size > len(data):
            raise ProtobufError("unexpected EOF")
        return data[at : at + size], at + size
    if wire == _VARINT:
        return varint(data, at)
    if wire in (_FIXED64, _FIXED32):
        size = 8 if wire == _FIXED64 else 4
        if at + size > len(data):
            raise ProtobufError("unexpected EOF")
        return data[at : at + size], at + size
    raise ProtobufError(f"proto: illegal wireType {wire}")


def _all_parts(data: bytes) -> list[tuple[int, int | bytes]]:
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        part, at = _raw(data, at, tag & 7)
        found.append((tag >> 3, part))
    return found


def _parts(data: bytes) -> dict[int, int | bytes]:
    return dict(_all_parts(data)) if data else {}


def _is_list(message: Message) -> bool:
    """True for a named Go list, such as metav1.Verbs, whose JSON is the list itself."""
    return len(message.fields) == 1 and message.fields[0].name == "items" and message.fields[0].type == "s"


def _wrong_type(field: Field) -> ProtobufError:
    return ProtobufError(f"proto: wrong wireType for field {field.name}")


def _bytes(field: Field, raw: int | bytes) -> bytes:
    if isinstance(raw, bytes):
        return raw
    raise _wrong_type(field)


def _integer(field: Field, raw: int | bytes) -> int:
    if isinstance(raw, bytes):
        raise _wrong_type(field)
    return raw


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _float(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _time(seconds: int, nanos: int, *, micro: bool) -> str:
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        raise ProtobufError("a time is out of range") from None
    text = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return f"{text}.{min(nanos // 1000, 999_999):06d}Z" if micro else f"{text}Z"
