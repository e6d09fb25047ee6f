"""The codec against hostile bytes, and against another library."""

from __future__ import annotations

import struct

import dns.flags
import dns.message
import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.dns import message
from steersman.dns.message import BadMessage, Code, Query, Record, Type

label = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=".\\"), min_size=1, max_size=20)
names = st.lists(label, max_size=6).map(tuple)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_query_or_bad(data: bytes) -> None:
    try:
        query = message.parse_query(data)
    except BadMessage as error:
        assert not error.answer or (error.answer[:2] == data[:2] and error.answer[2] & 0x80)
    else:
        assert message.is_writable(query.name) or not query.name


@given(names, st.integers(1, 60_000), st.binary(max_size=80), st.integers(0, 79))
def test_a_damaged_query_is_a_query_or_bad(name: tuple[str, ...], kind: int, noise: bytes, at: int) -> None:
    wire = bytearray(message.question(Query(1, name, kind)))
    wire[at : at + len(noise)] = noise
    try:
        message.parse_query(bytes(wire))
    except BadMessage:
        return


@given(st.binary(max_size=300))
def test_any_bytes_are_addresses_or_bad(data: bytes) -> None:
    try:
        found = message.read_addresses(data)
    except BadMessage:
        return
    assert all(record.type in (Type.A, Type.AAAA, Type.CNAME) for record in found)


@given(names, st.integers(0, 65_535))
def test_questions_come_back(name: tuple[str, ...], id_: int) -> None:
    query = Query(id_, name, Type.A, edns=True, size=1232)
    assert message.parse_query(message.question(query)) == query
    other = dns.message.from_wire(message.question(query))
    assert other.question[0].name == dns.name.Name([*(each.encode() for each in name), b""])


@given(names, st.lists(names, max_size=20), st.integers(512, 2000))
def test_answers_are_read_by_others_and_fit(name: tuple[str, ...], hosts: list[tuple[str, ...]], limit: int) -> None:
    records = [Record(name, Type.CNAME, 5, message.pointer(host)) for host in hosts]
    records += [Record(host, Type.SRV, 5, message.srv(0, 1, n, host)) for n, host in enumerate(hosts)]
    wire = message.answer(Query(9, name, Type.ANY, edns=True), answers=records, limit=limit)
    assert len(wire) <= limit
    read = dns.message.from_wire(wire, one_rr_per_rrset=True)
    assert bool(read.flags & dns.flags.TC) == (len(read.answer) < len(records))
    assert [tuple(part.decode() for part in each.name.labels[:-1]) for each in read.answer] == [
        record.name for record in records[: len(read.answer)]
    ]


def header(flags: int = 0x100, *counts: int) -> bytes:
    return struct.pack("!HHHHHH", 0x1234, flags, *(counts or (1, 0, 0, 0)))


ROOT = b"\0\0\1\0\1"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", None),
        (header()[:11], None),
        (header(0x8100) + ROOT, None),
        (header(0x2800) + ROOT, Code.NOTIMP),
        (header(), Code.FORMERR),
        (header(0x100, 0, 0, 0, 0), Code.FORMERR),
        (header(0x100, 2, 0, 0, 0) + ROOT * 2, Code.FORMERR),
        (header(0x100, 1, 1, 0, 0) + ROOT, Code.FORMERR),
        (header() + b"\xc0\x0c\0\1\0\1", Code.FORMERR),  # a pointer to itself
        (header() + b"\1a\xc0\x0c\0\1\0\1", Code.FORMERR),  # a loop
        (header() + b"\xc0\x20\0\1\0\1", Code.FORMERR),  # forward
        (header() + b"\x80\0\0\1\0\1", Code.FORMERR),
        (header() + b"\x3fshort", Code.FORMERR),
        (header() + (b"\x3f" + b"a" * 63) * 4 + ROOT, Code.FORMERR),  # 257 bytes
        (header() + b"\0\0\1\0\3", Code.REFUSED),  # class CH
        (header(0x100, 1, 0, 0, 2) + ROOT + b"\0\0\x29\2\0\0\0\0\0\0\0" * 2, Code.FORMERR),
        (header(0x100, 1, 0, 0, 1) + ROOT + b"\0\0\x29\2\0\0\0\0\0\0\x09", Code.FORMERR),
        (header(0x100, 1, 0, 0, 65535) + ROOT, Code.FORMERR),
    ],
)
def test_bad_queries_get_what_they_deserve(data: bytes, code: Code | None) -> None:
    with pytest.raises(BadMessage) as caught:
        message.parse_query(data)
    if code is None:
        assert caught.value.answer == b""
    else:
        read = dns.message.from_wire(caught.value.answer)
        assert (read.id, read.rcode(), bool(read.flags & dns.flags.QR)) == (0x1234, code, True)


def test_an_unknown_version_of_edns() -> None:
    with pytest.raises(BadMessage) as caught:
        message.parse_query(header(0x100, 1, 0, 0, 1) + ROOT + b"\0\0\x29\2\0\0\1\0\0\0\0")
    assert dns.message.from_wire(caught.value.answer).rcode() == 16


def test_tiny_sizes_are_taken_as_512() -> None:
    assert message.parse_query(header(0x100, 1, 0, 0, 1) + ROOT + b"\0\0\x29\0\1\0\0\0\0\0\0").size == 512
