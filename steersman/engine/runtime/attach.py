"""Joining the live streams of a container's first process, through its conmon.

Owns attach sessions and conmon's control pipe (terminal size, reopening the log). conmon's socket carries packets: what
we send is standard input; what comes begins with one byte, 2 for output and 3 for errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from pathlib import Path

from steersman.engine.interface import RuntimeFailure

_PACKET = 32768
_STDERR = 3


def control(bundle: Path, kind: int, height: int = 0, width: int = 0) -> None:
    """Tell conmon something: kind 1 is a terminal size, 2 means reopen the log. Raises OSError when it is gone."""
    fd = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, f"{kind} {height} {width}\n".encode())
    finally:
        os.close(fd)


def connect(bundle: Path) -> socket.socket:
    """Connect to a container's conmon. Raises RuntimeFailure when it is gone."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    handle = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{handle}/attach")
        connection.setblocking(False)
    except OSError as error:
        connection.close()
        raise RuntimeFailure(f"cannot attach: {error.strerror}") from error
    finally:
        os.close(handle)
    return connection


class AttachSession:
    """The streams of a container's first process. Implements `engine.interface.Session`."""

    def __init__(self, connection: socket.socket, bundle: Path, *, stdin: bool, tty: bool, once: bool) -> None:
        """`once`: the container's standard input ends with the first session that ends it."""
        self._connection = connection
        self._bundle = bundle
        self._stdin = stdin
        self._tty = tty
        self._leaves = stdin and not tty and not once
        self._outgoing: deque[bytes] = deque()
        self._finish = False
        self._room = asyncio.Event()
        self._room.set()
        self._packets: dict[bool, deque[bytes]] = {False: deque(), True: deque()}
        self._turn = asyncio.Lock()
        self._over = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Send to standard input, if the session has it."""
        if not self._stdin or self._finish or self._over.is_set():
            return
        self._outgoing.extend(data[start : start + _PACKET] for start in range(0, len(data), _PACKET))
        self._flush()

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._outgoing:
                self._connection.send(self._outgoing[0])
                self._outgoing.popleft()
        except BlockingIOError:
            self._room.clear()
            loop.add_writer(self._connection, self._flush)
            return
        except OSError:
            self._outgoing.clear()
        loop.remove_writer(self._connection)
        self._room.set()
        if self._finish:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR if self._leaves else socket.SHUT_WR)

    async def drain(self) -> None:
        """Wait until conmon has taken what was written."""
        await self._room.wait()

    def close_stdin(self) -> None:
        """End of standard input; conmon passes it on if the container was made for one user of it.

        Otherwise the session is over, as with containerd: a client that has nothing more to say would wait for ever.
        """
        if self._stdin and not self._finish and not self._over.is_set():
            if self._tty:
                self.write(b"\x04")
            self._finish = True
            self._flush()

    async def read_stdout(self) -> bytes:
        """Some output; empty at the end."""
        return await self._read(stderr=False)

    async def read_stderr(self) -> bytes:
        """Some error output; empty at the end, and always with a terminal."""
        return b"" if self._tty else await self._read(stderr=True)

    async def _read(self, *, stderr: bool) -> bytes:
        while not self._packets[stderr]:
            # both streams come by one socket: whoever has the turn receives for both
            async with self._turn:
                if self._packets[stderr]:
                    break
                if self._over.is_set():
                    return b""
                packet = await self._receive()
                if packet:
                    self._packets[packet[0] == _STDERR].append(packet[1:])
                else:
                    self._over.set()
        return self._packets[stderr].popleft()

    async def _receive(self) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self._connection, _PACKET + 1)
        except OSError:
            return b""

    def resize(self, width: int, height: int) -> None:
        """Change the terminal's size, in characters."""
        with contextlib.suppress(OSError):
            control(self._bundle, 1, height, width)

    async def wait(self) -> int:
        """0 when the container's output has ended."""
        await self._over.wait()
        return 0

    async def close(self) -> None:
        """Leave; the container goes on."""
        loop = asyncio.get_running_loop()
        if self._connection.fileno() >= 0:
            loop.remove_writer(self._connection)
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)  # wakes a reader
            async with self._turn:
                self._connection.close()
        self._over.set()
        self._room.set()
