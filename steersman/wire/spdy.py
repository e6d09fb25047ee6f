"""SPDY/3.1 framing as the Kubernetes streaming protocols use it: bytes in, events out.

Owns frames, stream states and flow control of one connection, in either role. `kubelet.streaming.spdy` does the I/O
around it. Source: SPDY protocol, draft 3.1. One deviation, forced by the peers: the library that kubectl uses never
sends WINDOW_UPDATE, so a peer's receive window binds us only once the peer has shown that it keeps windows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from steersman.wire.spdyheaders import Compressor, Decompressor, Headers, ProtocolError

__all__ = [
    "CANCEL",
    "PROTOCOL_ERROR",
    "REFUSED_STREAM",
    "Connection",
    "DataReceived",
    "Event",
    "GoneAway",
    "Headers",
    "PingAnswered",
    "ProtocolError",
    "StreamOpened",
    "StreamReplied",
    "StreamReset",
    "WindowOpened",
]

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_FIN, _UNIDIRECTIONAL = 1, 2
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL = 1, 3, 5
_INITIAL_WINDOW_SIZE = 7  # a setting's number
_WINDOW = 64 * 1024
_MAX_WINDOW = 2**31 - 1
_MAX_CONTROL = 64 * 1024  # bytes of a control frame's payload
_MAX_STREAMS = 4096
_FRAME = 32 * 1024  # bytes of data per frame, so that streams take turns
_TWO = struct.Struct(">II")
_ONE = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream; `fin`: it will send nothing on it. Answer with `reply` or `reset`."""

    stream: int
    headers: Headers
    fin: bool


@dataclass(frozen=True, slots=True)
class StreamReplied:
    """The peer accepted a stream of ours."""

    stream: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Some data; `fin`: the last. A frame may come in several pieces. Call `consumed` when it has been used."""

    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer ended a stream in both directions."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class WindowOpened:
    """More may be sent: whoever waits should try again."""


@dataclass(frozen=True, slots=True)
class PingAnswered:
    """The answer to a ping of ours."""

    number: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer will open no more streams and answer none after `last`."""

    last: int
    status: int


Event = StreamOpened | StreamReplied | DataReceived | StreamReset | WindowOpened | PingAnswered | GoneAway


@dataclass(slots=True)
class _Stream:
    window: int  # how much we may send, where the peer keeps windows
    local_open: bool = True
    remote_open: bool = True
    unacknowledged: int = 0


@dataclass(slots=True)
class _Data:
    """A data frame that is still arriving."""

    stream: int
    left: int
    fin: bool


@dataclass(slots=True)
class _Windows:
    """What we know of the peer's receive windows."""

    kept: bool = False  # has it shown that it keeps them?
    initial: int = _WINDOW
    connection: int = _WINDOW


@dataclass(slots=True)
class Connection:
    """One end of a SPDY connection. `server`: the peer opens odd streams, we even ones."""

    server: bool
    _streams: dict[int, _Stream] = field(default_factory=dict)
    _buffer: bytearray = field(default_factory=bytearray)
    _output: list[bytes] = field(default_factory=list)
    _deflate: Compressor = field(default_factory=Compressor)
    _inflate: Decompressor = field(default_factory=Decompressor)
    _peer: _Windows = field(default_factory=_Windows)
    _data: _Data | None = None
    _unacknowledged: int = 0
    _last_peer: int = 0
    _last_own: int = 0
    _last_ping: int = 0

    # Receiving -----------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """What the bytes mean. Raises ProtocolError; then the connection is of no more use (send `go_away`)."""
        self._buffer += data
        events: list[Event] = []
        position = 0
        while (end := self._frame(position, events)) > position:
            position = end
        del self._buffer[:position]
        return events

    def _frame(self, at: int, events: list[Event]) -> int:
        """Read one frame, or some data, at `at`; where the rest begins (`at`: not enough yet)."""
        if self._data is not None:
            return self._payload(self._data, at, events)
        if len(self._buffer) - at < 8:
            return at
        word, rest = _TWO.unpack_from(self._buffer, at)
        flags, length = rest >> 24, rest & 0xFFFFFF
        if not word & 0x8000_0000:
            self._check_known(word, "data")
            self._data = _Data(word, length, bool(flags & _FIN))
            return self._payload(self._data, at + 8, events)
        if word >> 16 & 0x7FFF != 3:
            raise ProtocolError(f"a frame of SPDY version {word >> 16 & 0x7FFF}")
        if length > _MAX_CONTROL:
            raise ProtocolError(f"a control frame of {length} bytes")
        end = at + 8 + length
        if len(self._buffer) < end:
            return at
        handler = _HANDLERS.get(word & 0xFFFF)
        if handler is not None:  # a type that nobody knows is to be ignored
            handler(self, flags, bytes(self._buffer[at + 8 : end]), events)
        return end

    def _payload(self, frame: _Data, at: int, events: list[Event]) -> int:
        end = min(at + frame.left, len(self._buffer))
        frame.left -= end - at
        if not frame.left:
            self._data = None
        elif end == at:
            return at
        stream = self._streams.get(frame.stream)
        data = bytes(self._buffer[at:end])
        if stream is None or not stream.remote_open:
            self.consumed(0, len(data))  # of a stream that was reset meanwhile
            return end
        if frame.fin and not frame.left:
            self._close(frame.stream, stream, remote=True)
            events.append(DataReceived(frame.stream, data, True))
        elif data:
            events.append(DataReceived(frame.stream, data, False))
        return end

    def _check_known(self, number: int, what: str) -> None:
        """Frames for streams that are over are late; for streams that never were they are errors."""
        own = number % 2 != int(self.server)
        if not number or number > (self._last_own if own else self._last_peer):
            raise ProtocolError(f"{what} for stream {number}, which was never opened")

    def _on_syn_stream(self, flags: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) < 10:
            raise ProtocolError("SYN_STREAM is cut short")
        number = _ONE.unpack_from(payload)[0] & 0x7FFF_FFFF
        headers = self._inflate.headers(payload[10:])
        if number % 2 != int(self.server) or number <= self._last_peer:
            raise ProtocolError(f"the peer may not open stream {number} now")
        self._last_peer = number
        if len(self._streams) >= _MAX_STREAMS:
            self._control(_RST_STREAM, 0, _TWO.pack(number, REFUSED_STREAM))
            return
        self._streams[number] = stream = _Stream(self._peer.initial)
        stream.local_open = not flags & _UNIDIRECTIONAL
        if flags & _FIN:
            self._close(number, stream, remote=True)
        events.append(StreamOpened(number, headers, bool(flags & _FIN)))

    def _on_syn_reply(self, flags: int, payload: bytes, events: list[Event]) -> None:
        number = self._number(payload, "SYN_REPLY")
        headers = self._inflate.headers(payload[4:])
        if number in self._streams:
            events.append(StreamReplied(number, headers))
            self._maybe_fin(number, flags, events)

    def _on_headers(self, flags: int, payload: bytes, events: list[Event]) -> None:
        number = self._number(payload, "HEADERS")
        self._inflate.headers(payload[4:])
        self._maybe_fin(number, flags, events)

    def _maybe_fin(self, number: int, flags: int, events: list[Event]) -> None:
        stream = self._streams.get(number)
        if flags & _FIN and stream is not None and stream.remote_open:
            self._close(number, stream, remote=True)
            events.append(DataReceived(number, b"", True))

    def _number(self, payload: bytes, what: str, length: int = 0) -> int:
        if len(payload) < 4 or (length and len(payload) != length):
            raise ProtocolError(f"{what} has the wrong length")
        number: int = _ONE.unpack_from(payload)[0] & 0x7FFF_FFFF
        self._check_known(number, what)
        return number

    def _on_reset(self, flags: int, payload: bytes, events: list[Event]) -> None:
        number = self._number(payload, "RST_STREAM", 8)
        if self._streams.pop(number, None) is not None:
            events.append(StreamReset(number, _TWO.unpack(payload)[1]))

    def _on_settings(self, flags: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) < 4 or len(payload) != 4 + 8 * _ONE.unpack_from(payload)[0]:
            raise ProtocolError("SETTINGS has the wrong length")
        for name, value in struct.iter_unpack(">II", payload[4:]):
            if name & 0xFFFFFF == _INITIAL_WINDOW_SIZE:
                if value > _MAX_WINDOW:
                    raise ProtocolError("the initial window is too large")
                for stream in self._streams.values():
                    stream.window += value - self._peer.initial
                self._peer.initial = value
                self._peer.kept = True
                events.append(WindowOpened())

    def _on_ping(self, flags: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != 4:
            raise ProtocolError("PING has the wrong length")
        number = _ONE.unpack(payload)[0]
        if number % 2 == int(self.server):
            self._control(_PING, 0, payload)
        else:
            events.append(PingAnswered(number))

    def _on_go_away(self, flags: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != 8:
            raise ProtocolError("GOAWAY has the wrong length")
        last, status = _TWO.unpack(payload)
        events.append(GoneAway(last & 0x7FFF_FFFF, status))

    def _on_window_update(self, flags: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != 8:
            raise ProtocolError("WINDOW_UPDATE has the wrong length")
        number, delta = (value & 0x7FFF_FFFF for value in _TWO.unpack(payload))
        if not delta:
            raise ProtocolError("WINDOW_UPDATE by nothing")
        self._peer.kept = True
        window = 0
        if not number:
            window = self._peer.connection = self._peer.connection + delta
        else:
            self._check_known(number, "WINDOW_UPDATE")
            if (stream := self._streams.get(number)) is not None:
                window = stream.window = stream.window + delta
        if window > _MAX_WINDOW:
            raise ProtocolError("a window grew beyond its limit")
        events.append(WindowOpened())

    # Sending -------------------------------------------------------------------------------------------------------

    def take(self) -> bytes:
        """Everything to be sent since the last call."""
        data = b"".join(self._output)
        self._output.clear()
        return data

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        self._output.append(_TWO.pack(0x8003_0000 | kind, flags << 24 | len(payload)) + payload)

    def open(self, headers: Headers) -> int:
        """Open a stream; its number."""
        self._last_own = number = self._last_own + 2 if self._last_own else 2 if self.server else 1
        self._streams[number] = _Stream(self._peer.initial)
        self._control(_SYN_STREAM, 0, _TWO.pack(number, 0) + b"\0\0" + self._deflate.block(headers))
        return number

    def reply(self, number: int, headers: Headers = ()) -> None:
        """Accept a stream of the peer's."""
        if number in self._streams:
            self._control(_SYN_REPLY, 0, _ONE.pack(number) + self._deflate.block(headers))

    def window(self, number: int) -> int:
        """How many bytes may be sent on a stream now; 0 also when it takes no more at all."""
        stream = self._streams.get(number)
        if stream is None or not stream.local_open:
            return 0
        return max(min(stream.window, self._peer.connection), 0) if self._peer.kept else _MAX_WINDOW

    def writable(self, number: int) -> bool:
        """Whether a stream's sending half is open."""
        stream = self._streams.get(number)
        return stream is not None and stream.local_open

    def send(self, number: int, data: bytes) -> int:
        """Send as much as the windows allow; how much that was. Nothing on a stream that is closed."""
        allowed = min(len(data), self.window(number))
        for start in range(0, allowed, _FRAME):
            piece = data[start : min(start + _FRAME, allowed)]
            self._output += [_TWO.pack(number, len(piece)), piece]
        if allowed:
            self._streams[number].window -= allowed
            self._peer.connection -= allowed
        return allowed

    def finish(self, number: int) -> None:
        """Send no more on a stream; twice is once."""
        stream = self._streams.get(number)
        if stream is not None and stream.local_open:
            self._output.append(_TWO.pack(number, _FIN << 24))
            self._close(number, stream, remote=False)

    def reset(self, number: int, status: int = CANCEL) -> None:
        """End a stream in both directions; nothing when it is over."""
        if self._streams.pop(number, None) is not None:
            self._control(_RST_STREAM, 0, _TWO.pack(number, status))

    def consumed(self, number: int, count: int) -> None:
        """`count` received bytes have been used: the peer may send as many again."""
        self._unacknowledged += count
        if self._unacknowledged >= _WINDOW // 2:
            self._control(_WINDOW_UPDATE, 0, _TWO.pack(0, self._unacknowledged))
            self._unacknowledged = 0
        stream = self._streams.get(number)
        if stream is not None and stream.remote_open:
            stream.unacknowledged += count
            if stream.unacknowledged >= _WINDOW // 2:
                self._control(_WINDOW_UPDATE, 0, _TWO.pack(number, stream.unacknowledged))
                stream.unacknowledged = 0

    def _close(self, number: int, stream: _Stream, *, remote: bool) -> None:
        if remote:
            stream.remote_open = False
        else:
            stream.local_open = False
        if not stream.remote_open and not stream.local_open:
            del self._streams[number]

    def ping(self) -> int:
        """Ask for a sign of life; its number."""
        self._last_ping = number = self._last_ping + 2 if self._last_ping else 2 if self.server else 1
        self._control(_PING, 0, _ONE.pack(number))
        return number

    def go_away(self, status: int = 0) -> None:
        """Say that the connection ends; status 1 is a protocol error."""
        self._control(_GOAWAY, 0, _TWO.pack(self._last_peer, status))


_HANDLERS: dict[int, Callable[[Connection, int, bytes, list[Event]], None]] = {
    _SYN_STREAM: Connection._on_syn_stream,
    _SYN_REPLY: Connection._on_syn_reply,
    _RST_STREAM: Connection._on_reset,
    _SETTINGS: Connection._on_settings,
    _PING: Connection._on_ping,
    _GOAWAY: Connection._on_go_away,
    _HEADERS: Connection._on_headers,
    _WINDOW_UPDATE: Connection._on_window_update,
}
