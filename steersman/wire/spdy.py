"""SPDY/3.1 framing, the server's side: bytes in, frames out; frames in, bytes out.

Owns frames and header compression with its dictionary. Sans-I/O; spoken by kubectl up to 1.29 for exec and attach,
and inside WebSocket messages for port-forward since 1.31. Source: the SPDY/3.1 draft, sections 2.2 to 2.6.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN = 1
_VERSION = 3
_MOST = 1 << 24
_WINDOW = 64 * 1024

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
).split()
_TAIL = (
    "\0\0\0\x06200 OK\0\0\0\x07version\0\0\0\x08HTTP/1.1\0\0\0\x03url\0\0\0\x06public\0\0\0\nset-cookie\0\0\0\nkeep-alive"
    "\0\0\0\x06origin100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-"
    "Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not "
    "Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov "
    "Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-"
    "8859-1,utf-,*,enq=0."
)


def dictionary() -> bytes:
    """The compression dictionary of section 2.6.10.1: common header names and values."""
    return b"".join(struct.pack(">I", len(word)) + word.encode() for word in _WORDS) + _TAIL.encode("latin-1")


class ProtocolError(Exception):
    """The peer does not speak SPDY/3.1."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that arrived. `kind` 0 is data."""

    kind: int
    stream: int = 0
    flags: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes = b""
    value: int = 0  # RST status, PING id, WINDOW_UPDATE delta

    @property
    def fin(self) -> bool:
        """Whether the peer sends no more on this stream."""
        return bool(self.flags & FIN)


class Codec:
    """One connection's framing state, both directions."""

    def __init__(self) -> None:
        words = dictionary()
        self._inflate = zlib.decompressobj(zdict=words)
        self._deflate = zlib.compressobj(zdict=words)
        self._buffer = bytearray()

    def receive(self, data: bytes) -> list[Frame]:
        """Frames that `data` completes. Raises ProtocolError."""
        self._buffer += data
        found = []
        while len(self._buffer) >= 8:
            first, second = struct.unpack_from(">II", self._buffer)
            size, flags = second & 0xFFFFFF, second >> 24
            if size >= _MOST:
                raise ProtocolError("the frame is too large")
            if len(self._buffer) < 8 + size:
                break
            body = bytes(self._buffer[8 : 8 + size])
            del self._buffer[: 8 + size]
            if first & 0x80000000:
                frame = self._control((first >> 16) & 0x7FFF, first & 0xFFFF, flags, body)
                if frame is not None:
                    found.append(frame)
            else:
                found.append(Frame(0, first & 0x7FFFFFFF, flags, data=body))
        return found

    def _control(self, version: int, kind: int, flags: int, body: bytes) -> Frame | None:
        if version != _VERSION:
            raise ProtocolError(f"SPDY version {version}")
        try:
            if kind == SYN_STREAM:
                stream = struct.unpack_from(">I", body)[0] & 0x7FFFFFFF
                return Frame(kind, stream, flags, self._headers(body[10:]))
            if kind in (SYN_REPLY, HEADERS):
                stream = struct.unpack_from(">I", body)[0] & 0x7FFFFFFF
                return Frame(kind, stream, flags, self._headers(body[4:]))
            if kind in (RST_STREAM, WINDOW_UPDATE, GOAWAY):
                stream, value = struct.unpack_from(">II", body)
                return Frame(kind, stream & 0x7FFFFFFF, flags, value=value)
            if kind == PING:
                return Frame(kind, value=struct.unpack_from(">I", body)[0])
        except (struct.error, zlib.error, UnicodeDecodeError, IndexError) as error:
            raise ProtocolError(f"malformed frame: {error}") from None
        return None  # SETTINGS and what is unknown is passed over

    def _headers(self, packed: bytes) -> dict[str, str]:
        raw = self._inflate.decompress(packed, _MOST)
        count, at = struct.unpack_from(">I", raw)[0], 4
        found = {}
        for _ in range(count):
            pair = []
            for _ in range(2):
                size = struct.unpack_from(">I", raw, at)[0]
                if at + 4 + size > len(raw):
                    raise ProtocolError("a header is cut short")
                pair.append(raw[at + 4 : at + 4 + size].decode())
                at += 4 + size
            found[pair[0].lower()] = pair[1]
        return found

    def reply(self, stream: int) -> bytes:
        """SYN_REPLY without headers."""
        packed = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(SYN_REPLY, 0, struct.pack(">I", stream) + packed)

    @staticmethod
    def data(stream: int, data: bytes, *, fin: bool = False) -> bytes:
        """Data frames, none longer than the format allows."""
        out, most = [], 1 << 20
        pieces = [data[at : at + most] for at in range(0, len(data), most)] or [b""]
        for at, piece in enumerate(pieces):
            flags = FIN if fin and at == len(pieces) - 1 else 0
            out.append(struct.pack(">II", stream, flags << 24 | len(piece)) + piece)
        return b"".join(out)

    @staticmethod
    def reset(stream: int, status: int) -> bytes:
        """RST_STREAM."""
        return _control(RST_STREAM, 0, struct.pack(">II", stream, status))

    @staticmethod
    def ping(value: int) -> bytes:
        """PING, or its answer."""
        return _control(PING, 0, struct.pack(">I", value))

    @staticmethod
    def goaway() -> bytes:
        """GOAWAY with status OK."""
        return _control(GOAWAY, 0, struct.pack(">II", 0, 0))

    @staticmethod
    def window(stream: int, size: int) -> bytes:
        """WINDOW_UPDATE: so many bytes more may be sent."""
        return _control(WINDOW_UPDATE, 0, struct.pack(">II", stream, size))


def _control(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack(">II", 0x80000000 | _VERSION << 16 | kind, flags << 24 | len(body)) + body
