"""Controllers of a cloud, with a cloud that the test makes: machines that come, go off and vanish, routes that fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from steersman.api.resource import NODES, SERVICES, Object
from steersman.client import cloud
from steersman.client.cloud import SHUTDOWN, UNINITIALIZED, Cloud, Instance, Route
from steersman.controllers import run
from steersman.controllers.cloudnode import addressed, enforced, initialized, missing_labels
from steersman.controllers.noderoute import plan

from .conftest import World
from .objects import service
from .test_servicelb import balanced

NAMED = {"cloud-provider": "test"}
ROUTED = {**NAMED, "allocate-node-cidrs": "true", "cluster-cidr": "10.244.0.0/16"}
INSIDE, OUTSIDE = {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "ExternalIP", "address": "192.0.2.1"}
HOST = {"type": "Hostname", "address": "n"}


class Machines:
    """A provider as other packages write them. `down`: nothing answers."""

    def __init__(self, **known: Instance) -> None:
        self.known, self.off, self.asked, self.down = dict(known), set[str](), 0, False

    def _ask(self) -> None:
        self.asked += 1
        if self.down:
            raise OSError("the cloud is down")

    async def exists(self, node: Object) -> bool:
        self._ask()
        return node["metadata"]["name"] in self.known

    async def shutdown(self, node: Object) -> bool:
        self._ask()
        return node["metadata"]["name"] in self.off

    async def metadata(self, node: Object) -> Instance | None:
        self._ask()
        return self.known.get(node["metadata"]["name"])


class Wires:
    """Routes that are there; those to `broken` ranges cannot be made."""

    def __init__(self, *there: Route) -> None:
        self.there, self.broken, self.listed = list(there), set[str](), 0

    async def list(self, cluster: str) -> Sequence[Route]:
        assert cluster == "kubernetes"
        self.listed += 1
        return list(self.there)

    async def create(self, cluster: str, hint: str, route: Route) -> None:
        if route.destination in self.broken:
            raise OSError("no such gateway")
        self.there.append(Route(hint, route.node, route.destination, route.addresses, follows=True))

    async def delete(self, cluster: str, route: Route) -> None:
        self.there.remove(route)

    @property
    def ways(self) -> set[tuple[str, str]]:
        return {(route.node, route.destination) for route in self.there}


class Elsewhere:
    async def ensure(self, service: Object, nodes: Sequence[Object], others: Sequence[Object]) -> list[Object]:
        return [{"hostname": "balancer.example.com"}]

    async def delete(self, service: Object) -> None:
        """Nothing is kept."""


def a_node(name: str = "n", **spec: Any) -> Object:
    return {"metadata": {"name": name, "labels": {}, "annotations": {}}, "spec": spec, "status": {}}


def waiting(name: str) -> Object:
    return a_node(name, taints=[{"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}])


BIG = Instance("test://1", "big", [INSIDE, OUTSIDE], "z1", "r1", {"example.com/rack": "7", "x.k8s.io/own": "no"})


def test_a_new_node_gets_what_its_machine_is() -> None:
    made = initialized(waiting("n"), BIG)
    assert made["spec"] == {"providerID": "test://1", "taints": []}
    assert made["metadata"]["labels"] == {
        "node.kubernetes.io/instance-type": "big",
        "beta.kubernetes.io/instance-type": "big",
        "topology.kubernetes.io/zone": "z1",
        "failure-domain.beta.kubernetes.io/zone": "z1",
        "topology.kubernetes.io/region": "r1",
        "failure-domain.beta.kubernetes.io/region": "r1",
        "example.com/rack": "7",
    }
    own = a_node(providerID="test://own")
    own["metadata"]["labels"] = {"example.com/rack": "1"}
    made = initialized(own, BIG)
    assert made["spec"]["providerID"] == "test://own" and made["metadata"]["labels"]["example.com/rack"] == "1"
    with pytest.raises(ValueError, match="cloud provider does not set node provider ID for node n"):
        initialized(waiting("n"), Instance())


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("", [INSIDE, OUTSIDE]),
        ("192.0.2.1", [OUTSIDE, INSIDE]),
        ("10.0.0.2", [{"type": "InternalIP", "address": "10.0.0.2"}, OUTSIDE]),
    ],
)
def test_the_kubelets_own_address_is_the_only_one_of_its_type(asked: str, expected: list[Object]) -> None:
    node = a_node()
    node["metadata"]["annotations"] = {"alpha.kubernetes.io/provided-node-ip": asked}
    known = [INSIDE, OUTSIDE] + ([expected[0]] if expected[0] not in (INSIDE, OUTSIDE) else [])
    assert enforced(node, known) == expected


def test_an_address_that_the_cloud_does_not_know_is_refused() -> None:
    node = a_node()
    node["metadata"]["annotations"] = {"alpha.kubernetes.io/provided-node-ip": "10.9.9.9"}
    with pytest.raises(ValueError, match='provided node ip for node "n" is not valid'):
        initialized(node, BIG)


def test_the_host_name_stays() -> None:
    node = a_node()
    node["status"] = {"addresses": [HOST]}
    assert addressed(node, [INSIDE]) == [INSIDE, HOST]
    assert addressed(node, []) is None
    for order in ([INSIDE, HOST], [HOST, INSIDE]):
        node["status"]["addresses"] = order
        assert addressed(node, [INSIDE]) is None


def test_older_labels_lead_the_newer() -> None:
    node = a_node()
    node["metadata"]["labels"] = {
        "failure-domain.beta.kubernetes.io/zone": "a",
        "topology.kubernetes.io/zone": "b",
        "topology.kubernetes.io/region": "r",
    }
    assert missing_labels(node) == {"topology.kubernetes.io/zone": "a"}


async def test_a_node_becomes_known_and_its_addresses_follow(world: World) -> None:
    machines = Machines(n=BIG)
    machines.down = True
    world.start("cloud-node-controller", cloud=Cloud(machines), **NAMED)
    await world.client.create(NODES, waiting("n"))
    await world.client.create(NODES, waiting("unknown"))
    await world.settle()
    assert (await world.get(NODES, "n"))["spec"]["taints"][0]["key"] == UNINITIALIZED
    machines.down = False
    await world.settle(20)
    node = await world.get(NODES, "n")
    assert node["spec"]["providerID"] == "test://1"
    assert not [each for each in node["spec"].get("taints") or () if each["key"] == UNINITIALIZED]
    assert node["status"]["addresses"] == [INSIDE, OUTSIDE]
    assert await world.events() == [("Synced", "Node synced successfully")]
    assert (await world.get(NODES, "unknown"))["spec"]["taints"][0]["key"] == UNINITIALIZED

    machines.known["n"] = Instance("test://1", addresses=[OUTSIDE])
    await world.settle(310)
    assert (await world.get(NODES, "n"))["status"]["addresses"] == [OUTSIDE]
    asked = machines.asked
    for number in range(5):
        await world.client.patch(NODES, "n", "", {"metadata": {"labels": {"x": str(number)}}})
    await world.settle()
    assert machines.asked == asked, "a change of the node is no reason to ask the cloud"


async def _ready(world: World, name: str, status: str) -> None:
    conditions = [{"type": "Ready", "status": status}]
    await world.set_status(NODES, await world.get(NODES, name), conditions=conditions)
    await world.settle(12)


async def _taints(world: World, name: str) -> set[str]:
    return {each["key"] for each in (await world.get(NODES, name))["spec"].get("taints") or ()}


async def test_machines_that_are_off_or_gone(world: World) -> None:
    machines = Machines(n=BIG)
    world.start("cloud-node-lifecycle-controller", cloud=Cloud(machines), **NAMED)
    for name in ("n", "stray"):
        await world.set_status(
            NODES, await world.client.create(NODES, a_node(name)), conditions=[{"type": "Ready", "status": "True"}]
        )
    await world.settle(30)
    assert await world.names(NODES) == ["n", "stray"], "who is ready is not asked about"
    machines.off.add("n")
    await _ready(world, "n", "Unknown")
    assert SHUTDOWN in await _taints(world, "n")
    await _ready(world, "n", "True")
    assert SHUTDOWN not in await _taints(world, "n")

    machines.down = True
    await _ready(world, "stray", "Unknown")
    assert "stray" in await world.names(NODES), "a cloud that does not answer says nothing"
    machines.down = False
    await world.settle(60)
    assert await world.names(NODES) == ["n"]
    text = "Deleting node stray because it does not exist in the cloud provider"
    assert ("DeletingNode", text) in await world.events()


def _way(node: str, destination: str, **more: Any) -> Route:
    return Route(f"to-{node}", node, destination, **more)


def test_which_routes_go_and_which_come() -> None:
    from ipaddress import ip_network

    here = a_node("a", podCIDRs=["10.244.0.0/24", "fd00::/64"])
    here["status"] = {"addresses": [INSIDE]}
    ours = [ip_network("10.244.0.0/16")]
    stays = _way("a", "10.244.0.0/24", addresses=[OUTSIDE])
    moved = _way("a", "10.244.0.0/24", addresses=[OUTSIDE], follows=True)
    gone, foreign, odd = _way("b", "10.244.9.0/24"), _way("b", "10.9.0.0/24"), _way("b", "everywhere")
    hole = _way("a", "10.244.0.0/24", blackhole=True)
    bad, made = plan([here, a_node("none")], [stays, gone, foreign, odd], ours)
    assert bad == [gone] and [each.destination for each in made] == ["fd00::/64"]
    for wrong in (moved, hole):
        bad, made = plan([here], [wrong], ours)
        assert bad == [wrong] and [each.destination for each in made] == ["10.244.0.0/24", "fd00::/64"]
    assert made[0].addresses == [INSIDE]


async def _network(world: World, name: str) -> tuple[str, str, str]:
    (found,) = [
        each for each in (await world.get(NODES, name))["status"]["conditions"] if each["type"] == "NetworkUnavailable"
    ]
    return found["status"], found["reason"], found["message"]


async def test_nodes_get_routes_and_say_whether_they_have_them(world: World) -> None:
    wires = Wires(_way("gone", "10.244.7.0/24"), _way("gone", "172.16.0.0/24"))
    wires.broken.add("10.244.1.0/24")
    world.start("node-ipam-controller", "node-route-controller", cloud=Cloud(routes=wires), **ROUTED)
    for name in ("a", "b"):
        await world.client.create(NODES, a_node(name))
        await world.settle(1)
    await world.settle(30)
    assert wires.ways == {("gone", "172.16.0.0/24"), ("a", "10.244.0.0/24")}
    assert await _network(world, "a") == ("False", "RouteCreated", "RouteController created a route")
    assert await _network(world, "b") == ("True", "NoRouteCreated", "RouteController failed to create a route")
    events = await world.events()
    uid = (await world.get(NODES, "b"))["metadata"]["uid"]
    text = f"Could not create route {uid} 10.244.1.0/24 for node b after 0s: no such gateway"
    assert ("FailedToCreateRoute", text) in events

    wires.broken.clear()
    await world.settle(11)
    assert await _network(world, "b") == ("False", "RouteCreated", "RouteController created a route")
    listed = wires.listed
    for number in range(9):
        await world.client.patch(NODES, "a", "", {"metadata": {"labels": {"x": str(number)}}})
    await world.settle(9)
    assert wires.listed <= listed + 1, "a burst of changes is one round"
    await world.set_status(NODES, await world.get(NODES, "a"), addresses=[INSIDE])
    await world.client.delete(NODES, "b")
    await world.settle(21)
    assert wires.ways == {("gone", "172.16.0.0/24"), ("a", "10.244.0.0/24")}
    (moved,) = [each for each in wires.there if each.node == "a"]
    assert list(moved.addresses) == [INSIDE]


async def test_a_balancer_of_the_cloud(world: World) -> None:
    world.start("service-lb-controller", cloud=Cloud(balancers=Elsewhere()), **NAMED)
    made = a_node("n")
    await world.set_status(
        NODES, await world.client.create(NODES, made), conditions=[{"type": "Ready", "status": "True"}]
    )
    await world.client.create(SERVICES, balanced(), "default")
    await world.client.create(SERVICES, service("plain"), "default")
    await world.settle()
    found = (await world.get(SERVICES, "web"))["status"]["loadBalancer"]["ingress"]
    assert [each["hostname"] for each in found] == ["balancer.example.com"]


ALL = ["cloud-node-controller", "cloud-node-lifecycle-controller", "node-route-controller", "service-lb-controller"]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({}, ALL[3:]),
        ({"cloud-provider": "external"}, []),
        (NAMED, [ALL[3], *ALL[:2]]),
        ({**ROUTED, "configure-cloud-routes": "false"}, [ALL[3], *ALL[:2]]),
        (ROUTED, [ALL[3], *ALL[:3]]),
    ],
)
def test_who_runs(config: dict[str, str], names: list[str]) -> None:
    assert [each.name for each in run.chosen(ALL, config)] == names


def test_routes_need_ranges() -> None:
    with pytest.raises(ValueError, match="Must specify clusterCIDR"):
        run.chosen(["node-route-controller"], {**NAMED, "allocate-node-cidrs": "true"})


MODULE = """
from steersman.client.cloud import Cloud

def make(config):
    return Cloud() if config["cloud-provider"] == "mine" else 3
"""


def test_a_provider_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_cloud.py").write_text(MODULE)
    info = tmp_path / "mycloud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mycloud\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{cloud.GROUP}]\nmine = my_cloud:make\nwrong = my_cloud:make\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cloud.provider({"cloud-provider": "mine"}) == Cloud() == cloud.provider({})
    with pytest.raises(ValueError, match="makes no steersman"):
        cloud.provider({"cloud-provider": "wrong"})
    with pytest.raises(ValueError, match='unknown cloud provider "theirs"'):
        cloud.provider({"cloud-provider": "theirs"})
