"""WebSocket: the opening handshake and the frames, bytes in, events out.

Owns framing of one connection, in either role, without extensions. `kubelet.streaming` does the I/O around it.
Source: RFC 6455. Subprotocol names with a `/`, which Kubernetes uses against the RFC's grammar, are accepted.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from steersman.wire.spdyheaders import ProtocolError

__all__ = ["Closed", "Connection", "Event", "Message", "Pinged", "ProtocolError", "accept_key", "choose_protocol"]

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_MESSAGE = 32 * 1024 * 1024  # bytes; nothing in Kubernetes sends messages beyond one write
NORMAL, GOING_AWAY, PROTOCOL_ERROR, TOO_BIG, INTERNAL_ERROR = 1000, 1001, 1002, 1009, 1011


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message."""

    data: bytes
    text: bool


@dataclass(frozen=True, slots=True)
class Pinged:
    """A ping was answered, or (`answer`) one of ours was."""

    data: bytes
    answer: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer says goodbye; the answer to it is in the output. `code` is 1005 when it gave none."""

    code: int
    reason: str


Event = Message | Pinged | Closed


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key. Raises ProtocolError when the key is not 16 bytes in base64."""
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            raise ValueError
    except ValueError:
        raise ProtocolError("Sec-WebSocket-Key is not valid") from None
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def choose_protocol(offered: Sequence[str], accepts: Callable[[str], bool]) -> str | None:
    """The first of the client's subprotocols that is known; "" when it offers none; None when it offers only others.

    `offered`: the values of every Sec-WebSocket-Protocol header.
    """
    names = [name.strip() for value in offered for name in value.split(",") if name.strip()]
    if not names:
        return ""
    return next((name for name in names if accepts(name)), None)


@dataclass(slots=True)
class Connection:
    """One end of a WebSocket after the handshake. `server`: the peer masks its frames and we do not."""

    server: bool
    random: Callable[[int], bytes] | None = None  # masks for a client
    max_message: int = _MAX_MESSAGE
    _buffer: bytearray = field(default_factory=bytearray)
    _output: list[bytes] = field(default_factory=list)
    _parts: list[bytes] = field(default_factory=list)
    _size: int = 0
    _kind: int = 0  # of the message whose parts are arriving; 0: none
    _closing: bool = False
    _closed: bool = False

    def receive(self, data: bytes) -> list[Event]:
        """What the bytes mean. Raises ProtocolError; then send `close(1002)` and drop the connection."""
        if self._closed:
            return []
        self._buffer += data
        events: list[Event] = []
        position = 0
        while not self._closed and (end := self._frame(position, events)) > position:
            position = end
        del self._buffer[:position]
        return events

    def _frame(self, at: int, events: list[Event]) -> int:
        """Read one frame at `at`; where the rest begins (`at`: not enough yet)."""
        buffer = self._buffer
        if len(buffer) - at < 2:
            return at
        first, second = buffer[at], buffer[at + 1]
        opcode, length, start = first & 0x0F, second & 0x7F, at + 2
        if first & 0x70:
            raise ProtocolError("a reserved bit is set")
        if bool(second & 0x80) != self.server:
            raise ProtocolError("a frame is masked or not, against its role")
        if opcode >= 8 and (length > 125 or not first & 0x80):
            raise ProtocolError("a control frame is too long or in parts")
        if length >= 126:
            form = ">H" if length == 126 else ">Q"
            size = struct.calcsize(form)
            if len(buffer) < start + size:
                return at
            (length,) = struct.unpack_from(form, buffer, start)
            start += size
        if length + (0 if opcode >= 8 else self._size) > self.max_message:
            raise ProtocolError("a message is too large")
        mask = start
        if self.server:
            start += 4
        if len(buffer) < start + length:
            return at
        payload = bytes(buffer[start : start + length])
        if self.server:
            payload = _mask(payload, bytes(buffer[mask:start]))
        self._take(opcode, payload, bool(first & 0x80), events)
        return start + length

    def _take(self, opcode: int, payload: bytes, final: bool, events: list[Event]) -> None:
        match opcode:
            case 0 | 1 | 2:
                if bool(opcode) == bool(self._kind):
                    raise ProtocolError("a message begins inside another, or goes on without beginning")
                self._kind = self._kind or opcode
                if payload:  # an endless row of empty parts must not fill the memory
                    self._parts.append(payload)
                    self._size += len(payload)
                if final:
                    events.append(self._message())
            case 8:
                events.append(self._on_close(payload))
            case 9:
                if not self._closing:
                    self._send(_PONG, payload)
                events.append(Pinged(payload, False))
            case 10:
                events.append(Pinged(payload, True))
            case _:
                raise ProtocolError(f"opcode {opcode} means nothing")

    def _message(self) -> Message:
        data, text = b"".join(self._parts), self._kind == _TEXT
        if text:
            try:
                data.decode()
            except UnicodeDecodeError:
                raise ProtocolError("a text message is not UTF-8") from None
        self._parts.clear()
        self._size = self._kind = 0
        return Message(data, text)

    def _on_close(self, payload: bytes) -> Closed:
        code, reason = 1005, ""
        if payload:
            if len(payload) < 2:
                raise ProtocolError("a close frame is cut short")
            (code,) = struct.unpack_from(">H", payload)
            if not (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) and not 3000 <= code <= 4999:
                raise ProtocolError(f"close code {code} may not be sent")
            try:
                reason = payload[2:].decode()
            except UnicodeDecodeError:
                raise ProtocolError("a close reason is not UTF-8") from None
        if not self._closing:
            self._closing = True
            self._send(_CLOSE, payload[:2])
        self._closed = True
        return Closed(code, reason)

    # Sending -------------------------------------------------------------------------------------------------------

    def take(self) -> bytes:
        """Everything to be sent since the last call."""
        data = b"".join(self._output)
        self._output.clear()
        return data

    def send(self, data: bytes, *, text: bool = False) -> None:
        """Send a message in one frame; nothing after `close`."""
        if not self._closing:
            self._send(_TEXT if text else _BINARY, data)

    def ping(self, data: bytes = b"") -> None:
        """Ask for a sign of life; at most 125 bytes."""
        if not self._closing:
            self._send(_PING, data[:125])

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye; twice is once."""
        if not self._closing:
            self._closing = True
            self._send(_CLOSE, struct.pack(">H", code) + reason.encode()[:123])

    def _send(self, opcode: int, payload: bytes) -> None:
        length, masked = len(payload), 0 if self.server else 0x80
        if length < 126:
            head = bytes([0x80 | opcode, masked | length])
        elif length < 65536:
            head = struct.pack(">BBH", 0x80 | opcode, masked | 126, length)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, masked | 127, length)
        if masked:
            mask = self.random(4) if self.random is not None else b"\0\0\0\0"
            self._output += [head, mask, _mask(payload, mask)]
        else:
            self._output += [head, payload]


def _mask(data: bytes, mask: bytes) -> bytes:
    """RFC 6455 section 5.3: each byte XOR one of four, all at once as one large number."""
    size = len(data)
    whole = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(whole, "little")).to_bytes(size, "little")
