"""What the simulation plays of objects that are made from others: mirrors, claims of pods, authorities, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from steersman.api.errors import ApiError
from steersman.api.resource import (
    CONFIGMAPS,
    ENDPOINTS,
    ENDPOINTSLICES,
    NAMESPACES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    REPLICASETS,
    SERVICES,
    Object,
)
from steersman.controllers.hpa import HPAS
from steersman.controllers.servicecidr import SERVICECIDRS
from steersman.testing.objects import pod
from steersman.testing.simulation import Simulation

from .scenarios import NAMESPACE, available, selects, template
from .usage import Usage, autoscaler


class Mirrors:
    """Endpoints that somebody writes: their slices say the same, and go with them."""

    controllers: Sequence[str] = ("endpointslice-mirroring-controller", "garbage-collector-controller")

    def __init__(self, random: Random) -> None:
        self.wanted: dict[str, list[str]] = {}

    def start(self, world: Simulation) -> None:
        world.seen.informer(ENDPOINTSLICES)

    async def play(self, world: Simulation) -> None:
        for name in ("a", "b"):
            spec = {"ports": [{"port": 80}]}
            await world.client.create(SERVICES, {"metadata": {"name": name}, "spec": spec}, NAMESPACE)
        for _ in range(world.random.randint(2, 8)):
            await world.pause(world.random.random() * 10)
            name = world.random.choice("ab")
            if name in self.wanted and world.random.random() < 0.3:
                del self.wanted[name]
                await world.client.delete(ENDPOINTS, name, NAMESPACE)
                continue
            ips = sorted({f"192.0.2.{world.random.randint(1, 9)}" for _ in range(world.random.randint(1, 4))})
            subsets = [{"addresses": [{"ip": ip} for ip in ips], "ports": [{"port": 80}]}]
            if name in self.wanted:
                await world.client.patch(ENDPOINTS, name, NAMESPACE, {"subsets": subsets})
            else:
                await world.client.create(ENDPOINTS, {"metadata": {"name": name}, "subsets": subsets}, NAMESPACE)
            self.wanted[name] = ips

    def complaint(self, world: Simulation) -> str:
        found: dict[str, list[str]] = {}
        for each in world.all(ENDPOINTSLICES):
            of = found.setdefault(each["metadata"]["labels"]["kubernetes.io/service-name"], [])
            of += [ip for end in each["endpoints"] or () for ip in end["addresses"]]
        found = {name: sorted(ips) for name, ips in found.items()}
        return "" if found == self.wanted else f"slices with {found}, not {self.wanted}"


class PodClaims:
    """Pods with volumes of their own: each has its claim, and takes it along; volumes stay while they are bound."""

    controllers: Sequence[str] = (
        "ephemeral-volume-controller",
        "garbage-collector-controller",
        "persistentvolume-protection-controller",
        "persistentvolume-binder-controller",
    )

    def __init__(self, random: Random) -> None:
        self.left: set[str] = set()

    def start(self, world: Simulation) -> None:
        world.always(PERSISTENTVOLUMECLAIMS, lambda: self._exceeded(world))
        world.seen.informer(PERSISTENTVOLUMES)

    def _exceeded(self, world: Simulation) -> str:
        names = [each["metadata"]["name"] for each in world.all(PERSISTENTVOLUMECLAIMS)]
        return "" if all(name.endswith("-own") for name in names) else f"claims {names}"

    async def play(self, world: Simulation) -> None:
        asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        own = {"name": "own", "ephemeral": {"volumeClaimTemplate": {"spec": asked | {"storageClassName": ""}}}}
        disk = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/x"}}
        disk |= {"storageClassName": "", "persistentVolumeReclaimPolicy": "Retain"}
        for number in range(world.random.randint(2, 7)):
            await world.pause(world.random.random() * 10)
            if self.left and world.random.random() < 0.4:
                self.left.discard(gone := min(self.left))
                await world.client.delete(PODS, gone, NAMESPACE)
            else:
                self.left.add(f"p-{number}")
                await world.client.create(PERSISTENTVOLUMES, {"metadata": {"name": f"v-{number}"}, "spec": disk})
                await world.client.create(PODS, pod(f"p-{number}", volumes=[own]), NAMESPACE)
        await world.pause(world.random.random() * 10)
        for each in world.all(PERSISTENTVOLUMES):
            await world.client.delete(PERSISTENTVOLUMES, each["metadata"]["name"])

    def complaint(self, world: Simulation) -> str:
        claims = {each["metadata"]["name"] for each in world.all(PERSISTENTVOLUMECLAIMS)}
        if claims != {f"{name}-own" for name in self.left}:
            return f"claims {claims} for {self.left}"
        for each in world.all(PERSISTENTVOLUMES):
            if (each.get("status") or {}).get("phase") != "Bound":
                return f"{each['metadata']['name']} was deleted, is not bound, and is there"
        return ""


class Authorities:
    """An authority in every namespace, whatever is done to it; ranges that are ready, or gone."""

    controllers: Sequence[str] = ("root-ca-certificate-publisher-controller", "service-cidr-controller")
    settings: Mapping[str, str] = {"root-ca": "the authority"}

    def __init__(self, random: Random) -> None:
        self.ranges: set[str] = set()

    def start(self, world: Simulation) -> None:
        for kind in (CONFIGMAPS, NAMESPACES, SERVICECIDRS):
            world.seen.informer(kind)

    async def play(self, world: Simulation) -> None:
        for number in range(world.random.randint(2, 8)):
            await world.pause(world.random.random() * 8)
            act = world.random.choice(("space", "spoil", "lose", "range", "unrange"))
            if act == "space":
                await world.client.create(NAMESPACES, {"metadata": {"name": f"s-{number}"}})
            elif act == "range":
                self.ranges.add(f"r-{number}")
                body = {"metadata": {"name": f"r-{number}"}, "spec": {"cidrs": [f"10.{number}.0.0/16"]}}
                await world.client.create(SERVICECIDRS, body)
            elif act == "unrange" and self.ranges:
                self.ranges.discard(gone := min(self.ranges))
                await world.client.delete(SERVICECIDRS, gone)
            elif act in ("spoil", "lose"):
                await self._harm(world, act)

    async def _harm(self, world: Simulation, act: str) -> None:
        try:
            if act == "lose":
                await world.client.delete(CONFIGMAPS, "kube-root-ca.crt", NAMESPACE)
            else:
                await world.client.patch(CONFIGMAPS, "kube-root-ca.crt", NAMESPACE, {"data": {"ca.crt": "another"}})
        except ApiError as error:
            assert error.code == 404, error

    def complaint(self, world: Simulation) -> str:
        found = {each["metadata"]["namespace"]: each["data"] for each in world.all(CONFIGMAPS)}
        wanted = {each["metadata"]["name"]: {"ca.crt": "the authority"} for each in world.all(NAMESPACES)}
        if found != wanted:
            return f"authorities are {found}"
        ready = {
            each["metadata"]["name"]: [
                condition["status"] for condition in (each.get("status") or {}).get("conditions") or ()
            ]
            for each in world.all(SERVICECIDRS)
        }
        return "" if ready == {name: ["True"] for name in self.ranges} else f"ranges {ready}, not {self.ranges}"


class Autoscaled:
    """A load that comes and goes, shared by the pods of a ReplicaSet: as many as it takes, within the limits."""

    controllers: Sequence[str] = ("horizontal-pod-autoscaler-controller", "replicaset-controller")

    def __init__(self, random: Random) -> None:
        self.least = random.randint(1, 2)
        self.most = random.randint(3, 6)
        self.loads = {"web": 100}  # millicores, of which a pod shall have 100

    def start(self, world: Simulation) -> None:
        world.always(REPLICASETS, lambda: self._exceeded(world))
        world.seen.informer(HPAS)
        Usage(world, self.loads)

    def _exceeded(self, world: Simulation) -> str:
        sizes = [each["spec"]["replicas"] for each in world.all(REPLICASETS)]
        return "" if all(self.least <= size <= self.most for size in sizes) else f"sizes {sizes}"

    async def play(self, world: Simulation) -> None:
        spec: Object = {"replicas": self.least, "selector": selects(), "template": template()}
        await world.client.create(REPLICASETS, {"metadata": {"name": "web"}, "spec": spec}, NAMESPACE)
        await world.client.create(HPAS, autoscaler("web", "ReplicaSet", self.least, self.most), NAMESPACE)
        for _ in range(world.random.randint(1, 4)):
            await world.pause(world.random.random() * 120)
            self.loads["web"] = 100 * world.random.randint(0, 8)

    def complaint(self, world: Simulation) -> str:
        wanted = min(max(self.loads["web"] // 100, self.least), self.most)
        found = len(available(world))
        return "" if found == wanted else f"{found} pods are ready, {self.loads} take {wanted}"


DERIVED = (Mirrors, PodClaims, Authorities, Autoscaled)
