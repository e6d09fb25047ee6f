"""What the simulation plays of nodes that change under pods: zones that grow, and taints that pods bear for a while."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from random import Random

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import ENDPOINTSLICES, NODES, PODS, REPLICASETS, SERVICES, Object
from steersman.testing.simulation import Simulation

from .scenarios import NAMESPACE, available, change, delete_some_pod, selects, template

ZONES = {"node-0": "a", "node-1": "a", "node-2": "b"}


class Hinted:
    """A Service that asks for zone hints, while pods come and go and zones change their size."""

    controllers: Sequence[str] = ("endpointslice-controller", "replicaset-controller")

    def __init__(self, random: Random) -> None:
        self.replicas = random.randint(1, 8)
        self.cpu = dict.fromkeys(ZONES, 4)

    def start(self, world: Simulation) -> None:
        world.seen.informer(ENDPOINTSLICES)

    async def play(self, world: Simulation) -> None:
        for name, zone in ZONES.items():
            await world.client.patch(NODES, name, "", {"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}})
        spec = {"replicas": self.replicas, "selector": selects(), "template": template()}
        await world.client.create(REPLICASETS, {"metadata": {"name": "web"}, "spec": spec}, NAMESPACE)
        notes = {"service.kubernetes.io/topology-mode": "Auto"}
        body = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
        await world.client.create(
            SERVICES, {"metadata": {"name": "web", "annotations": notes}, "spec": body}, NAMESPACE
        )
        for _ in range(6):
            await world.pause(world.random.random() * 20)
            match world.random.randrange(3):
                case 0:
                    self.replicas = world.random.randint(0, 8)
                    await change(world, REPLICASETS, "web", {"replicas": self.replicas})
                case 1:
                    await delete_some_pod(world)
                case _:
                    name = world.random.choice(sorted(ZONES))
                    self.cpu[name] = world.random.randint(1, 16)
                    room = {"status": {"allocatable": {"cpu": str(self.cpu[name])}}}
                    await world.client.patch(NODES, name, "", room, subresource="status")

    def complaint(self, world: Simulation) -> str:
        ends = [end for each in world.all(ENDPOINTSLICES) for end in each["endpoints"] or ()]
        ready = available(world)
        if len(ready) != self.replicas or len(ends) != self.replicas:
            return f"{len(ready)} pods are ready, {len(ends)} are in slices, not {self.replicas}"
        hints = [[each["name"] for each in (end.get("hints") or {}).get("forZones") or ()] for end in ends]
        total = sum(self.cpu.values())
        least = {
            zone: math.ceil(sum(cpu for name, cpu in self.cpu.items() if ZONES[name] == zone) / total * len(ends) / 1.2)
            for zone in ("a", "b")
        }
        if len(ends) < 2 or sum(least.values()) > len(ends):
            return "hints where there can be none" if any(hints) else ""
        found = Counter(zone for each in hints for zone in each)
        few = {zone: count for zone, count in least.items() if found[zone] < count - 1}  # halves are not moved
        return f"zones {few} have only {dict(found)}" if few or not all(len(each) == 1 for each in hints) else ""


class Patient:
    """Pods that bear a user's taint for a while: none leaves early, all leave that have borne it long enough."""

    controllers: Sequence[str] = ("taint-eviction-controller",)

    def __init__(self, random: Random) -> None:
        self.seconds = {f"p-{number}": random.choice((0, 10, 40, None)) for number in range(random.randint(2, 6))}
        self.barred: dict[str, float] = {}  # since when each node was tainted first
        self.tainted: set[str] = set()
        self.bound: dict[str, float] = {}

    def start(self, world: Simulation) -> None:
        world.always(PODS, lambda: self._early(world), alone=True)

    def _early(self, world: Simulation) -> str:
        now = world.clock.monotonic()
        for pod in world.all(PODS):
            name, node = pod["metadata"]["name"], pod["spec"].get("nodeName")
            if node:
                self.bound.setdefault(name, now)
            if not pod["metadata"].get("deletionTimestamp"):
                continue
            patience = self.seconds[name]
            if patience is None or node not in self.barred:
                return f"{name} goes although it need not"
            if now < self.barred[node] + patience:
                return f"{name} goes after {now - self.barred[node]:.1f} s of {patience}"
        return ""

    async def play(self, world: Simulation) -> None:
        for name, seconds in self.seconds.items():
            bears: Object = {"key": "k", "operator": "Exists", "effect": "NoExecute"}
            bears |= {"tolerationSeconds": seconds} if seconds is not None else {}
            spec = {**template()["spec"], "tolerations": [bears]}
            await world.client.create(PODS, {"metadata": {"name": name}, "spec": spec}, NAMESPACE)
        for _ in range(6):
            await world.pause(world.random.random() * 30)
            name = world.random.choice(sorted(ZONES))
            self.tainted ^= {name}
            if name in self.tainted:
                self.barred.setdefault(name, world.clock.monotonic())
            taints = [{"key": "k", "effect": "NoExecute"}] if name in self.tainted else []
            await world.client.patch(NODES, name, "", {"spec": {"taints": taints}})
            there = sorted(each["metadata"]["name"] for each in world.all(PODS))
            if there:
                await self._touch(world, world.random.choice(there))

    async def _touch(self, world: Simulation, name: str) -> None:
        try:
            await world.client.patch(PODS, name, NAMESPACE, {"metadata": {"labels": {"n": str(world.random.random())}}})
        except ApiError as error:
            assert error.code == 404

    def complaint(self, world: Simulation) -> str:
        there = {each["metadata"]["name"]: each for each in world.all(PODS) if pods.is_active(each)}
        for name, seconds in self.seconds.items():
            node = (there.get(name) or {"spec": {}})["spec"].get("nodeName")
            if seconds is None and name not in there:
                return f"{name} is gone"
            if seconds is not None and node in self.tainted:
                return f"{name} is still on {node}"
        return ""


ZONED = (Hinted, Patient)
