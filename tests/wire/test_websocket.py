"""WebSocket frames: the RFC's own bytes, both roles together, and hostile bytes."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.wire.websocket import (
    Closed,
    Connection,
    Event,
    Message,
    Pinged,
    ProtocolError,
    accept_key,
    choose_protocol,
)


def server() -> Connection:
    return Connection(server=True)


def client() -> Connection:
    return Connection(server=False, random=os.urandom)


def test_the_handshake_key_of_the_rfc() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("key", ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ==\n", "é" * 24])
def test_other_keys_are_refused(key: str) -> None:
    with pytest.raises(ProtocolError):
        accept_key(key)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], ""),
        (["a"], "a"),
        (["x, b", "a"], "b"),
        (["x"], None),
        (["SPDY/3.1+portforward.k8s.io"], "SPDY/3.1+portforward.k8s.io"),
    ],
)
def test_the_clients_first_known_protocol(offered: list[str], chosen: str | None) -> None:
    known = {"a", "b", "SPDY/3.1+portforward.k8s.io"}
    assert choose_protocol(offered, known.__contains__) == chosen


@pytest.mark.parametrize(
    ("data", "events"),
    [  # RFC 6455 section 5.7
        ("818537fa213d7f9f4d5158", [Message(b"Hello", True)]),
        ("018337fa213d7f9f4d80820000000060 6f".replace(" ", ""), [Message(b"Hello"[:3] + b"`o", True)]),
        ("898537fa213d7f9f4d5158", [Pinged(b"Hello", False)]),
        ("8a8537fa213d7f9f4d5158", [Pinged(b"Hello", True)]),
        ("828037fa213d", [Message(b"", False)]),
        ("888000000000", [Closed(1005, "")]),
        ("88820000000003e8", [Closed(1000, "")]),
        ("88850000000003e8627965", [Closed(1000, "bye")]),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_frames_of_the_rfc(data: str, events: list[Event], step: int) -> None:
    raw, reader = bytes.fromhex(data), server()
    assert [e for at in range(0, len(raw), step) for e in reader.receive(raw[at : at + step])] == events


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 1_000_000])
def test_every_length(size: int) -> None:
    sender, data = client(), os.urandom(size)
    sender.send(data)
    reader = server()
    assert reader.receive(sender.take()) == [Message(data, False)]
    reader.send(data)
    assert sender.receive(reader.take()) == [Message(data, False)]


def test_exact_bytes_of_a_server() -> None:
    sender = server()
    sender.send(b"Hello", text=True)
    assert sender.take().hex() == "810548656c6c6f"
    sender.send(b"x" * 126)
    assert sender.take()[:4].hex() == "827e007e"
    sender.ping(b"y" * 200)
    assert sender.take() == b"\x89\x7d" + b"y" * 125
    sender.close(1001, "bye")
    sender.close()
    sender.send(b"too late")
    sender.ping()
    assert sender.take().hex() == "880503e9627965"


def test_a_ping_is_answered_with_its_data() -> None:
    here, there = client(), server()
    here.ping(b"data")
    assert there.receive(here.take()) == [Pinged(b"data", False)]
    assert here.receive(there.take()) == [Pinged(b"data", True)]


def test_a_ping_inside_a_message() -> None:
    reader = server()
    events = reader.receive(bytes.fromhex("028100000000" + "61" + "898000000000" + "808100000000" + "62"))
    assert events == [Pinged(b"", False), Message(b"ab", False)]


def test_goodbye_is_returned_once_and_ends_everything() -> None:
    here, there = client(), server()
    here.close(1000, "done")
    assert there.receive(here.take() + b"garbage") == [Closed(1000, "done")]
    there.close(1001)
    assert here.receive(there.take()) == [Closed(1000, "")]
    assert here.take() == there.take() == b""
    assert there.receive(b"more garbage") == []


MASK = "00000000"
HOSTILE = {
    "not masked": "810548656c6c6f",
    "reserved bit": "c180" + MASK,
    "opcode 3": "8380" + MASK,
    "opcode 11": "8b80" + MASK,
    "long ping": "89fe007e" + MASK,
    "ping in parts": "0980" + MASK,
    "continuation of nothing": "8080" + MASK,
    "message in a message": "0180" + MASK + "8180" + MASK,
    "too large": "82ff7fffffffffffffff",
    "largest": "82ffffffffffffffffff",
    "text that is none": "8181" + MASK + "ff",
    "close of one byte": "8881" + MASK + "03",
    "close code 1005": "8882" + MASK + "03ed",
    "close code 999": "8882" + MASK + "03e7",
    "close code 5000": "8882" + MASK + "1388",
    "close reason that is none": "8883" + MASK + "03e8ff",
    "http": b"GET / HTTP/1.1\r\n".hex(),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_frames_are_protocol_errors(data: str) -> None:
    with pytest.raises(ProtocolError):
        server().receive(bytes.fromhex(data))


def test_a_server_may_not_mask() -> None:
    with pytest.raises(ProtocolError):
        client().receive(bytes.fromhex("8180" + MASK))


def test_a_message_in_parts_has_the_same_limit() -> None:
    reader = Connection(server=True, max_message=10)
    assert reader.receive(bytes.fromhex("0286" + MASK) + b"123456") == []
    with pytest.raises(ProtocolError):
        reader.receive(bytes.fromhex("0085" + MASK) + b"12345")


def test_empty_parts_take_no_room() -> None:
    reader = server()
    reader.receive(bytes.fromhex("0280" + MASK) + bytes.fromhex("0080" + MASK) * 1000)
    assert reader._parts == []


@pytest.mark.slow
@settings(max_examples=300)
@given(st.lists(st.binary(max_size=40)))
def test_no_bytes_break_it_in_another_way(pieces: list[bytes]) -> None:
    reader = server()
    try:
        for piece in pieces:
            reader.receive(piece)
    except ProtocolError:
        reader.close(1002)
    reader.take()


@given(st.lists(st.tuples(st.binary(max_size=200), st.booleans())), st.integers(1, 50))
def test_messages_arrive_however_they_are_cut(messages: list[tuple[bytes, bool]], step: int) -> None:
    sender, reader = client(), server()
    for data, ping in messages:
        sender.send(data)
        if ping:
            sender.ping(b"?")
    raw = sender.take()
    events = [e for at in range(0, len(raw), step) for e in reader.receive(raw[at : at + step])]
    assert [event.data for event in events if isinstance(event, Message)] == [data for data, _ in messages]
