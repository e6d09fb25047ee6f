"""DNS messages as bytes: reading what strangers send, writing answers.

Owns the codec, and nothing else: no sockets, no zone. A packet is never trusted: pointers only go back, lengths are
checked, and whatever does not fit raises `BadMessage`. Called by `agent` and `forward`. Source: RFC 1035, RFC 2782
(SRV), RFC 6891 (EDNS).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

Name = tuple[str, ...]
"""Labels, without the root; each character is one byte. Compare lower-cased."""

HEADER = struct.Struct("!HHHHHH")
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_IN, _ANY_CLASS = 1, 255
UDP_SIZE = 1232  # bytes: what we take and send with EDNS
_PLAIN_SIZE = 512
_BAD_VERSION = 16  # an extended code: its upper bits go into the OPT record


class Type(IntEnum):
    """Record types that are known here; any other number may be asked for."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    ANY = 255


class Code(IntEnum):
    """How an answer went."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


class BadMessage(ValueError):
    """The bytes are no DNS message. `answer`: what to send back, empty for nothing at all."""

    def __init__(self, text: str, answer: bytes = b"") -> None:
        super().__init__(text)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `size`: bytes that the asker takes over UDP. `name` as written, which may mix cases."""

    id: int
    name: Name
    type: int
    recursion: bool = True
    edns: bool = False
    size: int = _PLAIN_SIZE


@dataclass(frozen=True, slots=True)
class Record:
    """One record of class IN; `ttl` in seconds. `data` as the helpers below make it."""

    name: Name
    type: int
    ttl: int
    data: Data


@dataclass(frozen=True, slots=True)
class Data:
    """Fixed bytes and then, perhaps, a name and more bytes; `compress`: whether that name may be a pointer."""

    head: bytes
    name: Name | None = None
    tail: bytes = b""
    compress: bool = True


def a(ip: str) -> Data:
    """An IPv4 address. Raises ValueError."""
    return Data(IPv4Address(ip).packed)


def pointer(name: Name) -> Data:
    """The data of CNAME, PTR and NS."""
    return Data(b"", name)


def srv(priority: int, weight: int, port: int, target: Name) -> Data:
    """RFC 2782; its target is never compressed."""
    return Data(struct.pack("!HHH", priority, weight, port), target, compress=False)


def txt(text: str) -> Data:
    """One string, of at most 255 bytes."""
    raw = text.encode()[:255]
    return Data(bytes([len(raw)]) + raw)


def soa(mailbox: Name, serial: int, refresh: int, retry: int, expire: int, minimum: int, server: Name) -> Data:
    """A zone's authority; neither name is compressed."""
    numbers = struct.pack("!IIIII", serial & 0xFFFFFFFF, refresh, retry, expire, minimum)
    return Data(_plain(server), mailbox, numbers, compress=False)


def name_of(text: str) -> Name:
    """A dotted name as labels."""
    return tuple(filter(None, text.split(".")))


def lower(name: Name) -> Name:
    """For comparison."""
    return tuple(label.lower() for label in name)


def is_writable(name: Name) -> bool:
    """Whether a name fits the limits of RFC 1035: 63 bytes a label, 255 in all, one byte a character."""
    sizes = [len(label) for label in name]
    plain = all(ord(character) < 256 for label in name for character in label)
    return plain and all(0 < size < 64 for size in sizes) and sum(sizes) + len(sizes) + 1 <= 255


def parse_query(data: bytes) -> Query:
    """Read a query. Raises BadMessage, with the answer that it deserves."""
    if len(data) < HEADER.size:
        raise BadMessage("shorter than a header")
    id_, flags, questions, answers, authority, additional = HEADER.unpack_from(data)
    if flags & _QR:
        raise BadMessage("not a query")

    def refuse(code: int, text: str) -> BadMessage:
        return BadMessage(text, HEADER.pack(id_, _QR | flags & 0x7900 | code, 0, 0, 0, 0))

    if flags & 0x7800:
        raise refuse(Code.NOTIMP, "not a standard query")
    if questions != 1 or answers or authority:
        raise refuse(Code.FORMERR, "not one question")
    try:
        name, at = read_name(data, HEADER.size)
        kind, class_ = struct.unpack_from("!HH", data, at)
        edns, size, version = _read_opt(data, at + 4, additional)
    except (BadMessage, struct.error) as error:
        raise refuse(Code.FORMERR, f"malformed: {error}") from None
    query = Query(id_, name, kind, bool(flags & _RD), edns, size)
    if version:
        raise BadMessage("unknown version of EDNS", answer(query, _BAD_VERSION, authoritative=False))
    if class_ not in (_IN, _ANY_CLASS):
        raise refuse(Code.REFUSED, "not class IN")
    return query


def read_name(data: bytes, at: int) -> tuple[Name, int]:
    """The name at an offset and the offset after it. Raises BadMessage."""
    labels: list[str] = []
    end = 0
    total = 1
    lowest = at
    while True:
        if at >= len(data):
            raise BadMessage("a name goes beyond the end")
        length = data[at]
        if length >= 0xC0:
            if at + 1 >= len(data):
                raise BadMessage("a pointer goes beyond the end")
            end = end or at + 2
            at = (length & 0x3F) << 8 | data[at + 1]
            if at >= lowest:
                raise BadMessage("a pointer does not go back")
            lowest = at
        elif length >= 0x40:
            raise BadMessage("a label of unknown kind")
        elif length:
            total += length + 1
            label = data[at + 1 : at + 1 + length]
            if total > 255 or len(label) < length:
                raise BadMessage("a name is too long")
            labels.append(label.decode("latin-1"))
            at += 1 + length
        else:
            return tuple(labels), end or at + 1


def read_addresses(data: bytes) -> list[Record]:
    """The A, AAAA and CNAME records of an answer. Raises BadMessage."""
    found: list[Record] = []
    try:
        _, _, questions, count, _, _ = HEADER.unpack_from(data)
        at = HEADER.size
        for _ in range(questions):
            at = read_name(data, at)[1] + 4
        for _ in range(count):
            name, at = read_name(data, at)
            kind, class_, ttl, length = struct.unpack_from("!HHIH", data, at)
            at += 10 + length
            raw = data[at - length : at]
            if len(raw) < length or class_ != _IN:
                raise BadMessage("a record goes beyond the end, or is not of class IN")
            if kind == Type.CNAME:
                found.append(Record(name, kind, ttl, pointer(read_name(data, at - length)[0])))
            elif kind in (Type.A, Type.AAAA) and length == (4 if kind == Type.A else 16):
                found.append(Record(name, kind, ttl, Data(raw)))
    except struct.error as error:
        raise BadMessage(f"malformed: {error}") from None
    return found


def _read_opt(data: bytes, at: int, count: int) -> tuple[bool, int, int]:
    """(has EDNS, the asker's size, EDNS version) from the additional records."""
    found = False, _PLAIN_SIZE, 0
    for _ in range(count):
        name, at = read_name(data, at)
        kind, size, extended, length = struct.unpack_from("!HHIH", data, at)
        at += 10 + length
        if at > len(data):
            raise BadMessage("a record goes beyond the end")
        if kind == Type.OPT:
            if found[0] or name:
                raise BadMessage("two OPT records, or one with a name")
            found = True, max(_PLAIN_SIZE, size), extended >> 16 & 0xFF
    return found


def answer(
    query: Query,
    code: int = Code.NOERROR,
    answers: Sequence[Record] = (),
    authority: Sequence[Record] = (),
    additional: Sequence[Record] = (),
    *,
    authoritative: bool = True,
    limit: int = 65535,
) -> bytes:
    """An answer of at most `limit` bytes: additional records that do not fit are left out, with others TC is set."""
    opt = b""
    if query.edns:
        opt = struct.pack("!BHHIH", 0, Type.OPT, UDP_SIZE, (code >> 4) << 24, 0)
    room = limit - len(opt)
    out = bytearray(HEADER.size)
    names: dict[Name, int] = {}
    _write_name(out, query.name, names)
    out += struct.pack("!HH", query.type, _IN)
    counts = [0, 0, 0]
    truncated = False
    for section, records in enumerate((answers, authority, additional)):
        for record in records:
            before, known = len(out), dict(names)
            _write_record(out, record, names)
            if len(out) > room:
                del out[before:]
                names = known
                truncated |= section == 0
                break
            counts[section] += 1
        if truncated:
            break
    flags = _QR | _RA | code & 0xF
    flags |= _AA if authoritative else 0
    flags |= _RD if query.recursion else 0
    flags |= _TC if truncated else 0
    HEADER.pack_into(out, 0, query.id, flags, 1, counts[0], counts[1], counts[2] + bool(opt))
    return bytes(out + opt)


def question(query: Query) -> bytes:
    """A query as bytes, with EDNS."""
    head = HEADER.pack(query.id, _RD if query.recursion else 0, 1, 0, 0, 1)
    opt = struct.pack("!BHHIH", 0, Type.OPT, UDP_SIZE, 0, 0)
    return head + _plain(query.name) + struct.pack("!HH", query.type, _IN) + opt


def _plain(name: Name) -> bytes:
    out = bytearray()
    _write_name(out, name, None)
    return bytes(out)


def _write_name(out: bytearray, name: Name, names: dict[Name, int] | None) -> None:
    """`names`: where names were written, to point there; None: write it in full."""
    for index in range(len(name)):
        rest = lower(name[index:])
        if names is not None:
            if rest in names:
                out += struct.pack("!H", 0xC000 | names[rest])
                return
            if len(out) < 0x4000:
                names[rest] = len(out)
        label = name[index].encode("latin-1")
        out.append(len(label))
        out += label
    out.append(0)


def _write_record(out: bytearray, record: Record, names: dict[Name, int]) -> None:
    _write_name(out, record.name, names)
    out += struct.pack("!HHIH", record.type, _IN, record.ttl, 0)
    start = len(out)
    out += record.data.head
    if record.data.name is not None:
        _write_name(out, record.data.name, names if record.data.compress else None)
    out += record.data.tail
    struct.pack_into("!H", out, start - 2, len(out) - start)
