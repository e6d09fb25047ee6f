"""A gRPC client on one HTTP/2 connection.

Owns framing, flow control and the mapping of calls to streams. Called by `store/etcd`. It never reconnects and never
retries: a broken connection fails its calls, and its owner decides.
Source: RFC 9113, RFC 7541, grpc's PROTOCOL-HTTP2.md.

Requests carry header fields as plain literals, so nothing is compressed and the bytes of a method are made once. The
peer is told to keep no compression table either: its header blocks then mean the same whenever they come, and each
different block is decoded once (`hpack` is imported for the first).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import unquote

from steersman.lib.grpc import wire

CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED = 1, 2, 4, 5, 8
FAILED_PRECONDITION, OUT_OF_RANGE, INTERNAL, UNAVAILABLE = 9, 11, 13, 14

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 1, 1, 4, 8, 32
_TABLE_SIZE, _PUSH, _INITIAL_WINDOW, _FRAME_SIZE = 1, 2, 4, 5
_BIG_WINDOW = (1 << 31) - 1
_REFILL = 1 << 20  # bytes taken before the peer's window is opened again
_MOST_BLOCKS = 256  # decoded header blocks remembered

Blocks = dict[bytes, Mapping[str, str]]


class GrpcError(Exception):
    """A call that did not end with status 0. `code` is gRPC's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Stream:
    """One call. `message` and `end` are called on the loop, in order; `end` once, with None for status 0."""

    __slots__ = ("_channel", "buffer", "end", "ended", "message", "number", "out", "taken", "window")

    def __init__(
        self,
        channel: Channel,
        number: int,
        window: int,
        message: Callable[[bytes], None],
        end: Callable[[GrpcError | None], None],
    ) -> None:
        self._channel = channel
        self.number = number
        self.window = window
        self.message = message
        self.end = end
        self.buffer = bytearray()
        self.out = bytearray()
        self.taken = 0
        self.ended = False

    def send(self, message: bytes) -> None:
        """One more message of the request."""
        self._channel.write(self, message)

    def cancel(self) -> None:
        """Nobody wants the answer any more; `end` is not called."""
        self._channel.cancel(self)


class Channel(asyncio.Protocol):
    """One connection. Make it with `connect`."""

    def __init__(self, authority: str, scheme: str) -> None:
        self._authority = authority
        self._scheme = scheme
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._buffer = bytearray()
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._heads: dict[str, bytes] = {}
        self._blocks: Blocks = {}
        self._block = bytearray()  # a header block that goes on in CONTINUATION frames
        self._block_flags = 0
        self._window = 65_535
        self._stream_window = 65_535
        self._frame_size = 16_384
        self._taken = 0
        self._most = 0
        self.closed: GrpcError | None = None

    @classmethod
    async def connect(cls, host: str, port: int, tls: ssl.SSLContext | None = None, *, most: int = 0) -> Channel:
        """Connect over TCP, or to the Unix socket `host` when `port` is 0. Raises OSError.

        `most` bytes are taken as one message (0: any number)."""
        loop = asyncio.get_running_loop()
        if not port:
            channel = (await loop.create_unix_connection(lambda: cls("localhost", "http"), host))[1]
            channel._most = most
            return channel
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        scheme = "https" if tls else "http"
        transport, channel = await loop.create_connection(lambda: cls(authority, scheme), host, port, ssl=tls)
        channel._most = most
        if tls is not None:
            found = transport.get_extra_info("ssl_object").selected_alpn_protocol()
            if found != "h2":
                transport.abort()
                raise ConnectionError(f"{authority} does not speak HTTP/2 (ALPN: {found})")
        return channel

    # Calls -----------------------------------------------------------------------------------------------------

    async def unary(self, path: str, message: bytes) -> bytes:
        """One request, one answer. Raises GrpcError; a deadline is the caller's."""
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        answers: list[bytes] = []

        def end(error: GrpcError | None) -> None:
            if done.done():
                return
            if error is None and len(answers) == 1:
                done.set_result(answers[0])
            else:
                done.set_exception(error or GrpcError(INTERNAL, f"{len(answers)} answers to a unary call"))

        stream = self._open(path, {}, answers.append, end)
        self.write(stream, message, last=True)
        try:
            return await done
        except asyncio.CancelledError:
            stream.cancel()
            raise

    def stream(
        self,
        path: str,
        message: Callable[[bytes], None],
        end: Callable[[GrpcError | None], None],
        headers: Mapping[str, str] | None = None,
    ) -> Stream:
        """A call whose messages go both ways. Raises GrpcError when the connection is gone."""
        return self._open(path, headers or {}, message, end)

    def _open(
        self, path: str, headers: Mapping[str, str], message: Callable[[bytes], None], end: Callable[..., None]
    ) -> Stream:
        if self.closed is not None:
            raise self.closed
        stream = Stream(self, self._next, self._stream_window, message, end)
        self._next += 2
        self._streams[stream.number] = stream
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = self._head(path)
        extra = b"".join(_literal(name, value) for name, value in headers.items())
        self._transport.write(_frame(_HEADERS, _END_HEADERS, stream.number, head + extra))
        return stream

    def _head(self, path: str) -> bytes:
        fields = (
            (":method", "POST"),
            (":scheme", self._scheme),
            (":path", path),
            (":authority", self._authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        )
        return b"".join(_literal(name, value) for name, value in fields)

    def write(self, stream: Stream, message: bytes, *, last: bool = False) -> None:
        """Queue a message and send what the windows allow."""
        size = len(message) + 5
        if not stream.out and size <= min(self._window, stream.window, self._frame_size):
            self._window -= size
            stream.window -= size
            head = b"\0" + struct.pack(">I", len(message))
            self._transport.write(_frame(_DATA, last * _END_STREAM, stream.number, head + message))
            return
        stream.out += b"\0" + struct.pack(">I", len(message)) + message
        stream.ended = last
        self._pump(stream)

    def _pump(self, stream: Stream) -> None:
        while stream.out and (room := min(self._window, stream.window, self._frame_size)) > 0:
            piece = bytes(stream.out[:room])
            del stream.out[:room]
            self._window -= len(piece)
            stream.window -= len(piece)
            flags = _END_STREAM if stream.ended and not stream.out else 0
            self._transport.write(_frame(_DATA, flags, stream.number, piece))

    def cancel(self, stream: Stream) -> None:
        """Reset a stream that still runs."""
        if self._streams.pop(stream.number, None) is not None and self.closed is None:
            self._transport.write(_frame(_RESET, 0, stream.number, struct.pack(">I", 8)))

    def close(self, reason: str = "the connection was closed") -> None:
        """Drop the connection; calls under way fail as UNAVAILABLE."""
        self._fail(GrpcError(UNAVAILABLE, reason))

    def _fail(self, error: GrpcError) -> None:
        if self.closed is None:
            self.closed = error
            streams, self._streams = self._streams, {}
            self._transport.abort()
            for stream in streams.values():
                stream.end(error)

    # asyncio.Protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello: no compression table, no push, windows that never stand in the way."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting
        if (sock := transport.get_extra_info("socket")) is not None and sock.family != socket.AF_UNIX:
            _notice_silence(sock)
        settings = struct.pack(">HIHIHI", _TABLE_SIZE, 0, _PUSH, 0, _INITIAL_WINDOW, _BIG_WINDOW)
        opened = _frame(_WINDOW, 0, 0, struct.pack(">I", _BIG_WINDOW - 65_535))
        self._transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + opened)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what was under way."""
        self._fail(GrpcError(UNAVAILABLE, f"the connection to {self._authority} was lost: {exc or 'closed by peer'}"))

    def data_received(self, data: bytes) -> None:
        """Take whole frames out of what has come."""
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= 9:
                size = int.from_bytes(buffer[at : at + 3], "big")
                if size > 16_384:
                    raise ValueError(f"a frame of {size} bytes was not agreed on")
                if len(buffer) - at < 9 + size:
                    break
                number = int.from_bytes(buffer[at + 5 : at + 9], "big") & _BIG_WINDOW
                self._frame(buffer[at + 3], buffer[at + 4], number, bytes(buffer[at + 9 : at + 9 + size]))
                at += 9 + size
        except (ValueError, IndexError, struct.error) as error:
            self._fail(GrpcError(INTERNAL, f"{self._authority} sent broken HTTP/2: {error}"))
            return
        del buffer[:at]

    # Frames ----------------------------------------------------------------------------------------------------

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == _DATA:
            self._on_data(flags, number, payload)
        elif kind in (_HEADERS, _CONTINUATION):
            self._on_headers(kind, flags, number, payload)
        elif kind == _WINDOW:
            self._on_window(number, struct.unpack(">I", payload)[0] & _BIG_WINDOW)
        elif kind == _SETTINGS and not flags & _ACK:
            self._on_settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _RESET and (stream := self._streams.pop(number, None)) is not None:
            code = struct.unpack(">I", payload)[0]
            stream.end(GrpcError(UNAVAILABLE if code == 7 else INTERNAL, f"the stream was reset with code {code}"))
        elif kind == _GOAWAY:
            self._fail(GrpcError(UNAVAILABLE, f"{self._authority} goes away"))

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        self._taken += len(payload)
        if self._taken >= _REFILL:
            self._transport.write(_frame(_WINDOW, 0, 0, struct.pack(">I", self._taken)))
            self._taken = 0
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.taken += len(payload)
        if stream.taken >= _REFILL and not flags & _END_STREAM:
            self._transport.write(_frame(_WINDOW, 0, number, struct.pack(">I", stream.taken)))
            stream.taken = 0
        buffer = stream.buffer
        buffer += payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
        at = 0
        while len(buffer) - at >= 5:
            if buffer[at]:
                raise ValueError("a compressed message was not agreed on")
            size = int.from_bytes(buffer[at + 1 : at + 5], "big")
            if 0 < self._most < size:
                self.cancel(stream)
                text = f"grpc: received message larger than max ({size} vs. {self._most})"
                stream.end(GrpcError(RESOURCE_EXHAUSTED, text))
                return
            if len(buffer) - at < 5 + size:
                break
            stream.message(bytes(buffer[at + 5 : at + 5 + size]))
            at += 5 + size
        del buffer[:at]
        if flags & _END_STREAM:
            self._end(stream, GrpcError(INTERNAL, "the call ended without a status"))

    def _on_headers(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == _HEADERS:
            if flags & _PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & _PRIORITY:
                payload = payload[5:]
            self._block_flags = flags
        self._block += payload
        if not flags & _END_HEADERS:
            return
        block, flags = bytes(self._block), self._block_flags
        self._block.clear()
        headers = self._decoded(block)
        stream = self._streams.get(number)
        if stream is None:
            return
        status = headers.get("grpc-status")
        if status is None:
            if headers.get(":status") != "200":
                self._end(stream, GrpcError(UNAVAILABLE, f"HTTP status {headers.get(':status')} instead of gRPC"))
            elif flags & _END_STREAM:
                self._end(stream, GrpcError(INTERNAL, "the call ended without a status"))
        elif status == "0":
            self._end(stream, None)
        else:
            self._end(stream, GrpcError(int(status), unquote(headers.get("grpc-message", ""))))

    def _decoded(self, block: bytes) -> Mapping[str, str]:
        found = self._blocks.get(block)
        if found is None:
            from hpack import Decoder, HPACKError

            try:
                pairs: Any = Decoder().decode(block, raw=True)
            except HPACKError as error:
                raise ValueError(f"header block: {error}") from error
            found = {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}
            if len(self._blocks) < _MOST_BLOCKS:
                self._blocks[block] = found
        return found

    def _end(self, stream: Stream, error: GrpcError | None) -> None:
        self._streams.pop(stream.number, None)
        stream.end(error)

    def _on_window(self, number: int, more: int) -> None:
        if number:
            if (stream := self._streams.get(number)) is not None:
                stream.window += more
                self._pump(stream)
            return
        self._window += more
        for stream in tuple(self._streams.values()):
            if stream.out:
                self._pump(stream)

    def _on_settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW:
                change, self._stream_window = value - self._stream_window, value
                for stream in tuple(self._streams.values()):
                    self._on_window(stream.number, change)
            elif name == _FRAME_SIZE:
                self._frame_size = value
        self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))


def _notice_silence(sock: socket.socket) -> None:
    """Let the kernel find out within seconds that the other machine is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 3), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5_000)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """A header field, never indexed and not compressed."""
    return b"\x10" + _length(name) + name.encode() + _length(value) + value.encode()


def _length(text: str) -> bytes:
    size = len(text.encode())
    return bytes((size,)) if size < 127 else b"\x7f" + wire.varint(size - 127)
