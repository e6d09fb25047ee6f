"""NetworkPolicies judged by the kernel: real packets between namespaces, with the real API server in process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from steersman.api.resource import NAMESPACES, PODS, Object
from steersman.client.informer import Informers
from steersman.lib.clock import SystemClock
from steersman.lib.tasks import Tasks
from steersman.proxy import policy
from steersman.proxy.apply import LibraryApplier
from steersman.proxy.policyagent import NETWORKPOLICIES, PolicyAgent
from steersman.testing.cluster import ApiCluster
from tests.proxy.conftest import NODE_IP, OUTSIDER, Network, ask
from tests.proxy.conftest import PODS as ADDRESSES

pytestmark = pytest.mark.node

TABLE = "steersman-test-policy"
DENY: Object = {"podSelector": {"matchLabels": {"pod": "1"}}, "policyTypes": ["Ingress"]}


class World:
    """Two pods of a node, an outsider, the API, and an agent between them."""

    def __init__(self, network: Network, cluster: ApiCluster, agent: PolicyAgent, informers: Informers) -> None:
        self.network, self.cluster, self.agent, self.informers = network, cluster, agent, informers
        self.one, self.other, self.outsider, self.node = *network.pods, network.outsider, network.node

    async def policy(self, spec: Object, name: str = "p") -> None:
        made = await self.cluster.client.create(NETWORKPOLICIES, {"metadata": {"name": name}, "spec": spec}, "default")
        await self.effective(made)

    async def effective(self, obj: Object) -> None:
        """The agent has heard of an object, and the kernel of what follows."""
        resource = {"NetworkPolicy": NETWORKPOLICIES, "Pod": PODS, "Namespace": NAMESPACES}[obj["kind"]]
        meta, informer, changed = obj["metadata"], self.informers.informer(resource), asyncio.Event()
        informer.add_handler(lambda old, new: changed.set())
        async with asyncio.timeout(5):
            while True:
                changed.clear()
                found = informer.get(meta.get("namespace", ""), meta["name"])
                if found and found["metadata"]["resourceVersion"] == meta["resourceVersion"]:
                    break
                await changed.wait()
            await self.agent.settled()

    async def reaches(self, where: Any, address: str, port: int = 8080, kind: int = socket.SOCK_STREAM) -> bool:
        try:
            await asyncio.to_thread(ask, where, address, port, kind, 0.4)
        except TimeoutError:
            return False
        return True


@pytest.fixture
async def world(network: Network) -> AsyncIterator[World]:
    for number, pod in enumerate(network.pods):
        network.serve(pod, f"pod{number}", 8080)
        network.serve(pod, f"pod{number}", 9090)
        network.serve(pod, f"pod{number}", 5353, socket.SOCK_DGRAM)
    network.serve(network.outsider, "outside", 8000)
    clock = SystemClock()
    applier = network.node.run(LibraryApplier)
    async with ApiCluster(clock=clock) as cluster, Tasks() as tasks:
        for number, address in enumerate(ADDRESSES):
            ports = [{"name": "web", "containerPort": 8080}]
            spec = {"nodeName": "here", "containers": [{"name": "main", "image": "x", "ports": ports}]}
            meta = {"name": f"pod{number}", "labels": {"pod": str(number)}}
            pod = await cluster.client.create(PODS, {"metadata": meta, "spec": spec}, "default")
            status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
            await cluster.client.update(PODS, {**pod, "status": status}, subresource="status")
        informers = Informers(cluster.client, clock=clock, tasks=tasks)
        agent = PolicyAgent(informers, clock, table=TABLE, node_name="here", resolvers=[NODE_IP], applier=applier)
        tasks.spawn(agent.run(), "policies")
        await agent.settled()
        yield World(network, cluster, agent, informers)
    applier.run(policy.removal(TABLE))
    applier.close()


async def test_isolation_is_one_way_and_ends_with_the_policy(world: World) -> None:
    assert await world.reaches(world.one, ADDRESSES[1])
    await world.policy(DENY)
    assert not await world.reaches(world.one, ADDRESSES[1])
    assert not await world.reaches(world.outsider, ADDRESSES[1])
    assert not await world.reaches(world.one, ADDRESSES[1], 5353, socket.SOCK_DGRAM)
    assert await world.reaches(world.other, ADDRESSES[0]), "answers come back in"
    assert await world.reaches(world.node, ADDRESSES[1]), "the node may always ask"
    await world.cluster.client.delete(NETWORKPOLICIES, "p", "default")
    changed = asyncio.Event()
    world.informers.informer(NETWORKPOLICIES).add_handler(lambda old, new: changed.set() if new is None else None)
    if world.informers.informer(NETWORKPOLICIES).list():
        await asyncio.wait_for(changed.wait(), 5)
    await world.agent.settled()
    assert await world.reaches(world.one, ADDRESSES[1])


async def test_only_the_allowed_come_in_and_only_where(world: World) -> None:
    peers = [{"podSelector": {"matchLabels": {"pod": "0"}}}]
    await world.policy(
        {**DENY, "ingress": [{"from": peers, "ports": [{"port": "web"}, {"port": 5353, "protocol": "UDP"}]}]}
    )
    assert await world.reaches(world.one, ADDRESSES[1])
    assert await world.reaches(world.one, ADDRESSES[1], 5353, socket.SOCK_DGRAM)
    assert not await world.reaches(world.one, ADDRESSES[1], 9090)
    assert not await world.reaches(world.outsider, ADDRESSES[1])


async def test_blocks_of_addresses(world: World) -> None:
    block = {"cidr": "192.0.2.0/24", "except": [f"{OUTSIDER}/32"]}
    await world.policy({**DENY, "ingress": [{"from": [{"ipBlock": block}]}]})
    assert not await world.reaches(world.outsider, ADDRESSES[1])
    await world.policy({**DENY, "ingress": [{"from": [{"ipBlock": {"cidr": f"{OUTSIDER}/32"}}]}]}, "more")
    assert await world.reaches(world.outsider, ADDRESSES[1])
    assert not await world.reaches(world.one, ADDRESSES[1])


async def test_namespaces_are_selected_by_their_labels_as_they_change(world: World) -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]
    await world.policy({**DENY, "ingress": [{"from": peers}]})
    assert not await world.reaches(world.one, ADDRESSES[1])
    labels = {"metadata": {"labels": {"team": "a"}}}
    await world.effective(await world.cluster.client.patch(NAMESPACES, "default", "", labels))
    assert await world.reaches(world.one, ADDRESSES[1])


async def test_what_leaves(world: World) -> None:
    egress = [{"to": [{"podSelector": {}}], "ports": [{"port": 8080}]}]
    await world.policy({"podSelector": {"matchLabels": {"pod": "0"}}, "policyTypes": ["Egress"], "egress": egress})
    assert await world.reaches(world.one, ADDRESSES[1])
    assert not await world.reaches(world.one, ADDRESSES[1], 9090)
    assert not await world.reaches(world.one, OUTSIDER, 8000)
    assert await world.reaches(world.other, ADDRESSES[0], 9090)
    assert await world.reaches(world.other, OUTSIDER, 8000)


async def test_a_pod_that_comes_later_is_a_peer(world: World) -> None:
    await world.policy({**DENY, "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "client"}}}]}]})
    assert not await world.reaches(world.one, ADDRESSES[1])
    labels = {"metadata": {"labels": {"role": "client"}}}
    await world.effective(await world.cluster.client.patch(PODS, "pod0", "default", labels))
    assert await world.reaches(world.one, ADDRESSES[1])


async def test_a_pod_is_judged_before_it_starts(world: World) -> None:
    client = world.cluster.client
    pod = await client.get(PODS, "pod1", "default")
    fresh = await client.update(PODS, {**pod, "status": {"phase": "Pending"}}, subresource="status")
    await world.effective(fresh)
    await world.policy(DENY)
    assert await world.reaches(world.one, ADDRESSES[1]), "nobody has said whose address that is"
    await world.agent.admit(fresh, [ADDRESSES[1]])
    assert not await world.reaches(world.one, ADDRESSES[1])
    await world.effective(await client.update(PODS, pod | {"metadata": fresh["metadata"]}, subresource="status"))
    assert not await world.reaches(world.one, ADDRESSES[1])
