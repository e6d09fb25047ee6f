"""exec and attach end to end: real TLS, both transports, every subprotocol, real processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from steersman.kubelet.streaming.spdy import SpdyConnection, SpdyStream
from steersman.wire import channels
from tests.kubelet.serving import World, drain, exit_code, serving


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with serving(tmp_path) as made:
        yield made


def target(*command: str, streams: str = "output error", what: str = "exec") -> str:
    query = [(name, "1") for name in streams.split()] + [("command", word) for word in command]
    return f"/{what}/default/web/main?{urlencode(query)}"


def opened(connection: SpdyConnection, *kinds: str) -> dict[str, SpdyStream]:
    return {kind: connection.open([("streamtype", kind)]) for kind in kinds}


async def test_spdy_exec_with_input_and_both_outputs(world: World) -> None:
    script = "cat; echo wrong >&2; exit 3"
    connection = await world.spdy(target("sh", "-c", script, streams="input output error"), "v4.channel.k8s.io")
    streams = opened(connection, "error", "stdin", "stdout", "stderr")
    await streams["stdin"].write(b"one ")
    await streams["stdin"].write(b"two")
    streams["stdin"].finish()
    assert await drain(streams["stdout"]) == b"one two"
    assert await drain(streams["stderr"]) == b"wrong\n"
    assert exit_code(await drain(streams["error"])) == 3
    await connection.end()


async def test_spdy_output_larger_than_every_buffer_is_whole(world: World) -> None:
    connection = await world.spdy(target("head", "-c", "5000000", "/dev/zero", streams="output"), "v4.channel.k8s.io")
    streams = opened(connection, "error", "stdout")
    assert len(await drain(streams["stdout"])) == 5_000_000
    assert exit_code(await drain(streams["error"])) == 0
    await connection.end()


async def test_spdy_input_larger_than_every_buffer_is_whole(world: World) -> None:
    connection = await world.spdy(target("wc", "-c", streams="input output"), "v4.channel.k8s.io")
    streams = opened(connection, "error", "stdin", "stdout")
    for _ in range(50):
        await streams["stdin"].write(b"x" * 100_000)
    streams["stdin"].finish()
    assert int(await drain(streams["stdout"])) == 5_000_000
    await connection.end()


@pytest.mark.parametrize("protocol", ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"])
async def test_older_spdy_protocols_get_the_bare_message(world: World, protocol: str) -> None:
    connection = await world.spdy(target("sh", "-c", "exit 2", streams="output"), "v9.channel.k8s.io", protocol)
    streams = opened(connection, "error", "stdout")
    assert await drain(streams["error"]) == b"command terminated with non-zero exit code: exit status 2"
    await connection.end()


async def test_a_stream_nobody_asked_for_is_reset(world: World) -> None:
    connection = await world.spdy(target("echo", "hi", streams="output"), "v4.channel.k8s.io")
    odd = opened(connection, "nonsense")["nonsense"]
    with pytest.raises(ConnectionError):
        await drain(odd)
    streams = opened(connection, "error", "stdout")
    assert await drain(streams["stdout"]) == b"hi\n"
    await connection.end()


async def test_terminal_sizes_reach_the_session(world: World) -> None:
    connection = await world.spdy(target("cat", streams="input output tty"), "v4.channel.k8s.io")
    streams = opened(connection, "error", "stdin", "stdout", "resize")
    await streams["resize"].write(b'{"Width":80,"Hei')
    await streams["resize"].write(b'ght":24}{"Width":100,"Height":30}')
    await streams["stdin"].write(b"x")
    async with asyncio.timeout(5):
        assert await streams["stdout"].read() == b"x"
    assert world.runtime.sessions[0].sizes == [(80, 24), (100, 30)]
    streams["stdin"].finish()
    assert exit_code(await drain(streams["error"])) == 0
    await connection.end()


async def test_a_command_that_cannot_start_says_why(world: World) -> None:
    connection = await world.spdy(target("missing", streams="output"), "v4.channel.k8s.io")
    streams = opened(connection, "error", "stdout")
    status = json.loads(await drain(streams["error"]))
    assert (status["status"], status["reason"], status["code"]) == ("Failure", "InternalError", 500)
    assert status["message"] == (
        "Internal error occurred: error executing command in container: executable file not found in $PATH"
    )
    await connection.end()


async def test_a_client_that_leaves_ends_the_session(world: World) -> None:
    connection = await world.spdy(target("sleep", "1000", streams="output"), "v4.channel.k8s.io")
    opened(connection, "error", "stdout")
    async with asyncio.timeout(5):
        while not world.runtime.sessions:
            await asyncio.wait([asyncio.ensure_future(connection.closed())], timeout=0.01)
        await world.clients[-1].close()
        connection._duplex.close()
        assert await world.runtime.sessions[0].wait() < 0
    assert world.runtime.sessions[0].closed


async def test_garbage_instead_of_spdy_ends_the_connection(world: World) -> None:
    connection = await world.spdy(target("cat", streams="output"), "v4.channel.k8s.io")
    connection._duplex.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
    async with asyncio.timeout(5):
        await connection.closed()


@pytest.mark.parametrize("protocol", [*channels.REMOTE_COMMAND, ""])
async def test_websocket_exec_in_every_subprotocol(world: World, protocol: str) -> None:
    script = "read line; echo $line; echo wrong >&2; exit 4"
    socket = await world.websocket(target("sh", "-c", script, streams="input output error"), protocol)
    await socket.until(channels.STDOUT, b"")
    await socket.read()
    assert socket.first == channels.STDOUT
    socket.send(channels.STDIN, b"hello\n")
    socket.send(77, b"to a channel that does not exist")
    found = await socket.end()
    assert (found[channels.STDOUT], found[channels.STDERR]) == (b"hello\n", b"wrong\n")
    if protocol.startswith(("v4", "v5")):
        assert exit_code(found[channels.ERROR]) == 4
    else:
        assert found[channels.ERROR] == b"command terminated with non-zero exit code: exit status 4"
    assert socket.closed is not None
    assert socket.closed.code == 1000


async def test_v5_closes_standard_input(world: World) -> None:
    socket = await world.websocket(target("cat", streams="input output"), "v5.channel.k8s.io")
    socket.send(channels.STDIN, b"all of it")
    socket.wire.send(socket.codec.encode_close(channels.STDIN))
    socket.flush()
    found = await socket.end()
    assert found[channels.STDOUT] == b"all of it"
    assert exit_code(found[channels.ERROR]) == 0


async def test_websocket_pings_are_answered_during_a_command(world: World) -> None:
    socket = await world.websocket(target("cat", streams="input output"), "v5.channel.k8s.io")
    socket.wire.ping(b"there?")
    socket.flush()
    socket.send(channels.STDIN, b"x")
    await socket.until(channels.STDOUT, b"x")
    socket.wire.close()
    socket.flush()
    await socket.end()
    assert socket.closed is not None


@pytest.mark.parametrize(
    "bad", [b"\xff\xff\xff\xff", b"\x82\x05hello", b"\x82\xff" + b"\x7f" * 12, b"\x88\x81aaaa\x00"]
)
async def test_broken_frames_end_the_session(world: World, bad: bytes) -> None:
    socket = await world.websocket(target("cat", streams="input output"), "v5.channel.k8s.io")
    socket.send(channels.STDIN, b"x")
    await socket.until(channels.STDOUT, b"x")
    socket.duplex.write(bad)
    await socket.end()
    async with asyncio.timeout(5):
        await world.runtime.sessions[0].wait()


async def test_attach_joins_and_leaves(world: World) -> None:
    socket = await world.websocket(target(streams="input output", what="attach"), "v4.channel.k8s.io")
    await socket.until(channels.STDOUT, b"attached\n")
    socket.send(channels.STDIN, b"typed\n")
    await socket.until(channels.STDOUT, b"typed\n")
    socket.duplex.close()


@pytest.mark.parametrize(
    ("path", "headers", "status", "text"),
    [
        (target("ls", streams=""), [], 400, b"you must specify at least 1 of stdin, stdout, stderr\n"),
        ("/exec/default/web/other?output=1&command=ls", [], 404, b'container not found ("other")\n'),
        ("/exec/default/gone/main?output=1&command=ls", [], 404, b'pod "gone" does not exist\n'),
        (
            target("ls"),
            [("x-stream-protocol-version", "v4.channel.k8s.io")],
            400,
            b"unable to upgrade: missing upgrade",
        ),
        (target("ls"), [], 400, b"unable to upgrade: header X-Stream-Protocol-Version does not exist in request"),
        (
            target("ls"),
            [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9")],
            403,
            b"unable to upgrade: unable to negotiate protocol: client supports [v9], server accepts [v4",
        ),
        (target("ls"), [("connection", "Upgrade"), ("upgrade", "websocket")], 400, b"unable to upgrade: a WebSocket"),
        (
            target("ls"),
            [
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "short"),
            ],
            400,
            b"unable to upgrade: Sec-WebSocket-Key is not valid",
        ),
    ],
)
async def test_what_cannot_be_upgraded_is_refused(
    world: World, path: str, headers: list[tuple[str, str]], status: int, text: bytes
) -> None:
    answer, duplex = await world.client().upgrade("GET", path, headers)
    assert duplex is None
    assert answer.status == status
    assert (await answer.read()).startswith(text)
