from __future__ import annotations

from typing import Any

from steersman.api.resource import ENDPOINTS, ENDPOINTSLICES, NODES, PODS, SERVICES, Object
from steersman.client.backends import find_port
from steersman.client.slices import Group, plan
from steersman.controllers.endpoints import subsets_of

from .conftest import World
from .objects import pod, service


def a_pod(
    name: str, ip: str = "10.0.0.1", *, ready: bool = True, ports: list[Object] | None = None, **meta: Any
) -> Object:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}, **meta},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": ports or []}]},
        "status": {"podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions},
    }


def a_service(*ports: Object, **spec: Any) -> Object:
    return {
        "metadata": {"name": "web", "namespace": "default", "uid": "s"},
        "spec": {"clusterIP": "10.96.0.5", "ipFamilies": ["IPv4"], "ports": list(ports), **spec},
    }


def test_a_named_port_is_found_where_name_and_protocol_agree() -> None:
    found = a_pod(
        "a", ports=[{"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"name": "dns", "containerPort": 54}]
    )
    assert find_port(found, {"port": 1, "targetPort": "dns"}) == 54
    assert find_port(found, {"port": 1, "targetPort": "dns", "protocol": "UDP"}) == 53
    assert find_port(found, {"port": 1, "targetPort": "missing"}) is None
    assert find_port(found, {"port": 80, "targetPort": 8080}) == 8080
    assert find_port(found, {"port": 80}) == 80


def test_subsets_put_addresses_with_the_same_ports_together() -> None:
    port = {"name": "http", "port": 80, "targetPort": "http"}
    pods = [
        a_pod("a", "10.0.0.2", ports=[{"name": "http", "containerPort": 8080}]),
        a_pod("b", "10.0.0.1", ports=[{"name": "http", "containerPort": 8080}]),
        a_pod("c", "10.0.0.3", ready=False, ports=[{"name": "http", "containerPort": 8080}]),
        a_pod("d", "10.0.0.4", ports=[{"name": "http", "containerPort": 9090}]),
        a_pod("e", "10.0.0.5"),
    ]
    subsets, truncated = subsets_of(a_service(port), pods)
    assert not truncated
    shape = [
        (
            [each["ip"] for each in subset.get("addresses", [])],
            [each["ip"] for each in subset.get("notReadyAddresses", [])],
            subset["ports"],
        )
        for subset in subsets
    ]
    assert shape == [
        (["10.0.0.1", "10.0.0.2"], ["10.0.0.3"], [{"name": "http", "port": 8080, "protocol": "TCP"}]),
        (["10.0.0.4"], [], [{"name": "http", "port": 9090, "protocol": "TCP"}]),
    ]


def test_a_thousand_addresses_are_enough() -> None:
    pods = [a_pod(str(number), f"10.0.{number // 250}.{number % 250}", ready=number != 7) for number in range(1200)]
    subsets, truncated = subsets_of(a_service({"port": 80}), pods)
    assert truncated
    assert len(subsets[0]["addresses"]) == 1000
    assert "notReadyAddresses" not in subsets[0]


def endpoint(name: str, ready: bool = True) -> Object:
    return {"addresses": [f"10.0.0.{name}"], "conditions": {"ready": ready}, "targetRef": {"uid": name}}


def a_slice(name: str, *names: str) -> Object:
    return {
        "metadata": {"name": name, "labels": {}},
        "addressType": "IPv4",
        "ports": [{"port": 80}],
        "endpoints": [endpoint(each) for each in names],
    }


def make(group: Group) -> Object:
    return {"metadata": {"labels": {}}, "addressType": group.address_type, "ports": group.ports, "endpoints": []}


def names_of(slices: list[Object]) -> list[list[str]]:
    return [[each["targetRef"]["uid"] for each in slice_["endpoints"]] for slice_ in slices]


def test_slices_change_as_little_as_possible() -> None:
    group = Group("IPv4", [{"port": 80}], [endpoint(name) for name in "1234"])
    changes = plan([group], [], 3, make)
    assert names_of(changes.create) == [["1", "2", "3"], ["4"]]
    there = [a_slice("x", "1", "2", "3"), a_slice("y", "4")]
    assert plan([group], there, 3, make) == type(changes)()
    grown = Group("IPv4", [{"port": 80}], [endpoint(name) for name in "12345"])
    changes = plan([grown], there, 3, make)
    assert (names_of(changes.update), changes.create) == ([["4", "5"]], [])
    replaced = Group("IPv4", [{"port": 80}], [endpoint(name) for name in "12467"])
    changes = plan([replaced], there, 3, make)
    assert (names_of(changes.update), names_of(changes.create)) == ([["1", "2", "6"], ["4", "7"]], [])
    less = Group("IPv4", [{"port": 80}], [endpoint(name) for name in "123"])
    changes = plan([less], there, 3, make)
    assert ([each["metadata"]["name"] for each in changes.delete], changes.update) == (["y"], [])
    changed = Group("IPv4", [{"port": 80}], [endpoint("1", ready=False), *map(endpoint, "234")])
    assert names_of(plan([changed], there, 3, make).update) == [["1", "2", "3"]]


def test_a_service_without_endpoints_keeps_one_empty_slice() -> None:
    none = Group("IPv4", [])
    assert names_of(plan([none], [], 3, make).create) == [[]]
    empty = {**a_slice("x"), "ports": []}
    assert plan([none], [empty], 3, make).create == []
    changes = plan([none], [a_slice("x", "1"), a_slice("y", "2")], 3, make)
    assert names_of(changes.update) == [[]]
    assert len(changes.delete) == 1


async def slices(world: World) -> list[Object]:
    return await world.list(ENDPOINTSLICES, labels="kubernetes.io/service-name=web")


async def test_pods_come_and_go_behind_a_service(world: World) -> None:
    world.start("endpoints-controller", "endpointslice-controller")
    await world.client.create(NODES, {"metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "z"}}})
    await world.client.create(SERVICES, service(), "default")
    await world.settle()
    [empty] = await slices(world)
    assert empty["endpoints"] in ([], None)
    assert empty["metadata"]["ownerReferences"][0]["kind"] == "Service"
    for name in ("a", "b"):
        await world.make_ready(await world.client.create(PODS, pod(name), "default"))
    await world.client.create(PODS, pod("unrelated", {"app": "other"}), "default")
    await world.settle()
    [one] = await slices(world)
    assert [each["targetRef"]["name"] for each in one["endpoints"]] == ["a", "b"]
    assert one["endpoints"][0]["conditions"] == {"ready": True, "serving": True, "terminating": False}
    assert (one["endpoints"][0]["zone"], one["endpoints"][0]["nodeName"]) == ("z", "node-1")
    assert one["ports"] == [{"name": "", "protocol": "TCP", "port": 80}]
    assert one["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io"
    found = await world.get(ENDPOINTS, "web")
    assert {each["targetRef"]["name"] for each in found["subsets"][0]["addresses"]} == {"a", "b"}
    await world.client.delete(PODS, "a", "default", grace_seconds=30)
    await world.settle()
    [one] = await slices(world)
    by_name = {each["targetRef"]["name"]: each["conditions"] for each in one["endpoints"]}
    assert by_name["a"] == {"ready": False, "serving": True, "terminating": True}
    found = await world.get(ENDPOINTS, "web")
    assert [each["targetRef"]["name"] for each in found["subsets"][0]["addresses"]] == ["b"]
    revision = world.cluster.store.revision
    await world.settle(3600)
    assert world.cluster.store.revision == revision
    await world.client.delete(ENDPOINTSLICES, one["metadata"]["name"], "default")
    await world.settle()
    assert len(await slices(world)) == 1, "a deleted slice is made again"
    await world.client.delete(SERVICES, "web", "default")
    await world.settle()
    assert await world.names(ENDPOINTS) == []


async def test_labels_follow_the_service(world: World) -> None:
    world.start("endpoints-controller", "endpointslice-controller")
    await world.client.create(SERVICES, service(clusterIP="None", clusterIPs=["None"]), "default")
    await world.settle()
    await world.client.patch(SERVICES, "web", "default", {"metadata": {"labels": {"team": "x"}}})
    await world.settle()
    [one] = await slices(world)
    for labels in (one["metadata"]["labels"], (await world.get(ENDPOINTS, "web"))["metadata"]["labels"]):
        assert labels["team"] == "x"
        assert labels["service.kubernetes.io/headless"] == ""


async def test_endpoints_of_a_service_without_selector_are_mirrored(world: World) -> None:
    world.start("endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller")
    await world.client.create(SERVICES, service(selector={}), "default")
    body = {
        "metadata": {"name": "web", "labels": {"mine": "yes"}},
        "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"name": "http", "port": 8080}]}],
    }
    await world.client.create(ENDPOINTS, body, "default")
    await world.settle()
    [one] = await slices(world)
    assert one["endpoints"] == [{"addresses": ["192.0.2.7"], "conditions": {"ready": True}}]
    assert one["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]
    assert one["metadata"]["labels"]["mine"] == "yes"
    change = {"subsets": [{"addresses": [{"ip": "192.0.2.8"}], "ports": [{"name": "http", "port": 8080}]}]}
    await world.client.patch(ENDPOINTS, "web", "default", change)
    await world.settle()
    [same] = await slices(world)
    assert same["metadata"]["name"] == one["metadata"]["name"]
    assert same["endpoints"][0]["addresses"] == ["192.0.2.8"]
    await world.client.delete(ENDPOINTS, "web", "default")
    await world.settle()
    assert await slices(world) == []


async def test_addresses_that_are_too_many_to_mirror_are_told_of(world: World) -> None:
    world.start("endpointslice-mirroring-controller")
    body = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    await world.client.create(SERVICES, body, "default")
    addresses = [{"ip": f"10.1.{number // 250}.{number % 250 + 1}"} for number in range(1003)]
    subsets = [{"addresses": addresses, "ports": [{"port": 80}]}]
    await world.client.create(ENDPOINTS, {"metadata": {"name": "web"}, "subsets": subsets}, "default")
    await world.settle(5)
    assert sum(len(each["endpoints"]) for each in await slices(world)) == 1000
    text = "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 3 addresses were skipped"
    assert ("TooManyAddressesToMirror", text) in await world.events()
