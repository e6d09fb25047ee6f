"""A connection to a port of a sandbox, seen from inside its network namespace.

Owns `Connection`, a `Duplex` over a socket. A socket belongs to the namespace that its thread was in when it was made,
so only its making happens in a worker.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from steersman.engine.interface import RuntimeFailure
from steersman.engine.runtime import kernel
from steersman.engine.runtime.workers import Workers

_CHUNK = 65536


class Connection:
    """An established TCP connection. Implements `lib.http.messages.Duplex`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        """Some bytes; empty at the end."""
        try:
            return await self._reader.read(_CHUNK)
        except ConnectionError:
            return b""

    def write(self, data: bytes) -> None:
        """Queue bytes without waiting. Raises ConnectionError when the peer is gone."""
        if self._writer.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait until the buffer is below its limit."""
        await self._writer.drain()

    def write_eof(self) -> None:
        """Send no more."""
        if not self._writer.is_closing():
            self._writer.write_eof()

    def close(self) -> None:
        """End both directions."""
        self._writer.close()


async def connect(workers: Workers, namespace: Path | None, port: int) -> Connection:
    """Connect to localhost:`port` in a network namespace (None: the node's). Raises RuntimeFailure when refused."""
    if not 0 < port < 65536:
        raise RuntimeFailure(f"not a port: {port}")
    error: OSError | None = None
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        made = await workers.run(_socket, workers, namespace, family)
        try:
            await asyncio.get_running_loop().sock_connect(made, (address, port))
            return Connection(*await asyncio.open_connection(sock=made))
        except OSError as refused:
            made.close()
            error = error or refused
        except BaseException:
            made.close()
            raise
    raise RuntimeFailure(f"failed to connect to localhost:{port} inside the sandbox: {error}")


def _socket(workers: Workers, namespace: Path | None, family: int) -> socket.socket:
    with workers.away("net"):
        if namespace is not None:
            fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                kernel.setns(fd, kernel.CLONE_NEWNET)
            finally:
                os.close(fd)
        made = socket.socket(family, socket.SOCK_STREAM)
    made.setblocking(False)
    return made
