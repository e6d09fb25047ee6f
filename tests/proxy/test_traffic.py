"""Real packets through real nftables, in namespaces of their own, with the real API server in process."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from steersman.api.resource import ENDPOINTSLICES, SERVICES
from steersman.client.informer import Informers
from steersman.lib.clock import SystemClock
from steersman.lib.tasks import Tasks
from steersman.proxy import nftables
from steersman.proxy.apply import LibraryApplier, NftablesError, ProgramApplier
from steersman.proxy.conntrack import Conntrack
from steersman.proxy.model import HostPort, Where
from steersman.proxy.nftables import Settings
from steersman.proxy.proxy import Proxy
from steersman.testing.cluster import ApiCluster
from tests.proxy.conftest import NODE_IP, OUTSIDER, PODS, UPLINK, Network, ask, ip
from tests.proxy.objects import Object, endpoint, service, slice_of

pytestmark = pytest.mark.node

SETTINGS = Settings("steersman-test", "10.244.0.0/16", "10.244.0.0/24", "10.96.0.0/16")


def versions(objects: list[Object]) -> set[tuple[str, str]]:
    return {(each["metadata"]["name"], each["metadata"]["resourceVersion"]) for each in objects}


class World:
    """The network, the API and a proxy between them."""

    def __init__(
        self, network: Network, cluster: ApiCluster, informers: Informers, proxy: Proxy, applier: LibraryApplier
    ) -> None:
        self.network, self.cluster, self.proxy, self.applier = network, cluster, proxy, applier
        self.informers = informers
        self.node, self.pods, self.outsider = network.node, network.pods, network.outsider

    async def put(self, *objects: Object) -> None:
        for obj in objects:
            kind = SERVICES if obj["kind"] == "Service" else ENDPOINTSLICES
            made = await self.cluster.client.create(kind, {**obj, "status": {}} if kind is SERVICES else obj, "default")
            if obj.get("status"):
                await self.cluster.client.update(kind, {**made, "status": obj["status"]}, subresource="status")
        await self.effective()

    async def effective(self) -> None:
        """What the API has is in the kernel."""
        async with asyncio.timeout(5):
            for resource in (SERVICES, ENDPOINTSLICES):
                wanted = versions((await self.cluster.client.list(resource)).items)
                informer = self.informers.informer(resource)
                changed = asyncio.Event()
                informer.add_handler(lambda old, new, changed=changed: changed.set())
                while versions(informer.list()) != wanted:
                    changed.clear()
                    await changed.wait()
            await self.proxy.settled()

    async def ask(
        self, where: Any, address: str, port: int, kind: int = socket.SOCK_STREAM, timeout: float = 3
    ) -> tuple[str, str]:
        return await asyncio.to_thread(ask, where, address, port, kind, timeout)

    async def refused(self, where: Any, address: str, port: int) -> bool:
        try:
            await self.ask(where, address, port)
        except ConnectionRefusedError:
            return True
        return False

    async def names(self, where: Any, address: str, port: int, count: int = 24) -> Counter[str]:
        return Counter([(await self.ask(where, address, port))[0] for _ in range(count)])


@pytest.fixture
async def world(network: Network) -> AsyncIterator[World]:
    for number, pod in enumerate(network.pods):
        network.serve(pod, f"pod{number}", 8080)
        network.serve(pod, f"pod{number}", 5353, socket.SOCK_DGRAM)
    network.serve(network.outsider, "outside", 8000)
    ip("-n", network.node.name, "route", "add", SETTINGS.service_cidr, "dev", "lo", "src", NODE_IP)
    clock = SystemClock()
    applier = network.node.run(LibraryApplier)
    async with ApiCluster(clock=clock) as cluster, Tasks() as tasks:
        informers = Informers(cluster.client, clock=clock, tasks=tasks)
        tracker = network.node.run(Conntrack)
        proxy = Proxy(informers, clock, applier, SETTINGS, Where("here"), tracker)
        tasks.spawn(proxy.run(), "proxy")
        await proxy.settled()
        yield World(network, cluster, informers, proxy, applier)
    applier.run(nftables.removal(SETTINGS.table))
    applier.close()
    tracker.close()


BOTH = (endpoint(PODS[0]), endpoint(PODS[1]))


async def test_a_cluster_ip_balances_from_the_node_a_pod_and_outside(world: World) -> None:
    await world.put(service(), slice_of("web", *BOTH))
    for where in (world.node, world.pods[0], world.outsider):
        assert set(await world.names(where, "10.96.0.7", 80)) == {"pod0", "pod1"}
    for _ in range(8):
        name, peer = await world.ask(world.pods[0], "10.96.0.7", 80)
        assert peer == (PODS[0] if name == "pod1" else "169.254.1.1") or peer == NODE_IP


async def test_endpoints_come_and_go(world: World) -> None:
    await world.put(service(), slice_of("web", BOTH[0]))
    assert set(await world.names(world.node, "10.96.0.7", 80, 6)) == {"pod0"}
    client = world.cluster.client
    made = await client.get(ENDPOINTSLICES, "web-a", "default")
    await client.update(ENDPOINTSLICES, {**made, "endpoints": [BOTH[1]]})
    await world.effective()
    assert set(await world.names(world.node, "10.96.0.7", 80, 6)) == {"pod1"}
    made = await client.get(ENDPOINTSLICES, "web-a", "default")
    await client.update(ENDPOINTSLICES, {**made, "endpoints": []})
    await world.effective()
    for where in (world.node, world.pods[0], world.outsider):
        assert await world.refused(where, "10.96.0.7", 80)
    await client.delete(SERVICES, "web", "default")
    await world.effective()
    with pytest.raises(TimeoutError):
        await world.ask(world.pods[0], "10.96.0.7", 80, timeout=0.2)
    listing = world.applier.run(f"list table ip {SETTINGS.table}")
    assert "10.96.0.7" not in listing


async def test_a_port_that_a_service_lacks_is_refused(world: World) -> None:
    await world.put(service(), slice_of("web", *BOTH))
    assert await world.refused(world.pods[0], "10.96.0.7", 81)
    assert await world.refused(world.node, "10.96.0.7", 81)


async def test_node_ports_on_every_address_also_loopback(world: World) -> None:
    await world.put(service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}]), slice_of("web", *BOTH))
    for where, address in (
        (world.outsider, UPLINK),
        (world.node, "127.0.0.1"),
        (world.node, UPLINK),
        (world.node, NODE_IP),
        (world.pods[1], UPLINK),
    ):
        assert set(await world.names(where, address, 30080)) == {"pod0", "pod1"}


async def test_external_policy_local_shows_the_client(world: World) -> None:
    local = service(type="NodePort", externalTrafficPolicy="Local", ports=[{"port": 80, "nodePort": 30080}])
    await world.put(local, slice_of("web", BOTH[0], endpoint(PODS[1], node="there")))
    for _ in range(6):
        assert await world.ask(world.outsider, UPLINK, 30080) == ("pod0", OUTSIDER)
    assert set(await world.names(world.pods[0], UPLINK, 30080)) == {"pod0", "pod1"}
    made = await world.cluster.client.get(ENDPOINTSLICES, "web-a", "default")
    await world.cluster.client.update(ENDPOINTSLICES, {**made, "endpoints": [endpoint(PODS[1], node="there")]})
    await world.effective()
    with pytest.raises(TimeoutError):
        await world.ask(world.outsider, UPLINK, 30080, timeout=0.2)
    assert set(await world.names(world.pods[0], UPLINK, 30080, 4)) == {"pod1"}


async def test_external_addresses_and_source_ranges(world: World) -> None:
    svc = service(
        type="LoadBalancer",
        externalIPs=["198.51.100.9"],
        loadBalancerSourceRanges=["192.0.2.0/24"],
        ports=[{"port": 80, "nodePort": 30080}],
    )
    svc["status"] = {"loadBalancer": {"ingress": [{"ip": "198.51.100.8", "ipMode": "VIP"}]}}
    await world.put(svc, slice_of("web", *BOTH))
    assert set(await world.names(world.outsider, "198.51.100.9", 80)) == {"pod0", "pod1"}
    assert set(await world.names(world.outsider, "198.51.100.8", 80)) == {"pod0", "pod1"}
    with pytest.raises(TimeoutError):
        await world.ask(world.pods[0], "198.51.100.8", 80, timeout=0.2)


async def test_udp(world: World) -> None:
    svc = service(ports=[{"port": 53, "protocol": "UDP"}])
    await world.put(svc, slice_of("web", *BOTH, port=5353, protocol="UDP"))
    got = {(await world.ask(world.pods[0], "10.96.0.7", 53, socket.SOCK_DGRAM))[0] for _ in range(24)}
    assert got == {"pod0", "pod1"}


async def test_a_udp_client_that_keeps_its_port_follows_the_endpoints(world: World) -> None:
    ports = [{"port": 53, "protocol": "UDP", "nodePort": 30053}]
    await world.put(service(type="NodePort", ports=ports), slice_of("web", BOTH[0], port=5353, protocol="UDP"))
    for where, address, port in ((world.pods[1], "10.96.0.7", 53), (world.outsider, UPLINK, 30053)):
        with where.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
            client.settimeout(3)
            client.connect((address, port))

            async def asked(client: socket.socket = client) -> str:
                client.send(b"?")
                return (await asyncio.to_thread(client.recv, 100)).decode().partition(" ")[0]

            for number in (0, 1, 0):
                made = await world.cluster.client.get(ENDPOINTSLICES, "web-a", "default")
                await world.cluster.client.update(ENDPOINTSLICES, {**made, "endpoints": [BOTH[number]]})
                await world.effective()
                assert await asked() == f"pod{number}"


async def test_session_affinity_sticks_until_the_endpoint_goes(world: World) -> None:
    svc = service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 100}})
    await world.put(svc, slice_of("web", *BOTH))
    for where in (world.pods[0], world.node):
        assert len(await world.names(where, "10.96.0.7", 80)) == 1
    chosen = (await world.ask(world.node, "10.96.0.7", 80))[0]
    other = BOTH[1 - int(chosen[-1])]
    made = await world.cluster.client.get(ENDPOINTSLICES, "web-a", "default")
    made = await world.cluster.client.update(ENDPOINTSLICES, {**made, "endpoints": [other]})
    await world.effective()
    assert chosen not in await world.names(world.node, "10.96.0.7", 80, 6)
    await world.cluster.client.update(ENDPOINTSLICES, {**made, "endpoints": list(BOTH)})
    await world.effective()
    assert chosen not in await world.names(world.node, "10.96.0.7", 80, 6)
    await world.cluster.client.delete(SERVICES, "web", "default")
    await world.effective()
    assert "aff_" not in world.applier.run(f"list table ip {SETTINGS.table}")


async def test_host_ports(world: World) -> None:
    world.proxy.set_host_ports([HostPort("", "TCP", 8081, PODS[0], 8080)])
    await world.proxy.settled()
    assert await world.ask(world.outsider, UPLINK, 8081) == ("pod0", OUTSIDER)
    assert (await world.ask(world.node, "127.0.0.1", 8081))[0] == "pod0"
    assert (await world.ask(world.pods[0], UPLINK, 8081))[0] == "pod0"
    world.proxy.set_host_ports([])
    await world.proxy.settled()
    assert await world.refused(world.outsider, UPLINK, 8081)


async def test_pods_leave_under_the_nodes_address(world: World) -> None:
    assert await world.ask(world.pods[0], OUTSIDER, 8000) == ("outside", UPLINK)
    assert await world.ask(world.pods[0], PODS[1], 8080) == ("pod1", PODS[0])


async def test_a_table_that_somebody_deleted_comes_back_with_the_next_change(world: World) -> None:
    await world.put(service(), slice_of("web", *BOTH))
    world.applier.run(nftables.removal(SETTINGS.table))
    await world.put(service("other", "10.96.0.8"), slice_of("other", *BOTH))
    for address in ("10.96.0.7", "10.96.0.8"):
        assert set(await world.names(world.node, address, 80)) == {"pod0", "pod1"}


async def test_the_nft_program_does_the_same(network: Network) -> None:
    applier = ProgramApplier("ip", "netns", "exec", network.node.name, "nft")
    await applier.apply(nftables.whole(SETTINGS, {}, nftables.Chains({}, {})))
    await applier.apply(nftables.removal(SETTINGS.table))
    await applier.apply(nftables.removal(SETTINGS.table))
    with pytest.raises(NftablesError, match="syntax error"):
        await applier.apply("table ip {")


def test_a_refused_text_says_why_and_changes_nothing(network: Network) -> None:
    applier = network.node.run(LibraryApplier)
    with pytest.raises(NftablesError, match="No such file or directory"):
        applier.run("table ip kept { }\nadd element ip nowhere svc { 1.2.3.4 }")
    assert "kept" not in applier.run("list tables")
    applier.close()
