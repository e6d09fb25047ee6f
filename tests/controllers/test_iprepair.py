"""IPAddresses of Services: there with the Service, gone with it, and put right again by the API server's repair."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import EVENTS, SERVICES, Object
from steersman.apiserver.ipaddresses import CONTROLLER, FAMILY, MANAGED_BY
from steersman.apiserver.ipalloc import Allocator
from steersman.apiserver.iprepair import Repair, node_ports_of
from steersman.controllers.servicecidr import IPADDRESSES, SERVICECIDRS

from .conftest import World
from .objects import service


async def _serve(world: World, *, repair: bool = True, ports: tuple[int, int] = (30000, 30009)) -> None:
    allocator = Allocator(world.cluster.server, IPv4Network("10.96.0.0/26"), ports)
    await allocator.attach()
    if repair:
        world.tasks.spawn(Repair(world.cluster.server, allocator, world.clock).run(), "repair")
        await world.settle(1)


async def _make(world: World, name: str = "web", **spec: Any) -> str:
    made = await world.client.create(SERVICES, service(name, **spec), "default")
    return str(made["spec"].get("clusterIP", ""))


def _address(name: str, parent: str = "web", resource: str = "services", **labels: str) -> Object:
    ref = {"resource": resource, "namespace": "default", "name": parent}
    return {"metadata": {"name": name, "labels": labels}, "spec": {"parentRef": ref}}


OURS = {FAMILY: "IPv4", MANAGED_BY: CONTROLLER}


async def _said(world: World) -> list[tuple[str, str, str]]:
    found = await world.list(EVENTS)
    return [(each["reportingComponent"], each["reason"], each["message"]) for each in found]


async def test_an_address_comes_and_goes_with_its_service(world: World) -> None:
    await _serve(world, repair=False)
    ip = await _make(world)
    (found,) = await world.list(IPADDRESSES)
    assert found["metadata"]["name"] == ip and found["metadata"]["labels"] == OURS
    assert found["spec"] == {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}}
    await world.client.create(IPADDRESSES, _address("10.96.9.9", **OURS))
    like = await world.get(IPADDRESSES, "10.96.9.9")
    assert set(like["metadata"]) == set(found["metadata"])
    fields = [each["metadata"]["managedFields"][0]["fieldsV1"] for each in (found, like)]
    assert fields[0] == fields[1] and found["metadata"]["managedFields"][0]["manager"] == "kube-apiserver"

    await world.client.patch(SERVICES, "web", "default", {"metadata": {"labels": {"a": "b"}}})
    assert await world.names(IPADDRESSES) == sorted([ip, "10.96.9.9"])
    bare: Object = {"spec": {"type": "ExternalName", "externalName": "e.com", "clusterIP": None, "clusterIPs": None}}
    await world.client.patch(SERVICES, "web", "default", bare)
    assert await world.names(IPADDRESSES) == ["10.96.9.9"]
    changed = await world.client.patch(SERVICES, "web", "default", {"spec": {"type": "ClusterIP"}})
    assert await world.names(IPADDRESSES) == sorted([changed["spec"]["clusterIP"], "10.96.9.9"])
    await world.client.delete(SERVICES, "web", "default")
    assert await world.names(IPADDRESSES) == ["10.96.9.9"]
    await _make(world, "headless", clusterIP="None")
    assert await world.names(IPADDRESSES) == ["10.96.9.9"]


async def test_a_write_that_does_not_happen_leaves_none(world: World) -> None:
    await _serve(world, repair=False)
    await _make(world)
    before = await world.names(IPADDRESSES)
    for name in ("web", "Bad_Name"):
        with pytest.raises(ApiError):
            await _make(world, name)
    await world.client.call("POST", f"{SERVICES.path('default')}?dryRun=All", {**service("dry"), "kind": "Service"})
    assert await world.names(IPADDRESSES) == before


async def test_who_takes_an_address_first_has_it(world: World) -> None:
    await _serve(world, repair=False)
    await world.client.create(IPADDRESSES, _address("10.96.0.7", "gate", "gateways"))
    with pytest.raises(ApiError, match=r"failed to allocate IP 10\.96\.0\.7: provided IP is already allocated"):
        await _make(world, clusterIP="10.96.0.7", clusterIPs=["10.96.0.7"])
    given = [await _make(world, f"s{number}") for number in range(61)]
    assert len({*given, "10.96.0.7"}) == 62
    with pytest.raises(ApiError, match="range is full"):
        await _make(world, "more")


async def test_a_new_range_gives_addresses_once_it_is_ready(world: World) -> None:
    await _serve(world, repair=False)
    wanted = {"clusterIP": "10.97.0.7", "clusterIPs": ["10.97.0.7"]}
    body = {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/24"]}}
    made = await world.client.create(SERVICECIDRS, body)
    with pytest.raises(ApiError, match="the provided network does not match the current range"):
        await _make(world, **wanted)
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    await world.set_status(SERVICECIDRS, made, conditions=[ready])
    assert await _make(world, **wanted) == "10.97.0.7"
    for number in range(62):
        await _make(world, f"s{number}")
    assert (await _make(world, "another")).startswith("10.97.0.")


async def test_what_users_delete_or_change_is_put_right(world: World) -> None:
    await _serve(world)
    ip = await _make(world)
    await world.client.delete(IPADDRESSES, ip)
    await world.settle(130)
    assert await world.names(IPADDRESSES) == [ip]
    text = f"Cluster IP [IPv4]: {ip} is not allocated; repairing"
    assert ("ipallocator-repair-controller", "ClusterIPNotAllocated", text) in await _said(world)

    await world.client.patch(IPADDRESSES, ip, "", {"metadata": {"labels": {MANAGED_BY: None}}})
    await world.settle(130)
    assert (await world.get(IPADDRESSES, ip))["metadata"]["labels"] == OURS
    said = len(await _said(world))
    await world.settle(600)
    assert len(await _said(world)) == said, "what is right is left alone"


async def test_addresses_that_nobody_has_go(world: World) -> None:
    await _serve(world)
    ip = await _make(world)
    await world.client.create(IPADDRESSES, _address("10.96.0.50", "gone", **OURS))
    await world.client.create(IPADDRESSES, _address("10.96.0.51", "web", **OURS))
    await world.client.create(IPADDRESSES, _address("10.96.0.52", "web", "pods", **OURS))
    await world.client.create(IPADDRESSES, _address("10.96.0.53", "theirs"))
    await world.settle(130)
    assert await world.names(IPADDRESSES) == sorted([ip, "10.96.0.53"])
    said = {(reason, text) for _, reason, text in await _said(world)}
    assert said == {
        ("IPAddressNotAllocated", "IPAddress: 10.96.0.50 for Service default/gone appears to have leaked: cleaning up"),
        ("IPAddressWrongReference", "IPAddress: 10.96.0.51 for Service default/web has a wrong reference; cleaning up"),
        (
            "IPAddressNotAllocated",
            "IPAddress 10.96.0.52 appears to have been modified, not referencing a Service: cleaning up",
        ),
    }


async def test_a_store_from_before_is_completed_and_complained_of(world: World) -> None:
    """Services written when nobody gave out addresses: what kube-apiserver calls a cluster to be repaired."""
    for name, ip, port in (("a", "10.96.0.9", 30001), ("b", "10.96.0.9", 30001), ("c", "10.200.0.1", 40000)):
        ports = [{"port": 80, "nodePort": port}]
        spec = {"clusterIP": ip, "clusterIPs": [ip], "type": "NodePort", "ports": ports}
        await world.client.create(SERVICES, service(name, **spec), "default")
    await _serve(world)
    (found,) = await world.list(IPADDRESSES)
    assert (found["metadata"]["name"], found["spec"]["parentRef"]["name"]) == ("10.96.0.9", "a")
    ips, ports = "ipallocator-repair-controller", "portallocator-repair-controller"
    recreate = "please recreate service"
    twice = f"was assigned to multiple services; {recreate}"
    outside = f"is not within any configured Service CIDR; {recreate}"
    assert sorted(await _said(world)) == sorted(
        [
            (ips, "ClusterIPNotAllocated", "Cluster IP [IPv4]: 10.96.0.9 is not allocated; repairing"),
            (ips, "ClusterIPAlreadyAllocated", f"Cluster IP [IPv4]:10.96.0.9 {twice}"),
            (ips, "ClusterIPOutOfRange", f"Cluster IP [IPv4]: 10.200.0.1 {outside}"),
            (ports, "PortAlreadyAllocated", f"Port 30001 {twice}"),
            (ports, "PortOutOfRange", f"Port 40000 is not within the port range 30000-30009; {recreate}"),
        ]
    )


@pytest.mark.parametrize(
    ("ports", "health", "expected"),
    [
        ([(80, "TCP", 30001), (80, "UDP", 30001)], 0, [30001]),
        ([(80, "TCP", 30001), (81, "TCP", 30001)], 0, [30001, 30001]),
        ([(80, "TCP", 0)], 0, []),
        ([(80, "TCP", 30001)], 30002, [30001, 30002]),
        ([(80, "TCP", 30001)], 30001, [30001, 30001]),
        ([(80, "UDP", 30001)], 30001, [30001]),
    ],
)
def test_which_node_ports_count(ports: list[tuple[int, str, int]], health: int, expected: list[int]) -> None:
    listed = [{"port": port, "protocol": protocol, "nodePort": number} for port, protocol, number in ports]
    assert node_ports_of({"spec": {"ports": listed, "healthCheckNodePort": health}}) == expected
