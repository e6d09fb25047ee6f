"""The name server: UDP and TCP sockets in front of the records and the forwarder.

Owns the sockets and their limits, and the decision who answers: the records for the cluster's names and addresses, the
upstreams for the rest. Whatever arrives, it answers, stays silent or closes; it never fails. Started by `agent`.
Source: RFC 1035 section 4.2, RFC 7766 (TCP), RFC 6891 (sizes).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

from steersman.dns import message
from steersman.dns.forward import Forwarder, NoAnswer
from steersman.dns.message import BadMessage, Code, Name, Query, Record, Type
from steersman.dns.records import TTL, Records, Reply
from steersman.lib.tasks import Tasks

log = logging.getLogger(__name__)

_MAX_FORWARDED = 1000  # queries under way to upstreams; more are answered SERVFAIL
_MAX_CONNECTIONS = 200
_IDLE = 10.0  # seconds a TCP connection may say nothing
_MAX_TCP = 65_535
_MAX_CHAIN = 8  # ExternalNames that lead to each other


class Resolver:
    """Answers queries. `ready`: whether everything is known; until then our own names get SERVFAIL."""

    def __init__(self, records: Records, forwarder: Forwarder, ready: Callable[[], bool]) -> None:
        self._records = records
        self._forwarder = forwarder
        self._ready = ready
        self._forwarded = 0

    def at_once(self, query: Query, limit: int) -> bytes | None:
        """The answer from what we know, of at most `limit` bytes; None when upstreams must be asked."""
        if not self._records.owns(query.name):
            return None
        if not self._ready():
            return message.answer(query, Code.SERVFAIL, authoritative=False)
        answers, reply = self._local(query)
        if reply.chase is not None:
            return None if not self._records.owns(reply.chase) else message.answer(query, Code.SERVFAIL)
        authority = [] if answers else [self._records.authority(query.name)]
        return message.answer(query, reply.code, answers, authority, reply.additional, limit=limit)

    def _local(self, query: Query) -> tuple[list[Record], Reply]:
        """What we know, through every ExternalName of ours, and the last reply."""
        answers: list[Record] = []
        name: Name = query.name
        for _ in range(_MAX_CHAIN):
            reply = self._records.reply(name, query.type)
            answers += reply.answers
            if reply.chase is None or not self._records.owns(reply.chase):
                break
            name = reply.chase
        return answers, reply

    async def answer(self, data: bytes, *, tcp: bool) -> bytes:
        """The answer to a message; empty for silence."""
        try:
            query = message.parse_query(data)
        except BadMessage as error:
            return error.answer
        limit = _MAX_TCP if tcp else min(query.size, message.UDP_SIZE)
        found = self.at_once(query, limit)
        if found is not None:
            return found
        if self._forwarded >= _MAX_FORWARDED:
            return message.answer(query, Code.SERVFAIL, authoritative=False)
        self._forwarded += 1
        try:
            if self._records.owns(query.name):
                return await self._follow(query, limit)
            return await self._forwarder.ask(data, tcp=tcp)
        except NoAnswer as error:
            log.info("cannot resolve %s: %s", ".".join(query.name), error)
            return message.answer(query, Code.SERVFAIL, authoritative=False)
        finally:
            self._forwarded -= 1

    async def _follow(self, query: Query, limit: int) -> bytes:
        """An ExternalName and what its target resolves to, as a resolver that asks only us expects."""
        answers, reply = self._local(query)
        if reply.chase is not None and query.type in (Type.A, Type.AAAA):
            try:
                data = await self._forwarder.ask(message.question(Query(0, reply.chase, query.type)), tcp=True)
                found = message.read_addresses(data)
            except (NoAnswer, BadMessage):
                found = []
            answers += [replace(record, ttl=min(record.ttl, TTL)) for record in found]
        return message.answer(query, Code.NOERROR, answers, limit=limit)


class _Datagrams(asyncio.DatagramProtocol):
    """One UDP socket."""

    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.datagram(self, data, addr)

    def send(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer, unless the socket is closed."""
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.sendto(data, addr)


class DnsServer:
    """Sockets on any number of addresses. `listen` (often), then `close`."""

    def __init__(self, resolver: Resolver, *, idle_seconds: float = _IDLE) -> None:
        self._resolver = resolver
        self._idle = idle_seconds
        self._datagrams: list[asyncio.DatagramTransport] = []
        self._listeners: list[asyncio.Server] = []
        self._connections = 0
        self._tasks = Tasks()

    async def listen(self, address: str, port: int = 53) -> int:
        """Serve UDP and TCP on an address; port 0 chooses one. Returns the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        listener = await asyncio.start_server(self._connected, address, port, limit=_MAX_TCP + 2)
        port = int(listener.sockets[0].getsockname()[1])
        try:
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(address, port))
        except OSError:
            listener.close()
            raise
        self._listeners.append(listener)
        self._datagrams.append(transport)
        return port

    async def close(self) -> None:
        """Stop serving."""
        for transport in self._datagrams:
            transport.close()
        for listener in self._listeners:
            listener.close()
        await self._tasks.close()

    def datagram(self, socket: _Datagrams, data: bytes, addr: tuple[str, int]) -> None:
        """One packet. What we know is answered on the spot, without a task."""
        try:
            query = message.parse_query(data)
        except BadMessage as error:
            socket.send(error.answer, addr)
            return
        found = self._resolver.at_once(query, min(query.size, message.UDP_SIZE))
        if found is not None:
            socket.send(found, addr)
        else:
            self._tasks.spawn(self._later(socket, data, addr), "dns query")

    async def _later(self, socket: _Datagrams, data: bytes, addr: tuple[str, int]) -> None:
        socket.send(await self._resolver.answer(data, tcp=False), addr)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= _MAX_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        try:
            await self._converse(reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass  # it said nothing for long, or went away
        finally:
            self._connections -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(self._idle):
                size = int.from_bytes(await reader.readexactly(2), "big")
                data = await reader.readexactly(size)
            answer = await self._resolver.answer(data, tcp=True)
            if not answer:
                return
            writer.write(len(answer).to_bytes(2, "big") + answer)
            async with asyncio.timeout(self._idle):
                await writer.drain()


def address_port(text: str) -> tuple[str, int]:
    """An upstream as an address, or an IPv4 `address:port`. Raises ValueError."""
    host, colon, port = text.partition(":")
    if ":" in port or not colon:
        return str(ip_address(text)), 53
    return str(IPv4Address(host)), int(port)
