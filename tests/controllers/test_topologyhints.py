"""Zone hints of Services that ask for them, and endpoints whose nodes nobody knows."""

from __future__ import annotations

import pytest

from steersman.api.resource import ENDPOINTS, ENDPOINTSLICES, NODES, PODS, SERVICES, Object
from steersman.client.controller import Key
from steersman.controllers.endpointslice.topology import Topology, wants_hints

from .conftest import World
from .objects import pod, service

WEB = Key("default", "web")
AUTO = {"service.kubernetes.io/topology-mode": "Auto"}


def a_node(name: str, zone: str = "", cpu: str = "4", ready: bool = True, **labels: str) -> Object:
    return {
        "metadata": {"name": name, "labels": labels | ({"topology.kubernetes.io/zone": zone} if zone else {})},
        "status": {
            "allocatable": {"cpu": cpu},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def topology(*nodes: Object) -> Topology:
    made = Topology()
    for each in nodes:
        made.tell(each["metadata"]["name"], each)
    return made


def a_slice(*zones: str, ready: bool = True) -> Object:
    endpoints = [
        {"addresses": [f"10.0.0.{number}"], "conditions": {"ready": ready}} | ({"zone": zone} if zone else {})
        for number, zone in enumerate(zones)
    ]
    return {"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": endpoints}


def hints(*slices: Object) -> list[str]:
    return [
        (each.get("hints") or {"forZones": [{"name": "-"}]})["forZones"][0]["name"]
        for slice_ in slices
        for each in slice_["endpoints"]
    ]


def test_shares_count_ready_workers_and_need_all_that_count() -> None:
    told = topology(
        a_node("a", "x", "6"),
        a_node("b", "y", "2"),
        a_node("c", "y", "50", ready=False),
        a_node("d", "", "1", **{"node-role.kubernetes.io/control-plane": ""}),
    )
    assert told.shares == {"x": 0.75, "y": 0.25}
    assert told.tell("c", a_node("c", "", "50"))
    assert told.shares == {}
    assert told.tell("c", None)
    assert not told.tell("c", None)
    assert told.shares == {"x": 0.75, "y": 0.25}
    assert told.tell("b", None)
    assert told.shares == {}


def test_zones_that_have_too_few_get_endpoints_of_those_that_have_too_many() -> None:
    told, fresh = topology(a_node("a", "x"), a_node("b", "y")), a_slice("x", "x", "x", "y")
    more, events = told.hint(WEB, "IPv4", [fresh], [])
    assert not more
    assert sorted(hints(fresh)) == ["x", "x", "y", "y"]
    assert hints(fresh)[3] == "y"
    text = "Topology Aware Hints has been enabled, addressType: IPv4"
    assert events == [("Normal", "TopologyAwareHintsEnabled", text)]
    assert told.hint(WEB, "IPv4", [], [fresh]) == ([], [])
    assert not [*told.concerned()]
    told.tell("c", a_node("c", "x", "40"))
    assert [*told.concerned()] == [WEB]


@pytest.mark.parametrize(
    ("nodes", "zones", "text"),
    [
        (
            ["x", "x"],
            ["x", "x"],
            "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes",
        ),
        (["x", "y"], ["x"], "Insufficient number of endpoints (1 endpoints, 2 zones)"),
        (["x", "y"], ["x", ""], "One or more endpoints do not have a zone specified"),
        (
            ["x", "y", "y", "z", "z"],
            ["x", "y", "z"],
            "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold "
            "(3 endpoints, 3 zones)",
        ),
    ],
)
def test_without_enough_there_are_no_hints(nodes: list[str], zones: list[str], text: str) -> None:
    told, fresh, kept = topology(*(a_node(str(n), z) for n, z in enumerate(nodes))), a_slice(*zones), a_slice()
    kept["endpoints"] = [{"addresses": ["10.9.9.9"], "conditions": {"ready": False}, "hints": {"forZones": []}}]
    more, events = told.hint(WEB, "IPv4", [fresh], [kept])
    assert events == [("Warning", "TopologyAwareHintsDisabled", f"{text}, addressType: IPv4")]
    assert all("hints" not in each for slice_ in (fresh, *more) for each in slice_["endpoints"])
    assert kept["endpoints"][0]["hints"] == {"forZones": []}
    assert len(more) == 1


def test_the_older_annotation_counts_first() -> None:
    older = {"service.kubernetes.io/topology-aware-hints": "Disabled"}
    assert wants_hints({"metadata": {"annotations": AUTO}})
    assert not wants_hints({"metadata": {"annotations": AUTO | older}})


async def _three_pods(world: World, annotations: dict[str, str]) -> None:
    world.start("endpointslice-controller")
    for name, zone in (("a", "x"), ("b", "y")):
        await world.client.create(NODES, a_node(name, zone))
    made = service()
    await world.client.create(SERVICES, made | {"metadata": {"name": "web", "annotations": annotations}}, "default")
    for number, node in enumerate("aaab"):
        await world.make_ready(await world.client.create(PODS, pod(f"web-{number}"), "default"), node)
    await world.settle(20)


async def test_a_service_has_hints_as_long_as_it_asks(world: World) -> None:
    await _three_pods(world, AUTO)
    [found] = await world.list(ENDPOINTSLICES)
    assert sorted(hints(found)) == ["x", "x", "y", "y"]
    text = "Topology Aware Hints has been {}, addressType: IPv4"
    assert ("TopologyAwareHintsEnabled", text.format("enabled")) in await world.events()
    version = found["metadata"]["resourceVersion"]
    await world.client.patch(NODES, "a", "", {"metadata": {"labels": {"color": "blue"}}})
    await world.settle()
    [found] = await world.list(ENDPOINTSLICES)
    assert found["metadata"]["resourceVersion"] == version
    await world.client.patch(SERVICES, "web", "default", {"metadata": {"annotations": {next(iter(AUTO)): None}}})
    await world.settle()
    [found] = await world.list(ENDPOINTSLICES)
    assert hints(found) == ["-"] * 4
    assert ("TopologyAwareHintsDisabled", text.format("disabled")) in await world.events()


async def test_a_zone_that_grows_gets_more(world: World) -> None:
    await _three_pods(world, AUTO)
    await world.client.patch(NODES, "b", "", {"status": {"allocatable": {"cpu": "12"}}}, subresource="status")
    await world.settle()
    [found] = await world.list(ENDPOINTSLICES)
    assert sorted(hints(found)) == ["x", "y", "y", "y"]


async def test_a_pod_whose_node_is_not_known_waits_for_it(world: World) -> None:
    world.start("endpointslice-controller")
    await world.client.create(SERVICES, service(), "default")
    await world.client.create(SERVICES, service("all", publishNotReadyAddresses=True), "default")
    await world.make_ready(await world.client.create(PODS, pod("web-0"), "default"), "nowhere")
    await world.settle()
    by_service = {
        each["metadata"]["labels"]["kubernetes.io/service-name"]: each.get("endpoints") or []
        for each in await world.list(ENDPOINTSLICES)
    }
    assert (len(by_service["web"]), len(by_service["all"])) == (0, 1)
    text = "skipping Pod web-0 for Service default/web: Node nowhere Not Found"
    assert ("FailedToUpdateEndpointSlices", f"Error updating Endpoint Slices for Service default/web: {text}") in (
        await world.events()
    )
    await world.client.create(NODES, a_node("nowhere"))
    await world.settle(60)
    [found] = await world.list(ENDPOINTSLICES, labels="kubernetes.io/service-name=web")
    assert len(found["endpoints"]) == 1


async def test_slices_of_a_namesake_go(world: World) -> None:
    made = await world.client.create(SERVICES, service(), "default")
    owner = {"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "another"}
    labels = {
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    body = {"metadata": {"name": "old", "labels": labels, "ownerReferences": [owner]}, "addressType": "IPv4"}
    await world.client.create(ENDPOINTSLICES, body | {"endpoints": []}, "default")
    world.start("endpointslice-controller")
    await world.settle()
    [found] = await world.list(ENDPOINTSLICES)
    assert found["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]


async def test_mirrors_follow_endpoints_that_are_made_anew(world: World) -> None:
    world.start("endpointslice-mirroring-controller")
    await world.client.create(SERVICES, service(selector={}), "default")
    body = {"metadata": {"name": "web"}, "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 80}]}]}
    await world.client.create(ENDPOINTS, body, "default")
    await world.settle()
    [before] = await world.list(ENDPOINTSLICES)
    await world.client.delete(ENDPOINTS, "web", "default")
    made = await world.client.create(ENDPOINTS, body, "default")
    await world.settle()
    [after] = await world.list(ENDPOINTSLICES)
    assert after["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    assert before["metadata"]["uid"] == after["metadata"]["uid"]


def test_who_could_have_no_hints_is_looked_at_again_when_he_can() -> None:
    told, fresh = topology(a_node("a", "x")), a_slice("x", "x")
    told.hint(WEB, "IPv4", [fresh], [])
    assert not [*told.concerned()]
    told.tell("b", a_node("b", "y"))
    assert [*told.concerned()] == [WEB]
    told.forget(WEB)
    assert not [*told.concerned()]
