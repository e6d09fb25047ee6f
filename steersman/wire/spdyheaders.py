"""SPDY/3 header blocks: name-value pairs, compressed with one zlib context per direction and a fixed dictionary.

Owns the block's form and the limits on it. Used by `spdy.py` alone. Source: SPDY protocol, draft 3.1, section 2.6.10.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence

Headers = Sequence[tuple[str, str]]
"""Pairs in order; names are lower case. A name may occur more than once."""

_MAX_BLOCK = 64 * 1024  # bytes, decompressed
_MAX_PAIRS = 256
_LENGTH = struct.Struct(">I")

# The dictionary: words that each follow their length, then text without lengths.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200|OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def dictionary() -> bytes:
    """The 1,423 bytes that both sides begin with."""
    words = [word.replace("|", " ").encode() for word in _WORDS.split(" ")]
    return b"".join([_LENGTH.pack(len(word)) + word for word in words]) + _TAIL.encode()


class ProtocolError(Exception):
    """The peer broke the protocol; the connection is over."""


class Compressor:
    """Header blocks that we send."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zlib.Z_BEST_COMPRESSION, zlib.DEFLATED, 15, 8, 0, dictionary())

    def block(self, headers: Headers) -> bytes:
        """The compressed block. Values of the same name travel as one, joined by NUL."""
        joined: dict[str, list[str]] = {}
        for name, value in headers:
            joined.setdefault(name.lower(), []).append(value)
        parts = [_LENGTH.pack(len(joined))]
        for name, values in joined.items():
            for text in (name, "\0".join(values)):
                data = text.encode("latin-1")
                parts += [_LENGTH.pack(len(data)), data]
        return self._zlib.compress(b"".join(parts)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class Decompressor:
    """Header blocks that the peer sends. Every block must pass through, in order, also those of refused streams."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=dictionary())

    def headers(self, block: bytes) -> Headers:
        """The pairs of one block. Raises ProtocolError when it is damaged, too large or not a block."""
        try:
            plain = self._zlib.decompress(block, _MAX_BLOCK)
        except zlib.error as error:
            raise ProtocolError(f"a header block cannot be decompressed: {error}") from error
        if self._zlib.unconsumed_tail or self._zlib.eof:
            raise ProtocolError("a header block is too large or ends its compression")
        return list(_pairs(plain))


def _pairs(plain: bytes) -> Iterable[tuple[str, str]]:
    count, position = _number(plain, 0)
    if count > _MAX_PAIRS:
        raise ProtocolError(f"a header block of {count} pairs")
    seen = set()
    for _ in range(count):
        name, position = _text(plain, position)
        values, position = _text(plain, position)
        if not name or name != name.lower() or name in seen:
            raise ProtocolError(f"a header name is empty, repeated or not in lower case: {name!r}")
        seen.add(name)
        for value in values.split("\0"):
            yield name, value
    if position != len(plain):
        raise ProtocolError("a header block goes on after its last pair")


def _number(plain: bytes, position: int) -> tuple[int, int]:
    if position + 4 > len(plain):
        raise ProtocolError("a header block is cut short")
    return _LENGTH.unpack_from(plain, position)[0], position + 4


def _text(plain: bytes, position: int) -> tuple[str, int]:
    length, position = _number(plain, position)
    if position + length > len(plain):
        raise ProtocolError("a header block is cut short")
    return plain[position : position + length].decode("latin-1"), position + length
