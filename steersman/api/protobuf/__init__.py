"""Kubernetes' protobuf: bodies that typed Go clients send, and answers that they prefer.

Owns the envelope (the four bytes `k8s\\0`, then runtime.Unknown with apiVersion, kind and the message) and the watch
frame. Called by the API server for the content type application/vnd.kubernetes.protobuf; nothing else speaks it. Kinds
without a message (custom resources, Tables) cannot be spoken about: callers fall back to JSON. Source:
apimachinery's runtime/serializer/protobuf and each API package's generated.proto.
"""

from __future__ import annotations

from typing import Any

from steersman.api.protobuf.decode import Decoder, ProtobufError, varint
from steersman.api.protobuf.encode import Encoder, delimited
from steersman.api.protobuf.encode import varint as varint_bytes
from steersman.api.protobuf.table import Message, table

__all__ = ["MAGIC", "ProtobufError", "around", "decode", "elements", "encode", "knows", "watch_frame"]

MAGIC = b"k8s\0"


def knows(api_version: str, kind: str) -> bool:
    """True when the kind has a message."""
    return table().find(api_version, kind) is not None


def decode(body: bytes, api_version: str = "", kind: str = "") -> tuple[tuple[str, str], dict[str, Any]]:
    """((apiVersion, kind), object) of an envelope; the arguments are used for what the envelope leaves out.

    Raises ProtobufError: no envelope, a kind without message, broken bytes.
    """
    if not body:
        raise ProtobufError("empty data")
    if body == MAGIC:
        raise ProtobufError("empty body")
    if not body.startswith(MAGIC):
        raise ProtobufError("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    type_meta, raw = b"", b""
    for number, part in _fields(body[len(MAGIC) :]):
        if number == 1:
            type_meta = part
        elif number == 2:
            raw = part
    said = dict(_fields(type_meta))
    api_version = said.get(1, b"").decode("utf-8", "replace") or api_version
    kind = said.get(2, b"").decode("utf-8", "replace") or kind
    message = table().find(api_version, kind)
    if message is None:
        raise ProtobufError(f'no kind "{kind}" is registered for version "{api_version}"')
    obj = Decoder(table()).decode(raw, message)
    return (api_version, kind), {"apiVersion": api_version, "kind": kind, **obj}


def encode(obj: dict[str, Any]) -> bytes:
    """The envelope of an object or list with apiVersion and kind. Raises ProtobufError for a kind without message."""
    api_version, kind = str(obj.get("apiVersion", "")), str(obj.get("kind", ""))
    raw = Encoder(table()).encode(obj, _message(api_version, kind))
    return _before(api_version, kind, len(raw)) + raw + _AFTER


def elements(objects: list[dict[str, Any]], api_version: str, list_kind: str) -> bytes:
    """Some items of a list, to be put `around`. Raises ProtobufError."""
    return Encoder(table()).encode({"items": objects}, _message(api_version, list_kind))


def around(empty: dict[str, Any], size: int) -> tuple[bytes, bytes]:
    """What comes before and after a list's elements, which take `size` bytes; `empty` is the list without them."""
    api_version, kind = str(empty["apiVersion"]), str(empty["kind"])
    raw = Encoder(table()).encode(empty, _message(api_version, kind))
    return _before(api_version, kind, len(raw) + size) + raw, _AFTER


_AFTER = delimited(3, b"") + delimited(4, b"")


def _before(api_version: str, kind: str, size: int) -> bytes:
    """The envelope as far as the message, which is `size` bytes."""
    type_meta = delimited(1, api_version.encode()) + delimited(2, kind.encode())
    return MAGIC + delimited(1, type_meta) + varint_bytes(2 << 3 | 2) + varint_bytes(size)


def _message(api_version: str, kind: str) -> Message:
    message = table().find(api_version, kind)
    if message is None:
        raise ProtobufError(f"{api_version} {kind} has no protobuf message")
    return message


def watch_frame(event: str, obj: bytes) -> bytes:
    """One event of a watch stream: its type (ADDED…) and the envelope of its object, with the length in front."""
    message = delimited(1, event.encode()) + delimited(2, delimited(1, obj))
    return len(message).to_bytes(4, "big") + message


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """Length-delimited fields of a small message; others are not expected in an envelope."""
    found: list[tuple[int, bytes]] = []
    at = 0
    try:
        while at < len(data):
            tag, at = varint(data, at)
            size, at = varint(data, at)
            if tag & 7 != 2 or at + size > len(data):
                raise ProtobufError("unexpected EOF in the envelope")
            found.append((tag >> 3, data[at : at + size]))
            at += size
    except IndexError:
        raise ProtobufError("unexpected EOF in the envelope") from None
    return found
