"""One question to a gRPC health service: grpc.health.v1.Health/Check.

Owns just enough of HTTP/2 and protobuf for a probe: one request on one connection, in clear text. Called by `probes`.
Source: RFC 9113, RFC 7541 (literals without compression), the gRPC health checking protocol.
"""

from __future__ import annotations

import asyncio
import struct

from steersman.kubelet.actions import Outcome
from steersman.kubelet.crashloop import duration

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_MAX_FRAME = 1 << 20


async def check(host: str, port: int, service: str, timeout: float) -> Outcome:
    """Well when the service answers SERVING."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    connected = False
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            connected = True
            try:
                writer.write(_request(address, service))
                status = await _answer(reader, writer)
            finally:
                writer.transport.abort()
    except TimeoutError:
        if connected:
            return Outcome(False, f"timeout: health rpc did not complete within {duration(timeout)}")
        text = f'timeout: failed to connect service "{address}" within {duration(timeout)}: context deadline exceeded'
        return Outcome(False, text)
    except (OSError, EOFError) as error:
        if not connected:
            text = f'timeout: failed to connect service "{address}" within {duration(timeout)}: {error}'
            return Outcome(False, text)
        return Outcome(False, f"error: health rpc probe failed: {error}")
    if status is None:
        text = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
        return Outcome(False, text)
    if status != 1:
        return Outcome(False, f'service unhealthy (responded with "{_STATUS.get(status, status)}")')
    return Outcome(True, "service healthy")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """A header field, never indexed, not compressed; both parts shorter than 127 bytes."""
    return b"\x10" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _request(address: str, service: str) -> bytes:
    headers = b"".join(
        _literal(name, value)
        for name, value in (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/grpc.health.v1.Health/Check"),
            (":authority", address),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "kube-probe/1.36"),
        )
    )
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    body = b"\0" + struct.pack(">I", len(message)) + message
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, headers)
        + _frame(_DATA, _END_STREAM, 1, body)
    )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int | None:
    """The serving status; None when the call ended without a message. Raises EOFError, OSError."""
    body = b""
    while True:
        head = await reader.readexactly(9)
        length = int.from_bytes(head[:3], "big")
        kind, flags = head[3], head[4]
        if length > _MAX_FRAME:
            raise OSError("frame too large")
        payload = await reader.readexactly(length)
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _DATA:
            padded = payload[1 : len(payload) - payload[0]] if flags & 8 and payload else payload
            body += padded
            if len(body) >= 5 and len(body) >= 5 + int.from_bytes(body[1:5], "big"):
                return _status(body[5 : 5 + int.from_bytes(body[1:5], "big")])
        elif kind == _HEADERS and flags & _END_STREAM:
            return None
        elif kind in (_RESET, _GOAWAY):
            raise OSError("the server ended the connection")


def _status(message: bytes) -> int:
    """Field 1 of HealthCheckResponse; 0 when it is absent."""
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0
