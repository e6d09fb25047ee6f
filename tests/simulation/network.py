"""What the simulation plays of a cluster's network and store: ranges of nodes, and migrations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, NODES, Object
from steersman.controllers.storageversionmigrator import MIGRATIONS, is_true, over
from steersman.testing.objects import config_map
from steersman.testing.simulation import Simulation

from .scenarios import NAMESPACE

ROOM = 8  # ranges that there are


class PodRanges:
    """Nodes that come, go and come again, some with ranges of their own: each range is one node's."""

    controllers: Sequence[str] = ("node-ipam-controller",)
    settings: Mapping[str, str] = {
        "allocate-node-cidrs": "true",
        "cluster-cidr": "10.244.0.0/21",
        "node-cidr-mask-size": "24",
    }

    def __init__(self, random: Random) -> None:
        self.acts = [(f"n{random.randrange(6)}", random.random() < 0.65) for _ in range(random.randint(4, 20))]
        self.there: set[str] = set()

    def start(self, world: Simulation) -> None:
        world.always(NODES, lambda: self._shared(world), alone=True)

    def _shared(self, world: Simulation) -> str:
        found = Counter(cidr for node in world.all(NODES) for cidr in node["spec"].get("podCIDRs") or ())
        return ", ".join(f"{cidr} is {count} nodes'" for cidr, count in found.items() if count > 1)

    async def play(self, world: Simulation) -> None:
        for name, comes in self.acts:
            await world.pause(world.random.random() * 15)
            if comes and name not in self.there:
                self.there.add(name)
                await world.client.create(NODES, {"metadata": {"name": name}})
            elif not comes and name in self.there:
                self.there.discard(name)
                await world.client.delete(NODES, name)

    def complaint(self, world: Simulation) -> str:
        without = [each["metadata"]["name"] for each in world.all(NODES) if not each["spec"].get("podCIDR")]
        room = ROOM - (len(world.all(NODES)) - len(without))
        if without and room > 0:
            return f"{without} have no range, and {room} are free"
        return f"{without} are more than there is room for" if len(world.all(NODES)) <= ROOM and without else ""


class Migrations:
    """Migrations of one resource while its objects come, change and go: each ends well, and one runs at a time."""

    controllers: Sequence[str] = ("storage-version-migrator-controller",)

    def __init__(self, random: Random) -> None:
        self.count = random.randint(1, 3)
        self.objects = random.randint(1, 12)

    def start(self, world: Simulation) -> None:
        world.always(MIGRATIONS, lambda: self._together(world), alone=True)
        world.seen.informer(CONFIGMAPS)

    def _together(self, world: Simulation) -> str:
        running = [each["metadata"]["name"] for each in world.all(MIGRATIONS) if is_true(each, "Running")]
        return f"{running} run at once" if len(running) > 1 else ""

    async def play(self, world: Simulation) -> None:
        for number in range(self.objects):
            await world.client.create(CONFIGMAPS, config_map(f"c-{number}"), NAMESPACE)
        for number in range(self.count):
            body = {"metadata": {"name": f"m{number}"}, "spec": {"resource": {"resource": "configmaps"}}}
            await world.client.create(MIGRATIONS, body)
            await world.pause(world.random.random() * 5)
            await self._disturb(world, f"c-{world.random.randrange(self.objects)}")

    async def _disturb(self, world: Simulation, name: str) -> None:
        try:
            if world.random.random() < 0.5:
                await world.client.delete(CONFIGMAPS, name, NAMESPACE)
            else:
                data: Object = {"data": {"n": str(world.random.random())}}
                await world.client.patch(CONFIGMAPS, name, NAMESPACE, data)
        except ApiError as error:
            assert error.code == 404

    def complaint(self, world: Simulation) -> str:
        for each in world.all(MIGRATIONS):
            if not over(each) or is_true(each, "Running") or not is_true(each, "Succeeded"):
                return f"{each['metadata']['name']} has not ended well: {(each.get('status') or {}).get('conditions')}"
        return "" if len(world.all(MIGRATIONS)) == self.count else "a migration is missing"


NETWORK = (PodRanges, Migrations)
