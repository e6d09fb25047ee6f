from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from steersman.api.resource import NODES, SERVICES, Object
from steersman.client.cloud import Cloud
from steersman.controllers.servicelb import FINALIZER, Local, NoRoom, usable, wants

from .conftest import World
from .objects import service


def node(name: str, address: str, ready: str = "True", **labels: str) -> Object:
    status = {
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{"type": "Ready", "status": ready}],
    }
    meta = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {}, "status": status}


def balanced(name: str = "web", port: int = 80, ip: str = "", **spec: Any) -> Object:
    made = service(name, type="LoadBalancer", ports=[{"port": port}], **spec)
    made["status"] = {"loadBalancer": {"ingress": [{"ip": ip}]}} if ip else {}
    return made


async def address(world: World, name: str) -> str:
    found = (await world.get(SERVICES, name))["status"]["loadBalancer"].get("ingress") or [{"ip": ""}]
    return str(found[0]["ip"])


@pytest.mark.parametrize(
    ("wanted", "others", "expected"),
    [
        (balanced(), [], "10.0.0.1"),
        (balanced(), [balanced("a", 80, "10.0.0.1")], "10.0.0.2"),
        (balanced(), [balanced("a", 81, "10.0.0.1")], "10.0.0.1"),
        (balanced(loadBalancerIP="10.0.0.2"), [], "10.0.0.2"),
        (balanced(loadBalancerIP="10.0.0.3"), [], None),
        (balanced(port=6443), [], None),
        (balanced(), [balanced("a", 80, "10.0.0.1"), balanced("b", 80, "10.0.0.2")], None),
    ],
)
def test_each_port_of_an_address_is_for_one_service(wanted: Object, others: list[Object], expected: str | None) -> None:
    nodes = [node("b", "10.0.0.2"), node("a", "10.0.0.1"), node("c", "fd00::1")]
    work = Local([6443]).ensure(wanted, nodes, others)
    if expected is None:
        with pytest.raises(NoRoom, match="no node has an address"):
            asyncio.run(work)
    else:
        assert asyncio.run(work) == [{"ip": expected, "ipMode": "VIP"}]


def test_who_takes_part() -> None:
    excluded = "node.kubernetes.io/exclude-from-external-load-balancers"
    assert usable(node("a", "10.0.0.1"))
    assert usable(node("a", "10.0.0.1", "False")), "a node that is not ready may come back"
    assert usable(node("a", "10.0.0.1", **{excluded: "false"}))
    assert not usable(node("a", "10.0.0.1", **{excluded: ""}))
    assert not usable(node("a", "10.0.0.1") | {"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler"}]}})
    assert wants(balanced())
    assert not wants(balanced(loadBalancerClass="example.com/other"))
    assert not wants(service())


async def test_a_service_gets_an_address_and_gives_it_back(world: World) -> None:
    world.start("service-lb-controller")
    await world.client.create(SERVICES, balanced(), "default")
    await world.client.create(SERVICES, balanced("other"), "default")
    await world.settle()
    assert await address(world, "web") == ""
    assert ("UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer") in await world.events()

    made = node("node-1", "10.0.0.1")
    await world.set_status(NODES, await world.client.create(NODES, made), **made["status"])
    await world.settle()
    assert sorted([await address(world, "web"), await address(world, "other")]) == ["", "10.0.0.1"]
    first, second = ("web", "other") if await address(world, "web") else ("other", "web")
    assert FINALIZER in (await world.get(SERVICES, first))["metadata"]["finalizers"]
    text = "Error syncing load balancer: failed to ensure load balancer: no node has an address with 80/TCP free"
    assert ("SyncLoadBalancerFailed", text) in await world.events()

    await world.client.delete(SERVICES, first, "default")
    await world.settle()
    assert await world.names(SERVICES) == [second]
    assert await address(world, second) == "10.0.0.1"
    await world.client.patch(SERVICES, second, "default", {"spec": {"type": "ClusterIP"}})
    await world.settle()
    found = await world.get(SERVICES, second)
    assert not found["metadata"].get("finalizers") and not found["status"]["loadBalancer"]
    assert ("DeletedLoadBalancer", "Deleted load balancer") in await world.events()


class Played:
    """A provider that keeps what it was asked, and fails while `broken` says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.times: list[float] = []
        self.broken = ""

    async def ensure(self, service: Object, nodes: Sequence[Object], others: Sequence[Object]) -> list[Object]:
        self.calls.append(("ensure", [each["metadata"]["name"] for each in nodes]))
        self.times.append(asyncio.get_running_loop().time())
        if self.broken:
            raise OSError(self.broken)
        return [{"ip": "192.0.2.7", "ipMode": "VIP"}]

    async def delete(self, service: Object) -> None:
        self.calls.append(("delete", []))
        if self.broken:
            raise OSError(self.broken)


async def join(world: World, name: str, ip: str) -> None:
    made = node(name, ip)
    await world.set_status(NODES, await world.client.create(NODES, made), **made["status"])


async def test_balancers_hear_of_nodes_and_only_of_those(world: World) -> None:
    provider = Played()
    world.start("service-lb-controller", cloud=Cloud(balancers=provider))
    await join(world, "a", "10.0.0.1")
    await world.settle()
    await world.client.create(SERVICES, balanced(), "default")
    await world.settle()
    await join(world, "b", "10.0.0.2")
    await world.settle()
    assert provider.calls == [("ensure", ["a"]), ("ensure", ["a", "b"])]
    assert ("UpdatedLoadBalancer", "Updated load balancer with new hosts") in await world.events()
    heard = len(provider.calls)
    found = await world.get(NODES, "a")
    await world.set_status(NODES, found, conditions=[{"type": "Ready", "status": "False"}])
    await world.client.patch(SERVICES, "web", "default", {"metadata": {"labels": {"x": "y"}}})
    await world.settle()
    assert len(provider.calls) == heard, "neither a heartbeat nor a label is a balancer's business"
    provider.broken = "out of order"
    await world.client.delete(NODES, "b")
    await world.settle(1)
    limited = "[node names limited, total number of nodes: 1]"
    text = f"Error updating load balancer with new hosts [a] {limited}, error: out of order"
    assert ("UpdateLoadBalancerFailed", text) in await world.events()
    provider.broken = ""
    await world.client.delete(NODES, "a")
    await world.settle(20)
    assert ("UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer") in await world.events()


async def test_what_fails_is_tried_again_ever_later(world: World) -> None:
    provider = Played()
    provider.broken = "out of order"
    world.start("service-lb-controller", cloud=Cloud(balancers=provider))
    await join(world, "a", "10.0.0.1")
    await world.client.create(SERVICES, balanced(), "default")
    await world.settle(1300)
    waits = [round(after - before) for before, after in pairwise(provider.times)]
    assert waits[:8] == [5, 10, 20, 40, 80, 160, 300, 300]
    text = "Error syncing load balancer: failed to ensure load balancer: out of order"
    assert ("SyncLoadBalancerFailed", text) in await world.events()
    provider.broken = ""
    await world.client.patch(SERVICES, "web", "default", {"spec": {"type": "ClusterIP"}})
    await world.settle(300)
    assert not (await world.get(SERVICES, "web"))["metadata"].get("finalizers")


async def test_a_change_of_the_service_is_a_change_of_its_balancer(world: World) -> None:
    provider = Played()
    world.start("service-lb-controller", cloud=Cloud(balancers=provider))
    await join(world, "a", "10.0.0.1")
    await world.client.create(SERVICES, balanced(), "default")
    await world.settle()
    await world.client.patch(SERVICES, "web", "default", {"spec": {"sessionAffinity": "ClientIP"}})
    await world.settle()
    assert len(provider.calls) == 2
    provider.broken = "out of order"
    await world.client.patch(SERVICES, "web", "default", {"metadata": {"finalizers": None}})
    await world.client.delete(SERVICES, "web", "default")
    await world.settle(1)
    assert ("DeleteLoadBalancerFailed", "Error deleting load balancer: out of order") in await world.events()
    provider.broken = ""
    await world.settle(20)
    assert ("DeletedLoadBalancer", "Deleted load balancer") in await world.events()


async def test_a_service_moves_when_its_node_is_gone(world: World) -> None:
    world.start("service-lb-controller")
    await join(world, "a", "10.0.0.1")
    await world.client.create(SERVICES, balanced(), "default")
    await world.settle()
    assert await address(world, "web") == "10.0.0.1"
    await join(world, "b", "10.0.0.2")
    await world.settle()
    assert await address(world, "web") == "10.0.0.1"
    await world.client.delete(NODES, "a")
    await world.settle()
    assert await address(world, "web") == "10.0.0.2"
