"""Real sockets, the real API server, and a name server that stands for the machine's."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from steersman.api.resource import ENDPOINTSLICES, SERVICES
from steersman.client.informer import Informers
from steersman.dns.agent import DnsAgent
from steersman.lib.clock import SystemClock
from steersman.lib.tasks import Tasks
from steersman.testing.cluster import ApiCluster


class Upstream(asyncio.DatagramProtocol):
    """Knows example.com, answers `spoofed.` wrongly first, and says nothing to `silent.`."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        name = str(query.question[0].name)
        if name == "silent.":
            return
        answer = dns.message.make_response(query)
        answer.answer.append(dns.rrset.from_text(name, 300, "IN", "A", "192.0.2.80"))
        if name == "spoofed.":
            wrong = bytearray(answer.to_wire())
            wrong[0] ^= 0xFF
            self.transport.sendto(bytes(wrong[:-4]) + bytes(4), addr)
        self.transport.sendto(answer.to_wire(), addr)


class World:
    def __init__(self, cluster: ApiCluster, agent: DnsAgent) -> None:
        self.cluster, self.agent = cluster, agent
        self.port = agent.ports["127.0.0.1"]

    async def raw(self, data: bytes) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", self.port))
            client.send(data)
            async with asyncio.timeout(5):
                return await asyncio.get_running_loop().sock_recv(client, 65535)

    async def ask(self, name: str, kind: str = "A", **options: Any) -> dns.message.Message:
        query = dns.message.make_query(name, kind, **options)
        answer = dns.message.from_wire(await self.raw(query.to_wire()))
        assert query.is_response(answer)
        return answer

    async def texts(self, name: str, kind: str = "A") -> list[str]:
        return [item.to_text() for rrset in (await self.ask(name, kind)).answer for item in rrset]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    loop = asyncio.get_running_loop()
    upstream, _ = await loop.create_datagram_endpoint(Upstream, local_addr=("127.0.0.1", 0))
    clock = SystemClock()
    async with ApiCluster(clock=clock) as cluster, Tasks() as tasks:
        informers = Informers(cluster.client, clock=clock, tasks=tasks)
        agent = DnsAgent(
            informers,
            clock,
            domain="cluster.local",
            addresses=["127.0.0.1"],
            service_network="10.96.0.0/16",
            pod_network="10.244.0.0/16",
            port=0,
            upstreams=[f"127.0.0.1:{upstream.get_extra_info('sockname')[1]}"],
        )
        tasks.spawn(agent.run(), "dns")
        await informers.synced()
        async with asyncio.timeout(5):
            while not agent.ports:
                await clock.sleep(0.005)
        yield World(cluster, agent)
    upstream.close()


def service(name: str, ip: str = "", **spec: Any) -> dict[str, Any]:
    if ip:
        spec |= {"clusterIP": ip, "clusterIPs": [ip]}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}], **spec}}


async def test_a_service_is_known_as_soon_as_it_is_there(world: World) -> None:
    assert (await world.ask("web.default.svc.cluster.local")).rcode() == dns.rcode.NXDOMAIN
    await world.cluster.client.create(SERVICES, service("web", "10.96.0.7"), "default")
    async with asyncio.timeout(5):
        while await world.texts("web.default.svc.cluster.local") != ["10.96.0.7"]:
            pass
    assert await world.texts("7.0.96.10.in-addr.arpa", "PTR") == ["web.default.svc.cluster.local."]
    await world.cluster.client.delete(SERVICES, "web", "default")
    async with asyncio.timeout(5):
        while await world.texts("web.default.svc.cluster.local"):
            pass


async def test_other_names_go_to_the_machines_servers(world: World) -> None:
    assert await world.texts("www.example.com") == ["192.0.2.80"]
    assert await world.texts("spoofed") == ["192.0.2.80"], "an answer with another id is not ours"
    assert (await world.ask("silent")).rcode() == dns.rcode.SERVFAIL


async def test_an_external_name_brings_its_addresses(world: World) -> None:
    spec = {"type": "ExternalName", "externalName": "www.example.com"}
    await world.cluster.client.create(SERVICES, service("out", **spec), "default")
    async with asyncio.timeout(5):
        while await world.texts("out.default.svc.cluster.local") != ["www.example.com.", "192.0.2.80"]:
            pass
    assert await world.texts("out.default.svc.cluster.local", "CNAME") == ["www.example.com."]


async def test_external_names_may_lead_to_each_other(world: World) -> None:
    for name, target in (("a", "b.default.svc.cluster.local"), ("b", "c.default.svc.cluster.local")):
        await world.cluster.client.create(SERVICES, service(name, type="ExternalName", externalName=target), "default")
    await world.cluster.client.create(SERVICES, service("c", "10.96.0.9"), "default")
    async with asyncio.timeout(5):
        while (await world.texts("a.default.svc.cluster.local"))[-1:] != ["10.96.0.9"]:
            pass
    round_ = {"type": "ExternalName", "externalName": "round.default.svc.cluster.local"}
    await world.cluster.client.create(SERVICES, service("round", **round_), "default")
    async with asyncio.timeout(5):
        while (await world.ask("round.default.svc.cluster.local")).rcode() != dns.rcode.SERVFAIL:
            pass


async def test_many_endpoints_need_tcp(world: World) -> None:
    await world.cluster.client.create(SERVICES, service("many", "None"), "default")
    ips = [f"10.244.0.{n}" for n in range(1, 101)]
    endpoints = {
        "metadata": {"name": "many-a", "labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4",
        "ports": [{"port": 80, "name": ""}],
        "endpoints": [{"addresses": [ip]} for ip in ips],
    }
    await world.cluster.client.create(ENDPOINTSLICES, endpoints, "default")
    name = "many.default.svc.cluster.local"
    async with asyncio.timeout(5):
        while not (answer := await world.ask(name)).flags & dns.flags.TC:
            pass
    assert len(answer.to_wire()) <= 512
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    for _ in range(2):  # one connection, two questions
        query = dns.message.make_query(name, "A")
        wire = query.to_wire()
        writer.write(struct.pack("!H", len(wire)) + wire)
        size = int.from_bytes(await reader.readexactly(2), "big")
        whole = dns.message.from_wire(await reader.readexactly(size))
        assert sorted(item.to_text() for item in whole.answer[0]) == sorted(ips)
    writer.write(b"\0\3abc")
    assert await reader.read() == b"", "nonsense ends a connection"
    writer.close()


async def test_a_port_that_is_taken_is_had_as_soon_as_it_is_free(world: World) -> None:
    clock = SystemClock()
    async with Tasks() as tasks:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            agent = DnsAgent(
                Informers(world.cluster.client, clock=clock, tasks=tasks),
                clock,
                domain="cluster.local",
                addresses=["127.0.0.1"],
                service_network="10.96.0.0/16",
                pod_network="10.244.0.0/16",
                port=other.getsockname()[1],
                upstreams=[],
            )
            tasks.spawn(agent.run(), "dns")
            await clock.sleep(0)
            await clock.sleep(0)
            assert not agent.ports
        async with asyncio.timeout(5):
            while not agent.ports:
                await clock.sleep(0.01)


async def test_nonsense_does_not_stop_it(world: World) -> None:
    assert (await world.raw(b"\x12\x34\x00\x00\x00\x01" + bytes(6)))[3] & 0xF == dns.rcode.FORMERR
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for junk in (b"", b"x", b"\xff" * 600):
            client.sendto(junk, ("127.0.0.1", world.port))
    assert await world.texts("dns-version.cluster.local", "TXT") == ['"1.1.0"']
