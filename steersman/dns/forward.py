"""Names that are not ours, asked of the machine's own resolvers.

Owns one query to an upstream and its answer: a fresh socket and a random id each time, so that answers cannot be
guessed, time-outs, the next server when one is silent, TCP when an answer does not fit. No cache: the machine's
resolver has one. Called by `server`. Source: RFC 5452 for what makes an answer credible.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from steersman.dns.message import HEADER, read_name

Dial = Callable[[str, int], Awaitable[socket.socket]]
"""Makes a socket whose peer is (address, port). Raises OSError."""

_TIMEOUT = 1.5  # seconds for each server; askers give up after 5 and ask again themselves
_MOST = 3  # servers, as resolv.conf(5)
_TC = 0x0200


class NoAnswer(Exception):
    """No upstream answered."""


def nameservers(path: Path = Path("/etc/resolv.conf")) -> list[str]:
    """The name servers of a resolv.conf, in order; none when there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [each[1].partition("%")[0] for each in words if len(each) > 1 and each[0] == "nameserver"]


class _Exchange(asyncio.DatagramProtocol):
    """Waits for the one datagram that answers a query."""

    def __init__(self, query: bytes) -> None:
        self._query = query
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self.answer.done() and is_answer(self._query, data):
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


def is_answer(query: bytes, data: bytes) -> bool:
    """Whether `data` is an answer to `query`: same id, same question."""
    if len(data) < HEADER.size or data[:2] != query[:2] or not data[2] & 0x80:
        return False
    try:
        asked, end = read_name(query, HEADER.size)
        told, at = read_name(data, HEADER.size)
    except ValueError:
        return False
    return asked == told and query[end : end + 4] == data[at : at + 4]


class Forwarder:
    """Asks upstream servers in turn. `servers`: (address, port)."""

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        *,
        timeout: float = _TIMEOUT,
        dial: tuple[Dial, Dial] | None = None,
    ) -> None:
        """`timeout`: seconds for each server. `dial`: what makes UDP and TCP sockets, if not the event loop."""
        self._servers = list(servers)[:_MOST]
        self._timeout = timeout
        self._udp_dial, self._tcp_dial = dial or (None, None)

    async def ask(self, query: bytes, *, tcp: bool = False) -> bytes:
        """The answer to a query, under the query's id. `tcp`: it may be of any size. Raises NoAnswer."""
        fresh = secrets.token_bytes(2) + query[2:]
        for server in self._servers:
            try:
                async with asyncio.timeout(self._timeout):
                    data = await self._udp(server, fresh)
                    if tcp and int.from_bytes(data[2:4], "big") & _TC:
                        data = await self._tcp(server, fresh)
                return query[:2] + data[2:]
            except (OSError, TimeoutError, ValueError, EOFError):
                continue
        raise NoAnswer("no upstream name server answered" if self._servers else "there is no upstream name server")

    async def _udp(self, server: tuple[str, int], query: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        made = await self._udp_dial(*server) if self._udp_dial else None
        where = None if made else server
        transport, exchange = await loop.create_datagram_endpoint(
            lambda: _Exchange(query), remote_addr=where, sock=made
        )
        try:
            transport.sendto(query)
            return await exchange.answer
        finally:
            transport.close()

    async def _tcp(self, server: tuple[str, int], query: bytes) -> bytes:
        if self._tcp_dial:
            reader, writer = await asyncio.open_connection(sock=await self._tcp_dial(*server))
        else:
            reader, writer = await asyncio.open_connection(*server)
        try:
            writer.write(struct.pack("!H", len(query)) + query)
            size = int.from_bytes(await reader.readexactly(2), "big")
            data = await reader.readexactly(size)
            if not is_answer(query, data):
                raise ValueError("an answer to something else")
            return data
        finally:
            writer.close()
