from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steersman.api.resource import NODES, SERVICES, Object
from steersman.controllers.servicelb import FINALIZER, Local, NoRoom, usable, wants

from .conftest import World
from .objects import service


def node(name: str, address: str, ready: str = "True", **labels: str) -> Object:
    status = {
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{"type": "Ready", "status": ready}],
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}


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
    assert usable(node("a", "10.0.0.1"))
    assert not usable(node("a", "10.0.0.1", "False"))
    assert not usable(node("a", "10.0.0.1", **{"node.kubernetes.io/exclude-from-external-load-balancers": ""}))
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
