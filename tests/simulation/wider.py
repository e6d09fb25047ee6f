"""More of what the simulation plays: what belongs to a whole cluster rather than to one workload."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from steersman.api.resource import (
    CONFIGMAPS,
    LEASES,
    NAMESPACES,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    REPLICATIONCONTROLLERS,
    Object,
)
from steersman.controllers.resourcequota import RESOURCEQUOTAS
from steersman.lib.clock import rfc3339_micro
from steersman.testing.objects import config_map, pod
from steersman.testing.simulation import Simulation

from .scenarios import NAMESPACE, active, available, change, delete_some_pod, status_complaint, template


def _replication_controller(replicas: int) -> Object:
    spec = {"replicas": replicas, "selector": {"app": "web"}, "template": template()}
    return {"metadata": {"name": "web"}, "spec": spec}


class ReplicationControllers:
    """A ReplicationController that is scaled and loses pods: never more of them than ever asked for."""

    controllers: Sequence[str] = ("replicationcontroller-controller",)

    def __init__(self, random: Random) -> None:
        self.replicas = self.most = random.randint(0, 6)

    def start(self, world: Simulation) -> None:
        world.always(PODS, lambda: self._exceeded(world), alone=True)
        world.seen.informer(REPLICATIONCONTROLLERS)

    def _exceeded(self, world: Simulation) -> str:
        found = len(active(world))
        return f"{found} pods, at most {self.most} were wanted" if found > self.most else ""

    async def play(self, world: Simulation) -> None:
        await world.client.create(REPLICATIONCONTROLLERS, _replication_controller(self.replicas), NAMESPACE)
        for _ in range(world.random.randint(1, 6)):
            await world.pause(world.random.random() * 20)
            if world.random.random() < 0.5:
                self.replicas = world.random.randint(0, 6)
                self.most = max(self.most, self.replicas)
                await change(world, REPLICATIONCONTROLLERS, "web", {"replicas": self.replicas})
            else:
                await delete_some_pod(world)

    def complaint(self, world: Simulation) -> str:
        if len(available(world)) != self.replicas or len(world.all(PODS)) != self.replicas:
            return f"{len(world.all(PODS))} pods, not {self.replicas}"
        names = ("replicas", "readyReplicas", "availableReplicas")
        return status_complaint(world, REPLICATIONCONTROLLERS, "web", dict.fromkeys(names, self.replicas))


class Namespaces:
    """Namespaces that are deleted with all that is in them, and others that stay as they are.

    Nothing makes more meanwhile: that admission refuses it is not simulated.
    """

    controllers: Sequence[str] = ("namespace-controller",)

    def __init__(self, random: Random) -> None:
        self.there = {f"space-{number}": random.random() < 0.6 for number in range(random.randint(1, 4))}

    def start(self, world: Simulation) -> None:
        for kind in (NAMESPACES, CONFIGMAPS):
            world.seen.informer(kind)

    async def play(self, world: Simulation) -> None:
        for name in self.there:
            await world.client.create(NAMESPACES, {"metadata": {"name": name}})
            for number in range(3):
                await world.client.create(CONFIGMAPS, config_map(f"c-{number}"), name)
                await world.client.create(PODS, pod(f"p-{number}"), name)
        await world.pause(world.random.random() * 10)
        for name, goes in self.there.items():
            await world.pause(world.random.random() * 5)
            if goes:
                await world.client.delete(NAMESPACES, name)

    def complaint(self, world: Simulation) -> str:
        left = {each["metadata"]["name"] for each in world.all(NAMESPACES)} & set(self.there)
        if left != (stay := {name for name, goes in self.there.items() if not goes}):
            return f"{left} are there, {stay} should be"
        for kind in (CONFIGMAPS, PODS):
            found = [obj["metadata"]["namespace"] for obj in world.all(kind)]
            if wrong := {name for name in self.there if found.count(name) != (3 if name in stay else 0)}:
                return f"{kind.plural} of {wrong}: {found}"
        return ""


class Owners:
    """Owners that are deleted in each of the three ways, and what they own in two generations."""

    controllers: Sequence[str] = ("garbage-collector-controller",)

    def __init__(self, random: Random) -> None:
        ways = ("Foreground", "Background", "Orphan", "")
        self.owners = {f"o{number}": random.choice(ways) for number in range(random.randint(1, 4))}
        self.children = {name: random.randint(1, 3) for name in self.owners}

    def start(self, world: Simulation) -> None:
        world.seen.informer(CONFIGMAPS)

    async def _make(self, world: Simulation, name: str, owner: Object | None) -> Object:
        meta: Object = {"name": name}
        if owner is not None:
            above = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"]}
            meta["ownerReferences"] = [above | {"uid": owner["metadata"]["uid"], "blockOwnerDeletion": True}]
        return await world.client.create(CONFIGMAPS, {"metadata": meta}, NAMESPACE)

    async def play(self, world: Simulation) -> None:
        for name, count in self.children.items():
            owner = await self._make(world, name, None)
            for number in range(count):
                child = await self._make(world, f"{name}-{number}", owner)
                await self._make(world, f"{name}-{number}-x", child)
        for name, way in self.owners.items():
            await world.pause(world.random.random() * 8)
            if way:
                await world.client.delete(CONFIGMAPS, name, NAMESPACE, propagation=way)

    def _wanted(self, name: str, way: str) -> set[str]:
        below = {f"{name}-{number}" for number in range(self.children[name])}
        both = below | {f"{each}-x" for each in below}
        return {"": both | {name}, "Orphan": both}.get(way, set())

    def complaint(self, world: Simulation) -> str:
        found = {each["metadata"]["name"]: each["metadata"] for each in world.all(CONFIGMAPS)}
        for name, way in self.owners.items():
            mine = {each for each in found if each.split("-")[0] == name}
            if mine != (wanted := self._wanted(name, way)):
                return f"{way or 'kept'}: {sorted(mine)}, not {sorted(wanted)}"
            for each in mine:
                if way == "Orphan" and any(ref["name"] == name for ref in found[each].get("ownerReferences") or ()):
                    return f"{each} still names its owner"
        return ""


class Claims:
    """Claims and volumes that come in any order: each claim has one volume, each volume one claim."""

    controllers: Sequence[str] = ("persistentvolume-binder-controller",)

    def __init__(self, random: Random) -> None:
        self.claims = random.randint(1, 5)
        self.volumes = self.claims + random.randint(0, 2)
        self.kept = set(range(self.claims))

    def start(self, world: Simulation) -> None:
        world.always(PERSISTENTVOLUMECLAIMS, lambda: self._exceeded(world))
        world.seen.informer(PERSISTENTVOLUMES)

    def _exceeded(self, world: Simulation) -> str:
        names = [each["spec"].get("volumeName") for each in world.all(PERSISTENTVOLUMECLAIMS)]
        taken = [name for name in names if name]
        return f"volumes taken twice: {taken}" if len(set(taken)) < len(taken) else ""

    async def play(self, world: Simulation) -> None:
        work = [("claim", number) for number in range(self.claims)]
        work += [("volume", number) for number in range(self.volumes)]
        world.random.shuffle(work)
        for what, number in work:
            await world.pause(world.random.random() * 3)
            spec: Object = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
            if what == "claim":
                spec["resources"] = {"requests": {"storage": "1Gi"}}
                await world.client.create(
                    PERSISTENTVOLUMECLAIMS, {"metadata": {"name": f"c-{number}"}, "spec": spec}, NAMESPACE
                )
            else:
                spec |= {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/tmp/x"}}
                spec["persistentVolumeReclaimPolicy"] = "Retain"
                await world.client.create(PERSISTENTVOLUMES, {"metadata": {"name": f"v-{number}"}, "spec": spec})
        await world.pause(world.random.random() * 20)
        if world.random.random() < 0.5:
            gone = world.random.randrange(self.claims)
            self.kept.discard(gone)
            await world.client.delete(PERSISTENTVOLUMECLAIMS, f"c-{gone}", NAMESPACE)

    def complaint(self, world: Simulation) -> str:
        claims = {each["metadata"]["uid"]: each for each in world.all(PERSISTENTVOLUMECLAIMS)}
        if {each["metadata"]["name"] for each in claims.values()} != {f"c-{number}" for number in self.kept}:
            return "not the claims that were wanted"
        for each in claims.values():
            if (each.get("status") or {}).get("phase") != "Bound":
                return f"{each['metadata']['name']} is not bound"
        for volume in world.all(PERSISTENTVOLUMES):
            phase = (volume.get("status") or {}).get("phase")
            claim = claims.get((volume["spec"].get("claimRef") or {}).get("uid", ""))
            right = "Bound" if claim else ("Released" if volume["spec"].get("claimRef") else "Available")
            if phase != right or (claim and claim["spec"].get("volumeName") != volume["metadata"]["name"]):
                return f"{volume['metadata']['name']} is {phase}, not {right}"
        return ""


class SilentNodes:
    """Nodes whose kubelets fall silent and come back: the silent are left by all pods, the others are not tainted."""

    controllers: Sequence[str] = (
        "node-lifecycle-controller",
        "taint-eviction-controller",
        "replicationcontroller-controller",
    )

    def __init__(self, random: Random) -> None:
        self.silent: set[str] = set()
        self.replicas = random.randint(1, 6)

    def start(self, world: Simulation) -> None:
        world.seen.informer(NODES)

    async def _beat(self, world: Simulation, name: str) -> None:
        """A kubelet: its lease, and its word that it is ready, as long as it is not silent."""
        lease: Object = {"metadata": {"name": name}, "spec": {"holderIdentity": name}}
        await world.client.create(LEASES, lease, "kube-node-lease")
        while True:
            if name not in self.silent:
                now = rfc3339_micro(world.clock.now())
                body = {"spec": {"renewTime": now}}
                await world.client.patch(LEASES, name, "kube-node-lease", body)
                ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now[:19] + "Z"}
                kinds = ("MemoryPressure", "DiskPressure", "PIDPressure")
                conditions = [ready, *(ready | {"type": kind, "status": "False"} for kind in kinds)]
                status = {"status": {"conditions": conditions}}
                await world.client.patch(NODES, name, "", status, type="strategic", subresource="status")
            await world.clock.sleep(10)

    async def play(self, world: Simulation) -> None:
        names = [f"node-{number}" for number in range(3)]
        for name in names:
            world.start(self._beat(world, name), f"kubelet {name}")
        await world.client.create(REPLICATIONCONTROLLERS, _replication_controller(self.replicas), NAMESPACE)
        for _ in range(world.random.randint(1, 3)):
            await world.pause(world.random.random() * 90)
            self.silent ^= {world.random.choice(names[1:])}

    def complaint(self, world: Simulation) -> str:
        for node in world.all(NODES):
            name = node["metadata"]["name"]
            taints = {each["key"] for each in node["spec"].get("taints") or () if each["effect"] == "NoExecute"}
            wanted = {"node.kubernetes.io/unreachable"} if name in self.silent else set()
            if taints != wanted:
                return f"{name} has taints {taints}, not {wanted}"
        return ""


class Quotas:
    """A quota over what comes and goes: in the end it counts what is there."""

    controllers: Sequence[str] = ("resourcequota-controller", "replicationcontroller-controller")

    def __init__(self, random: Random) -> None:
        self.replicas = random.randint(0, 5)
        self.maps: set[str] = set()

    def start(self, world: Simulation) -> None:
        world.seen.informer(RESOURCEQUOTAS)
        world.seen.informer(CONFIGMAPS)

    async def play(self, world: Simulation) -> None:
        hard = {"pods": "20", "count/configmaps": "30", "requests.cpu": "10"}
        quota = {"metadata": {"name": "all"}, "spec": {"hard": hard}}
        await world.client.create(RESOURCEQUOTAS, quota, NAMESPACE)
        await world.client.create(REPLICATIONCONTROLLERS, _replication_controller(self.replicas), NAMESPACE)
        for number in range(world.random.randint(2, 8)):
            await world.pause(world.random.random() * 10)
            if self.maps and world.random.random() < 0.4:
                self.maps.discard(gone := min(self.maps))
                await world.client.delete(CONFIGMAPS, gone, NAMESPACE)
            else:
                await world.client.create(CONFIGMAPS, config_map(f"c-{number}"), NAMESPACE)
                self.maps.add(f"c-{number}")

    def complaint(self, world: Simulation) -> str:
        (quota,) = world.all(RESOURCEQUOTAS)
        used = (quota.get("status") or {}).get("used")
        wanted = {"pods": str(self.replicas), "count/configmaps": str(len(self.maps)), "requests.cpu": "0"}
        return "" if used == wanted else f"used is {used}, not {wanted}"


WIDER = (ReplicationControllers, Namespaces, Owners, Claims, SilentNodes, Quotas)
