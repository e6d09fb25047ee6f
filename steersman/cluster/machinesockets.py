"""Sockets in the machine's own network, for a node that lives in a network namespace.

Owns the threads that never left the machine's namespace. Called by `node.py` for what a node fetches from outside as
the machine would: images, of registries on the machine's loopback too, and names that the cluster does not serve.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from steersman.engine.images.registry import connect
from steersman.lib.http.messages import Transport

_CLONE_NEWNET = 0x40000000
_TIMEOUT = 10.0


class MachineSockets:
    """`namespace`: the open network namespace of the machine; it belongs to this object."""

    def __init__(self, namespace: int) -> None:
        self._namespace = namespace
        self._pool = ThreadPoolExecutor(4, "machine", initializer=self._enter)

    def _enter(self) -> None:
        if ctypes.CDLL(None, use_errno=True).setns(self._namespace, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot enter the machine's network")

    async def dial(self, host: str, port: int) -> socket.socket:
        """A TCP connection; the name is looked up as the machine would. Raises OSError."""
        return await self._made(self._stream, host, port)

    async def datagram(self, host: str, port: int) -> socket.socket:
        """A UDP socket with this peer. Raises OSError."""
        return await self._made(self._datagram, host, port)

    def registry(self, origin: str) -> Transport:
        """A transport to a registry (`images.registry.Connect`)."""
        return connect(origin, self.dial)

    async def _made(self, make: Callable[[str, int], socket.socket], host: str, port: int) -> socket.socket:
        return await asyncio.get_running_loop().run_in_executor(self._pool, make, host, port)

    @staticmethod
    def _stream(host: str, port: int) -> socket.socket:
        made = socket.create_connection((host, port), _TIMEOUT)
        made.setblocking(False)
        return made

    @staticmethod
    def _datagram(host: str, port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            made.connect((host, port))
        except OSError:
            made.close()
            raise
        made.setblocking(False)
        return made

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
        os.close(self._namespace)
