"""Reads a tar stream, header by header, without trusting it.

Owns the formats: ustar, GNU long names, PAX. Pure apart from pulling bytes out of an iterator. It checks checksums and
bounds sizes; what the names mean is `unpack`'s business. Written by hand because an image's unpack time is header
parsing: half the cost of the standard library's reader. Source: POSIX.1-2001 pax, GNU tar's manual.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

BLOCK = 512
MAX_EXTENSION = 1 << 20  # of one PAX header or long name, bytes; Go's archive/tar has the same limit
_MAX_NAME = 4096
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_XATTR = b"SCHILY.xattr."
_CHECKSUM_AT = slice(148, 156)


class BadArchive(Exception):
    """The stream is not a tar archive, or a hostile one."""


@dataclass(slots=True)
class Entry:
    """One member. `kind` is tar's type flag; names as written, times in seconds, sizes in bytes."""

    name: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: float
    link: str = ""
    major: int = 0
    minor: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)


class Stream:
    """Exact reads over pieces of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = memoryview(b"")

    def _more(self) -> bool:
        for piece in self._pieces:
            if piece:
                self._buffer = memoryview(piece)
                return True
        return False

    def read(self, count: int) -> bytes:
        """`count` bytes, or fewer at the end."""
        if count <= len(self._buffer):
            out, self._buffer = bytes(self._buffer[:count]), self._buffer[count:]
            return out
        return b"".join(self.pieces(count, exact=False))

    def pieces(self, count: int, *, exact: bool = True) -> Iterator[memoryview]:
        """The next `count` bytes as they come. Raises BadArchive when the stream ends early."""
        while count:
            if not self._buffer and not self._more():
                if exact:
                    raise BadArchive("unexpected EOF")
                return
            piece = self._buffer[:count]
            self._buffer = self._buffer[len(piece) :]
            count -= len(piece)
            yield piece

    def skip(self, count: int) -> None:
        """Pass over `count` bytes. Raises BadArchive when the stream ends early."""
        for _ in self.pieces(count):
            pass

    def drain(self) -> None:
        """Read to the end: a digest covers what follows the archive too."""
        self._buffer = memoryview(b"")
        while self._more():
            self._buffer = memoryview(b"")


class Reader:
    """Members of an archive. Whoever iterates takes each member's data with `data` before asking for the next."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.stream = Stream(pieces)
        self._left = 0  # bytes of the present member, with padding, not yet taken
        self._global: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        """Raises BadArchive."""
        extra: dict[bytes, bytes] = {}
        long_name = long_link = b""
        while (block := self._block()) is not None:
            entry, name, link = _parse(block)
            if entry.kind in "xgLK":
                if entry.size > MAX_EXTENSION:
                    raise BadArchive(f"header of {entry.size} bytes is over the limit of {MAX_EXTENSION}")
                self._left = _padded(entry.size)
                body = b"".join(self.data(entry))
                if entry.kind == "x":
                    extra |= _records(body)
                elif entry.kind == "g":
                    self._global |= _records(body)
                elif entry.kind == "L":
                    long_name = body.rstrip(b"\0")
                else:
                    long_link = body.rstrip(b"\0")
                continue
            _amend(entry, long_name or name, long_link or link, {**self._global, **extra})
            extra = dict[bytes, bytes]()
            long_name = long_link = b""
            self._left = _padded(entry.size)
            yield entry
            self._skip_rest()

    def data(self, entry: Entry) -> Iterator[memoryview]:
        """The data of the present member. Raises BadArchive when it is cut off."""
        for piece in self.stream.pieces(entry.size):
            self._left -= len(piece)
            yield piece
        self._skip_rest()

    def _skip_rest(self) -> None:
        left, self._left = self._left, 0
        if left:
            self.stream.skip(left)

    def _block(self) -> bytes | None:
        block = self.stream.read(BLOCK)
        if not block or (len(block) == BLOCK and not any(block)):
            return None
        if len(block) < BLOCK:
            raise BadArchive("unexpected EOF")
        return block


def _padded(size: int) -> int:
    return (size + BLOCK - 1) & ~(BLOCK - 1)


def _number(field_: bytes) -> int:
    if field_[0] & 0x80:  # GNU's base 256
        value = int.from_bytes(field_, "big", signed=True) if field_[0] == 0xFF else int.from_bytes(field_[1:], "big")
        if value < 0:
            raise BadArchive("invalid tar header")
        return value
    text = field_.rstrip(b"\0 ").lstrip(b" ").split(b"\0")[0]
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise BadArchive("invalid tar header") from None


def _parse(block: bytes) -> tuple[Entry, bytes, bytes]:
    (name, mode, uid, gid, size, mtime, chksum, kind, link, magic, _, _, _, major, minor, prefix) = _HEADER.unpack(
        block
    )
    unsigned = sum(block) - sum(block[_CHECKSUM_AT]) + 8 * 32
    if _number(chksum) != unsigned:
        raise BadArchive("invalid tar header")
    name, link = name.split(b"\0", 1)[0], link.split(b"\0", 1)[0]
    if magic == b"ustar\0" and prefix[0]:
        name = prefix.split(b"\0", 1)[0] + b"/" + name
    flag = kind.decode("latin-1")
    if flag in "\07":
        flag = "5" if name.endswith(b"/") and flag == "\0" else "0"
    length = _number(size) if flag in "0xgLKS" else 0
    is_device = flag in "34"
    entry = Entry(
        "",
        flag,
        _number(mode) & 0o7777,
        _number(uid),
        _number(gid),
        length,
        _number(mtime),
        major=_number(major) if is_device else 0,
        minor=_number(minor) if is_device else 0,
    )
    return entry, name, link


def _amend(entry: Entry, name: bytes, link: bytes, pax: dict[bytes, bytes]) -> None:
    """Apply what extension headers say."""
    try:
        for key, value in pax.items():
            if key == b"path":
                name = value
            elif key == b"linkpath":
                link = value
            elif key == b"size":
                entry.size = int(value) if entry.kind == "0" else entry.size
            elif key in (b"uid", b"gid"):
                setattr(entry, key.decode(), int(value))
            elif key == b"mtime":
                entry.mtime = float(value)
            elif key.startswith(_XATTR):
                entry.xattrs[key[len(_XATTR) :].decode()] = value
            elif key.startswith(b"GNU.sparse."):
                raise BadArchive("sparse files are not supported")
    except ValueError:
        raise BadArchive("invalid tar header") from None
    if entry.size < 0 or not 0 <= entry.uid < 1 << 32 or not 0 <= entry.gid < 1 << 32:
        raise BadArchive("invalid tar header")
    if len(name) > _MAX_NAME or len(link) > _MAX_NAME:
        raise BadArchive("a file name is longer than 4096 bytes")
    if b"\0" in name or b"\0" in link:
        raise BadArchive("a file name contains a zero byte")
    entry.name = name.decode("utf-8", "surrogateescape")
    entry.link = link.decode("utf-8", "surrogateescape")


def _records(body: bytes) -> dict[bytes, bytes]:
    out: dict[bytes, bytes] = {}
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + 12)
        try:
            length = int(body[at:space])
        except ValueError:
            raise BadArchive("invalid tar header") from None
        record = body[space + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if space < 0 or length <= 0 or at + length > len(body) or not equals or not value.endswith(b"\n"):
            raise BadArchive("invalid tar header")
        out[key] = value[:-1]
        at += length
    return out
