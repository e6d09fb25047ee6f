"""What the simulation plays of a cloud: machines, routes and balancers, at a provider that fails now and then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

from steersman.api.errors import ApiError
from steersman.api.resource import NODES, SERVICES, Object
from steersman.client.cloud import SHUTDOWN, UNINITIALIZED, Cloud, Instance, Route
from steersman.controllers.servicelb import ports_of
from steersman.controllers.ttl import ANNOTATION
from steersman.testing.simulation import Simulation

from .scenarios import NAMESPACE

_READY: Object = {"type": "Ready", "status": "True"}


class Provider:
    """Machines and routes; it takes its time, and does not always answer."""

    def __init__(self) -> None:
        self.world: Simulation | None = None
        self.machines: set[str] = set()
        self.off: set[str] = set()
        self.there: dict[str, Route] = {}

    async def _answer(self) -> None:
        assert self.world is not None
        await self.world.clock.sleep(self.world.random.random())
        if self.world.random.random() < 2 * self.world.odds.refused:
            raise OSError("the cloud is not well")

    async def exists(self, node: Object) -> bool:
        await self._answer()
        return node["metadata"]["name"] in self.machines

    async def shutdown(self, node: Object) -> bool:
        await self._answer()
        return node["metadata"]["name"] in self.off

    async def metadata(self, node: Object) -> Instance | None:
        await self._answer()
        name = node["metadata"]["name"]
        return Instance(f"test://{name}", zone="z") if name in self.machines else None

    async def list(self, cluster: str) -> Sequence[Route]:
        await self._answer()
        return list(self.there.values())

    async def create(self, cluster: str, hint: str, route: Route) -> None:
        name = f"{hint} {route.destination}"
        self.there[name] = Route(name, route.node, route.destination)
        await self._answer()  # it may be done all the same

    async def delete(self, cluster: str, route: Route) -> None:
        self.there.pop(route.name, None)
        await self._answer()


class Machines:
    """Nodes whose machines come, stop and vanish: each is known, has its route, and goes only without its machine."""

    controllers: Sequence[str] = (
        "cloud-node-controller",
        "cloud-node-lifecycle-controller",
        "node-route-controller",
        "ttl-controller",
    )
    settings: Mapping[str, str] = {
        "cloud-provider": "test",
        "allocate-node-cidrs": "true",
        "cluster-cidr": "10.244.0.0/16",
    }

    def __init__(self, random: Random) -> None:
        self.provider = Provider()
        self.cloud = Cloud(instances=self.provider, routes=self.provider)
        self.ends = {f"m-{number}": random.choice(("stays", "stays", "off", "gone")) for number in range(4)}
        self.joined: set[str] = set()

    def start(self, world: Simulation) -> None:
        self.provider.world = world
        world.always(NODES, lambda: self._lost(world))

    def _lost(self, world: Simulation) -> str:
        there = {each["metadata"]["name"] for each in world.all(NODES)}
        self.joined |= there & set(self.ends)
        lost = self.joined & self.provider.machines - there
        return f"{lost} are gone, and their machines run" if lost else ""

    async def _say(self, world: Simulation, name: str, status: str) -> None:
        """A kubelet, or whoever notices that it is silent."""
        body = {"status": {"conditions": [_READY | {"status": status}]}}
        await world.client.patch(NODES, name, "", body, type="strategic", subresource="status")

    async def play(self, world: Simulation) -> None:
        taint = {"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}
        for number, name in enumerate(self.ends):
            spec = {"taints": [taint], "podCIDR": f"10.244.{number}.0/24", "podCIDRs": [f"10.244.{number}.0/24"]}
            self.provider.machines.add(name)
            await world.client.create(NODES, {"metadata": {"name": name}, "spec": spec})
            await self._say(world, name, "True")
            await world.pause(world.random.random() * 10)
        for name, end in self.ends.items():
            await world.pause(world.random.random() * 20)
            if end == "off":
                self.provider.off.add(name)
            elif end == "gone":
                self.provider.machines.discard(name)
            if end != "stays":
                await self._say(world, name, "Unknown")

    def complaint(self, world: Simulation) -> str:
        found = {each["metadata"]["name"]: each for each in world.all(NODES) if each["metadata"]["name"] in self.ends}
        if set(found) != {name for name, end in self.ends.items() if end != "gone"}:
            return f"nodes {sorted(found)} for {self.ends}"
        for name, node in found.items():
            taints = {each["key"] for each in node["spec"].get("taints") or ()}
            if taints != ({SHUTDOWN} if self.ends[name] == "off" else set()):
                return f"{name} has taints {taints}"
            if node["spec"].get("providerID") != f"test://{name}":
                return f"{name} is not known to its cloud"
            if (node["metadata"].get("annotations") or {}).get(ANNOTATION) != "0":
                return f"{name} does not say how long things are kept"
        routes = sorted((each.node, each.destination) for each in self.provider.there.values())
        wanted = sorted((name, node["spec"]["podCIDR"]) for name, node in found.items())
        return "" if routes == wanted else f"routes {routes}, not {wanted}"


class Balanced:
    """Services that want a balancer, more than there is room for: one a port and address, none waits in vain."""

    controllers: Sequence[str] = ("service-lb-controller",)

    def __init__(self, random: Random) -> None:
        self.there: dict[str, int] = {}

    def start(self, world: Simulation) -> None:
        world.always(SERVICES, lambda: self._shared(world), alone=True)
        world.seen.informer(NODES)

    def _shared(self, world: Simulation) -> str:
        taken = Counter(
            (each["ip"], port)
            for service in world.all(SERVICES)
            for each in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
            for port in ports_of(service)
        )
        twice = [place for place, count in taken.items() if count > 1]
        return f"{twice} are several Services'" if twice else ""

    async def play(self, world: Simulation) -> None:
        for number in range(2):
            addresses = [{"type": "InternalIP", "address": f"192.0.2.{number + 1}"}]
            body = {"status": {"addresses": addresses, "conditions": [_READY]}}
            await world.client.patch(NODES, f"node-{number}", "", body, type="strategic", subresource="status")
        for number in range(world.random.randint(2, 9)):
            await world.pause(world.random.random() * 10)
            if self.there and world.random.random() < 0.4:
                gone = min(self.there)
                del self.there[gone]
                await self._leave(world, gone)
            else:
                name = f"s-{number}"
                self.there[name] = port = world.random.choice((80, 443))
                spec = {"type": "LoadBalancer", "ports": [{"port": port}], "selector": {"app": name}}
                await world.client.create(SERVICES, {"metadata": {"name": name}, "spec": spec}, NAMESPACE)

    async def _leave(self, world: Simulation, name: str) -> None:
        """Deleted, or of another type from now on."""
        try:
            if world.random.random() < 0.5:
                await world.client.delete(SERVICES, name, NAMESPACE)
            else:
                await world.client.patch(SERVICES, name, NAMESPACE, {"spec": {"type": "ClusterIP"}})
        except ApiError as error:
            assert error.code == 404

    def complaint(self, world: Simulation) -> str:
        found = {each["metadata"]["name"]: each for each in world.all(SERVICES)}
        given = {name for name, each in found.items() if ((each.get("status") or {}).get("loadBalancer") or {})}
        marked = {name for name, each in found.items() if each["metadata"].get("finalizers")}
        if not given <= marked <= set(self.there) <= set(found):
            return f"given {given}, marked {marked}, wanted {set(self.there)}"
        for port in (80, 443):
            asked = {name for name, each in self.there.items() if each == port}
            if len(asked & given) != min(len(asked), 2):
                return f"of {asked} have {asked & given} a balancer"
        return ""


CLOUDS = (Machines, Balanced)
