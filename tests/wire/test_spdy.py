"""SPDY/3.1 frames: against bytes of the library that kubectl uses, against itself, and against hostile bytes."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.wire import spdy
from steersman.wire.spdy import (
    Connection,
    DataReceived,
    Event,
    GoneAway,
    PingAnswered,
    ProtocolError,
    StreamOpened,
    StreamReplied,
    StreamReset,
    WindowOpened,
)
from steersman.wire.spdyheaders import Compressor, Decompressor, dictionary

# What github.com/moby/spdystream 0.5.1 writes, in this order on one connection.
GO = {
    "syn 1": "80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff",
    "syn 3": "800300010000002f0000000300000000000002a5470c295029930829b08bc079c3c2c0c280818181b30812c199a084cf68"
    "00000000ffff",
    "syn 5": "800300010100001c00000005000000000000821acb929b9807ce39890c4900000000ffff",
    "data": "000000030000000568656c6c6f",
    "fin": "0000000301000000",
    "reset": "80030003000000080000000100000005",
    "ping": "800300060000000400000001",
    "settings": "800300040000000c0000000100000007000003e8",
    "window": "800300090000000800000003000001f4",
    "go away": "80030007000000080000000000000000",
}
GO_EVENTS: list[Event] = [
    StreamOpened(1, [("streamtype", "error")], False),
    StreamOpened(3, [("streamtype", "data"), ("port", "8080"), ("requestid", "0")], False),
    StreamOpened(5, [("many", "a"), ("many", "b")], True),
    DataReceived(3, b"hello", False),
    DataReceived(3, b"", True),
    StreamReset(1, spdy.CANCEL),
    WindowOpened(),
    WindowOpened(),
    GoneAway(0, 0),
]


def control(kind: int, payload: bytes, flags: int = 0, version: int = 3) -> bytes:
    return struct.pack(">HHI", 0x8000 | version, kind, flags << 24 | len(payload)) + payload


def settled(events: list[Event]) -> list[Event]:
    """Events with header pairs as sets: their order in a block means nothing."""
    return [StreamOpened(e.stream, sorted(e.headers), e.fin) if isinstance(e, StreamOpened) else e for e in events]


def test_the_dictionary_is_the_drafts() -> None:
    assert (len(dictionary()), zlib.adler32(dictionary())) == (1423, 0xE3C6A7C2)


@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
def test_bytes_of_the_go_library(step: int) -> None:
    server = Connection(server=True)
    data = bytes.fromhex("".join(GO.values()))
    events = [event for at in range(0, len(data), step) for event in server.receive(data[at : at + step])]
    pieces = [event for event in events if isinstance(event, DataReceived) and event.data]
    assert b"".join(piece.data for piece in pieces) == b"hello"
    assert settled([event for event in events if event not in pieces[1:]]) == settled(
        [pieces[0] if event == DataReceived(3, b"hello", False) else event for event in GO_EVENTS]
    )
    assert server.take() == bytes.fromhex(GO["ping"])


def test_our_own_frames_are_the_go_librarys() -> None:
    client = Connection(server=False)
    for _ in range(2):
        client.open([("x", "y")])
    client.take()
    assert client.send(3, b"hello") == 5
    assert client.take().hex() == GO["data"]
    client.finish(3)
    assert client.take().hex() == GO["fin"]
    client.reset(1)
    assert client.take().hex() == GO["reset"]
    client.ping()
    assert client.take().hex() == GO["ping"]
    client.go_away()
    assert client.take().hex() == GO["go away"]


def ends() -> tuple[Connection, Connection, int]:
    """A client and a server with one stream between them."""
    client, server = Connection(server=False), Connection(server=True)
    stream = client.open([("streamtype", "data")])
    assert server.receive(client.take()) == [StreamOpened(stream, [("streamtype", "data")], False)]
    server.reply(stream)
    assert client.receive(server.take()) == [StreamReplied(stream, [])]
    return client, server, stream


def test_a_life_of_a_stream() -> None:
    client, server, stream = ends()
    assert client.send(stream, b"question") == 8
    client.finish(stream)
    client.finish(stream)
    assert server.receive(client.take()) == [DataReceived(stream, b"question", False), DataReceived(stream, b"", True)]
    assert not client.writable(stream)
    assert client.send(stream, b"too late") == 0
    assert server.send(stream, b"answer") == 6
    server.finish(stream)
    assert client.receive(server.take()) == [DataReceived(stream, b"answer", False), DataReceived(stream, b"", True)]
    assert (server.send(stream, b"x"), client.window(stream)) == (0, 0)


def test_frames_for_a_stream_that_was_reset_are_late_not_wrong() -> None:
    client, server, stream = ends()
    server.reset(stream)
    client.send(stream, b"in flight")
    client.finish(stream)
    assert server.receive(client.take()) == []
    assert client.receive(server.take()) == [StreamReset(stream, spdy.CANCEL)]
    server.reset(stream)
    assert server.take() == b""


def test_windows_bind_once_the_peer_keeps_them() -> None:
    client, server, stream = ends()
    assert client.send(stream, b"x" * 100_000) == 100_000  # nobody has spoken of windows yet
    pieces = [event for event in server.receive(client.take()) if isinstance(event, DataReceived)]
    server.consumed(stream, sum(len(piece.data) for piece in pieces))
    assert client.receive(server.take()) == [WindowOpened(), WindowOpened()]
    assert client.window(stream) == 65_536
    assert client.send(stream, b"x" * 100_000) == 65_536
    assert client.send(stream, b"x") == 0
    server.receive(client.take())
    server.consumed(stream, 65_536)
    client.receive(server.take())
    assert client.window(stream) == 65_536


def test_an_initial_window_changes_open_streams() -> None:
    client, _, stream = ends()
    assert client.send(stream, b"x" * 600) == 600
    client.receive(bytes.fromhex(GO["settings"]))  # 1,000 bytes
    assert client.window(stream) == 400
    assert client.send(stream, b"x" * 500) == 400


def test_data_of_refused_streams_still_opens_the_connections_window() -> None:
    client, server, stream = ends()
    server.reset(stream)
    server.take()
    client.send(stream, b"x" * 40_000)
    assert server.receive(client.take()) == []
    assert server.take() == control(9, struct.pack(">II", 0, 32_768))


def test_pings_are_answered_and_recognised() -> None:
    client, server, _ = ends()
    assert (client.ping(), client.ping()) == (1, 3)
    assert server.receive(client.take()) == []
    assert client.receive(server.take()) == [PingAnswered(1), PingAnswered(3)]


def test_large_data_arrives_before_its_frame_is_whole() -> None:
    _, server, stream = ends()
    head = struct.pack(">II", stream, 1 << 24 | 0xFFFFFF)
    assert server.receive(head + b"abc") == [DataReceived(stream, b"abc", False)]
    assert len(server._buffer) == 0


def test_too_many_streams_are_refused_one_by_one() -> None:
    client, server = Connection(server=False), Connection(server=True)
    for _ in range(4_097):
        client.open([])
    opened = server.receive(client.take())
    assert len(opened) == 4_096
    assert client.receive(server.take()) == [StreamReset(2 * 4_097 - 1, spdy.REFUSED_STREAM)]


def syn(number: int, headers: bytes, flags: int = 0) -> bytes:
    return control(1, struct.pack(">IIH", number, 0, 0) + headers, flags)


def block(plain: bytes) -> bytes:
    packer = zlib.compressobj(zdict=dictionary())
    return packer.compress(plain) + packer.flush(zlib.Z_SYNC_FLUSH)


EMPTY = block(struct.pack(">I", 0))
HOSTILE = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "version 2": control(6, struct.pack(">I", 1), version=2),
    "control frame of a megabyte": struct.pack(">II", 0x80030001, 1 << 20),
    "even stream": syn(2, EMPTY),
    "stream 0": syn(0, EMPTY),
    "stream again": syn(1, EMPTY) + syn(1, Compressor().block([])),
    "cut short": control(1, b"\0\0\0\1"),
    "not compressed": syn(1, b"hello"),
    "a bomb": syn(1, block(struct.pack(">III", 1, 1, 0) + b"\0" * 30_000_000)),
    "pairs without end": syn(1, block(struct.pack(">I", 1_000_000))),
    "a pair cut short": syn(1, block(struct.pack(">II", 1, 100) + b"abc")),
    "bytes behind the pairs": syn(1, block(struct.pack(">I", 0) + b"more")),
    "a name in capitals": syn(1, block(struct.pack(">II", 1, 1) + b"A" + struct.pack(">I", 0))),
    "a name twice": syn(1, block(struct.pack(">I", 2) + (struct.pack(">I", 1) + b"a" + struct.pack(">I", 0)) * 2)),
    "an empty name": syn(1, block(struct.pack(">III", 1, 0, 0))),
    "data for nobody": struct.pack(">II", 1, 0),
    "data for stream 0": struct.pack(">II", 0, 0),
    "reply to nothing": control(2, struct.pack(">I", 2) + EMPTY),
    "reset of nothing": control(3, struct.pack(">II", 7, 5)),
    "short reset": control(3, b"\0\0"),
    "settings that lie": control(4, struct.pack(">I", 1_000_000)),
    "settings with a huge window": control(4, struct.pack(">III", 1, 7, 2**31)),
    "ping without number": control(6, b""),
    "short go away": control(7, b""),
    "window by nothing": control(9, struct.pack(">II", 0, 0)),
    "window beyond the limit": control(9, struct.pack(">II", 0, 2**31 - 1)) * 2,
    "window of nobody": control(9, struct.pack(">II", 9, 1)),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_frames_are_protocol_errors(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Connection(server=True).receive(data)


def test_a_peer_may_send_frames_that_nobody_knows() -> None:
    server = Connection(server=True)
    assert server.receive(control(0x0A, b"credentials") + control(0x42, b"")) == []


@given(st.lists(st.tuples(st.text("abcdefgh-", min_size=1), st.text(st.characters(max_codepoint=255)))))
def test_headers_survive(pairs: list[tuple[str, str]]) -> None:
    pairs = [(name, value.replace("\0", "")) for name, value in pairs]
    packer, unpacker = Compressor(), Decompressor()
    for _ in range(2):  # the second block refers to the first
        found = unpacker.headers(packer.block(pairs))
        assert sorted(found) == sorted(pairs)


@settings(max_examples=300)
@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([bytes.fromhex(v) for v in GO.values()]))))
def test_no_bytes_break_the_connection_in_another_way(pieces: list[bytes]) -> None:
    server = Connection(server=True)
    try:
        for piece in pieces:
            server.receive(piece)
    except ProtocolError:
        server.go_away(spdy.PROTOCOL_ERROR)
    server.take()


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["data", "finish", "reset", "open", "ping"]), st.integers(0, 5), st.binary()))
)
def test_two_ends_agree(steps: list[tuple[str, int, bytes]]) -> None:
    client, server = Connection(server=False), Connection(server=True)
    sent: dict[int, bytes] = {}
    received: dict[int, bytes] = {}
    for what, which, data in [("open", 0, b""), *steps]:
        stream = 2 * which + 1
        if what == "open":
            sent[client.open([("n", "v")])] = b""
        elif stream in sent and what == "data":
            sent[stream] += data[: client.send(stream, data)]
        elif stream in sent and what == "finish":
            client.finish(stream)
        elif stream in sent and what == "reset":
            client.reset(stream)
        else:
            client.ping()
        for event in server.receive(client.take()):
            if isinstance(event, StreamOpened):
                server.reply(event.stream)
                received[event.stream] = b""
            elif isinstance(event, DataReceived):
                received[event.stream] += event.data
                server.consumed(event.stream, len(event.data))
        client.receive(server.take())
    assert received == sent
