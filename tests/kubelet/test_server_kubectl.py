"""Unmodified kubectl, of releases that speak SPDY and of those that speak WebSocket, through a real API server."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from steersman.lib.http.messages import Request
from tests.e2e.kubectl import RELEASES, binary
from tests.kubelet.fronting import echo, fronted
from tests.kubelet.serving import World

pytestmark = pytest.mark.node  # the binaries come with `./steer test`

_LIMIT = 30  # seconds for one command
_REFUSED = 1  # a port where nobody listens


@dataclass
class Terminal:
    """A kubectl and the cluster it talks to."""

    release: str
    server: str
    home: Path
    world: World
    requests: list[Request] = field(default_factory=list)

    async def start(self, *words: str, tty: int | None = None) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            str(binary(self.release)),
            *("--server", self.server, *words),
            stdin=pipe if tty is None else tty,
            stdout=pipe if tty is None else tty,
            stderr=pipe,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBECONFIG": "/dev/null"},
        )

    async def run(self, *words: str, given: bytes = b"") -> tuple[int | None, bytes, bytes]:
        """Exit code, output, errors."""
        process = await self.start(*words)
        async with asyncio.timeout(_LIMIT):
            out, errors = await process.communicate(given)
        return process.returncode, out, errors


@pytest.fixture(params=RELEASES)
async def kubectl(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Terminal]:
    async with fronted(tmp_path) as front:
        yield Terminal(request.param, front.url, tmp_path, front.world, front.requests)


async def test_exec_with_both_outputs_and_its_exit_code(kubectl: Terminal) -> None:
    done = await kubectl.run("exec", "web", "--", "sh", "-c", "echo out; echo wrong >&2; exit 7")
    assert done == (7, b"out\n", b"wrong\ncommand terminated with exit code 7\n")
    assert await kubectl.run("exec", "web", "--", "true") == (0, b"", b"")


async def test_exec_carries_large_input_and_output_whole(kubectl: Terminal) -> None:
    data = os.urandom(8_000_000)
    code, out, errors = await kubectl.run("exec", "-i", "web", "--", "cat", given=data)
    assert (code, hashlib.sha256(out).digest(), errors) == (0, hashlib.sha256(data).digest(), b"")


async def test_exec_of_a_command_that_leaves_its_input(kubectl: Terminal) -> None:
    code, out, _ = await kubectl.run("exec", "-i", "web", "--", "head", "-c", "3", given=b"abc" + bytes(100_000))
    assert (code, out) == (0, b"abc")


async def test_exec_of_what_is_not_there(kubectl: Terminal) -> None:
    code, _, errors = await kubectl.run("exec", "web", "--", "missing")
    assert code == 1
    assert b"executable file not found in $PATH" in errors


async def test_a_terminal_has_a_size(kubectl: Terminal) -> None:
    leader, follower = pty.openpty()
    _set_size(leader, width=132, height=43)
    process = await kubectl.start("exec", "-it", "web", "--", "cat", tty=follower)
    try:
        async with asyncio.timeout(_LIMIT):
            await _until(leader, b"typed", first=b"typed\n")
            session = kubectl.world.runtime.sessions[0]
            await session.resized.wait()
            assert session.sizes[0] == (132, 43)
            session.resized.clear()
            _set_size(leader, width=81, height=25)
            process.send_signal(signal.SIGWINCH)  # the terminal is not the one that controls kubectl
            while (81, 25) not in session.sizes:
                await session.resized.wait()
                session.resized.clear()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(leader)
        os.close(follower)


def _set_size(terminal: int, *, width: int, height: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


async def _until(terminal: int, wanted: bytes, first: bytes) -> None:
    """Type `first`, then read until `wanted` came back twice: from the terminal's echo, and from the command."""
    os.write(terminal, first)
    seen = b""
    while seen.count(wanted) < 2:
        seen += await asyncio.to_thread(os.read, terminal, 4096)


@pytest.mark.parametrize(
    ("words", "spdy"),
    [(("exec", "web", "--", "true"), ("v27",)), (("port-forward", "web", f":{_REFUSED}"), ("v27", "v30"))],
)
async def test_the_releases_speak_what_they_are_here_for(
    kubectl: Terminal, words: Sequence[str], spdy: Sequence[str]
) -> None:
    process = await kubectl.start(*words)
    assert process.stdout is not None
    async with asyncio.timeout(_LIMIT):
        await process.stdout.readline()
        if process.returncode is None and words[0] == "port-forward":
            process.kill()
        await process.wait()
    (upgrade,) = {request.header("upgrade") for request in kubectl.requests if request.header("upgrade")}
    assert upgrade == ("SPDY/3.1" if kubectl.release in spdy else "websocket")


async def test_attach_joins_the_container(kubectl: Terminal) -> None:
    process = await kubectl.start("attach", "-i", "web", "--quiet")
    assert process.stdin is not None and process.stdout is not None
    async with asyncio.timeout(_LIMIT):
        assert await process.stdout.readline() == b"attached\n"
        process.stdin.write(b"said\n")
        assert await process.stdout.readline() == b"said\n"
        process.stdin.close()
        assert await process.stdout.read() == b""
        assert await process.wait() == 0


async def test_copies_both_ways(kubectl: Terminal, tmp_path: Path) -> None:
    source, there, back = tmp_path / "source", tmp_path / "there", tmp_path / "back"
    there.mkdir()
    source.write_bytes(os.urandom(3_000_000))
    code, _, errors = await kubectl.run("cp", str(source), f"default/web:{there}/file")
    assert (code, errors, (there / "file").read_bytes() == source.read_bytes()) == (0, b"", True)
    code, _, errors = await kubectl.run("cp", f"default/web:{there}/file", str(back))
    assert (code, back.read_bytes() == source.read_bytes()) == (0, True), errors


async def test_port_forward(kubectl: Terminal) -> None:
    target = await asyncio.start_server(echo, "127.0.0.1", 0)
    remote = target.sockets[0].getsockname()[1]
    process = await kubectl.start("port-forward", "pod/web", f":{remote}", f":{_REFUSED}")
    assert process.stdout is not None and process.stderr is not None
    ports: dict[str, int] = {}
    try:
        async with asyncio.timeout(_LIMIT):
            while len(ports) < 2:
                words = (await process.stdout.readline()).decode().split()
                ports[words[-1]] = int(words[2].rpartition(":")[2])
            results = await asyncio.gather(*(_through(ports[str(remote)], 300_000) for _ in range(20)))
            assert all(results)
            _, writer = await asyncio.open_connection("127.0.0.1", ports[str(_REFUSED)])
            writer.write(b"anybody?")
            assert b"failed to connect to localhost:1: Connection refused" in await process.stderr.readline()
            writer.close()
    finally:
        target.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _through(port: int, size: int) -> bool:
    """Whether an echo gives back what was sent."""
    data = os.urandom(size)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    got = await reader.readexactly(size)
    writer.close()
    return got == data


async def test_logs(kubectl: Terminal, tmp_path: Path) -> None:
    (tmp_path / "0.log").write_bytes(b"2026-01-01T00:00:00.000000001Z stdout F before\n")
    (tmp_path / "1.log").write_bytes(
        b"2026-01-01T00:00:01.000000001Z stdout F one\n"
        b"2026-01-01T00:00:02.000000002Z stderr P tw\n"
        b"2026-01-01T00:00:02.000000003Z stderr F o\n"
    )
    assert await kubectl.run("logs", "web") == (0, b"one\ntwo\n", b"")
    assert await kubectl.run("logs", "web", "--previous") == (0, b"before\n", b"")
    assert await kubectl.run("logs", "web", "--limit-bytes=2") == (0, b"on", b"")
    stamped = await kubectl.run("logs", "web", "--timestamps", "--since-time=2026-01-01T00:00:02Z")
    assert stamped == (0, b"2026-01-01T00:00:02.000000002Z two\n", b"")


async def test_logs_follow_to_the_end(kubectl: Terminal, tmp_path: Path) -> None:
    with (tmp_path / "1.log").open("ab", buffering=0) as file:
        file.write(b"2026-01-01T00:00:01.000000001Z stdout F one\n")
        process = await kubectl.start("logs", "-f", "web")
        assert process.stdout is not None
        async with asyncio.timeout(_LIMIT):
            assert await process.stdout.readline() == b"one\n"
            file.write(b"2026-01-01T00:00:02.000000001Z stdout F two\n")
            assert await process.stdout.readline() == b"two\n"
            await kubectl.world.runtime.stop_container(kubectl.world.pods.container.id, 0)
            assert await process.stdout.read() == b""
            assert await process.wait() == 0
