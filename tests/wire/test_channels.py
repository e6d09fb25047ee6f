"""Channel messages, statuses and terminal sizes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.wire import channels
from steersman.wire.channels import ChannelClosed, ChannelCodec, ChannelData, ResizeDecoder
from steersman.wire.websocket import ProtocolError

ALL = ["", *channels.REMOTE_COMMAND]


@pytest.mark.parametrize(
    ("protocol", "message", "event"),
    [
        ("v4.channel.k8s.io", b"\x01hello", ChannelData(1, b"hello")),
        ("", b"\x00", ChannelData(0, b"")),
        ("v4.channel.k8s.io", b"", None),
        ("v4.channel.k8s.io", b"\xff\x00", ChannelData(255, b"\x00")),
        ("v5.channel.k8s.io", b"\xff\x00", ChannelClosed(0)),
        ("base64.channel.k8s.io", b"1aGVsbG8=", ChannelData(1, b"hello")),
        ("v4.base64.channel.k8s.io", b"4", ChannelData(4, b"")),
    ],
)
def test_exact_messages(protocol: str, message: bytes, event: object) -> None:
    codec = ChannelCodec(protocol)
    assert codec.decode(message) == event
    if isinstance(event, ChannelData):
        assert codec.encode(event.channel, event.data) == message
    elif isinstance(event, ChannelClosed):
        assert codec.encode_close(event.channel) == message


@pytest.mark.parametrize(
    ("protocol", "message"),
    [("v5.channel.k8s.io", b"\xff"), ("v5.channel.k8s.io", b"\xff\x00\x00"), ("base64.channel.k8s.io", b"0***")],
)
def test_hostile_messages(protocol: str, message: bytes) -> None:
    with pytest.raises(ProtocolError):
        ChannelCodec(protocol).decode(message)


@given(st.sampled_from(ALL), st.integers(0, 60), st.binary())
def test_messages_survive(protocol: str, channel: int, data: bytes) -> None:
    codec = ChannelCodec(protocol)
    assert codec.decode(codec.encode(channel, data)) == ChannelData(channel, data)


@given(st.sampled_from(ALL), st.binary())
def test_no_message_breaks_the_codec(protocol: str, message: bytes) -> None:
    try:
        ChannelCodec(protocol).decode(message)
    except ProtocolError:
        assert protocol


def test_statuses() -> None:
    assert channels.encode_status(channels.exit_status(0), "v5.channel.k8s.io") == b'{"metadata":{},"status":"Success"}'
    assert json.loads(channels.encode_status(channels.exit_status(7), "v4.channel.k8s.io")) == {
        "metadata": {},
        "status": "Failure",
        "message": "command terminated with non-zero exit code: exit status 7",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
    }
    for old in ("", "channel.k8s.io", "v3.channel.k8s.io", "base64.channel.k8s.io"):
        assert channels.encode_status(channels.exit_status(0), old) == b""
        assert channels.encode_status(channels.internal_error("no"), old) == b"Internal error occurred: no"


def test_sizes_come_in_any_pieces() -> None:
    decoder = ResizeDecoder()
    stream = b'{"Width":80,"Height":24}\n{"Height":1,"Width":2} {"width":3,"height":4}'
    found = [size for at in range(len(stream)) for size in decoder.feed(stream[at : at + 1])]
    assert found == [(80, 24), (2, 1), (3, 4)]


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"7",
        b"x",
        b'{"Width":-1,"Height":2}',
        b'{"Width":65536,"Height":2}',
        b'{"Width":"80","Height":2}',
        b'{"Width":true,"Height":2}',
        b'{"Width":' + b" " * 5000,
        b'{"a":' * 5000,
    ],
)
def test_hostile_sizes(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        ResizeDecoder().feed(data)


@given(st.lists(st.binary(max_size=30)))
def test_no_bytes_break_the_sizes(pieces: list[bytes]) -> None:
    decoder = ResizeDecoder()
    try:
        for piece in pieces:
            assert all(0 <= n < 65536 for size in decoder.feed(piece) for n in size)
    except ProtocolError:
        return
