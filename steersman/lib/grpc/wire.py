"""Protocol Buffers on the wire, by field number: enough to write requests and to read answers without generated code.

Called by whoever knows the message (`store/etcd`). Source: protobuf.dev, "Encoding". Unknown fields are the reader's to
ignore; a broken message raises ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator

Value = int | bytes


def varint(value: int) -> bytes:
    """A non-negative number, 7 bits a byte."""
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """An integer or bool field; nothing when it is 0, as proto3 has it."""
    if not value:
        return b""
    return varint(field << 3) + varint(value if value > 0 else value + (1 << 64))


def data(field: int, value: bytes) -> bytes:
    """A string, bytes or message field, also when it is empty."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """Field numbers and values in the order of the message; fixed32 and fixed64 as bytes. Raises ValueError."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"protobuf wire type {kind} is not known")
        if at + size > end:
            raise ValueError("protobuf message ends within a field")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("protobuf message ends within a number")
        byte = message[at]
        at += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, at
        shift += 7
