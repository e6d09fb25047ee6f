"""What the simulation plays of storage, and of the controllers that keep a cluster's house."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from steersman.api.errors import ApiError
from steersman.api.resource import (
    CLUSTERROLES,
    ENDPOINTS,
    JOBS,
    NAMESPACES,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    SERVICEACCOUNTS,
    SERVICES,
    Object,
)
from steersman.controllers.attachdetach import VOLUMEATTACHMENTS
from steersman.controllers.attachdetach.volumes import MANAGED, in_use, reported
from steersman.lib.clock import rfc3339
from steersman.testing.objects import job, pod, service
from steersman.testing.simulation import Simulation

from .scenarios import NAMESPACE, available

_DISK = "kubernetes.io/csi/disks.example^h"


async def claimed_volume(world: Simulation, name: str, **source: Object) -> None:
    """A claim and its volume, bound."""
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], **source}
    await world.client.create(PERSISTENTVOLUMES, {"metadata": {"name": name}, "spec": spec})
    asked: Object = {"accessModes": ["ReadWriteOnce"], "volumeName": name, "storageClassName": ""}
    asked["resources"] = {"requests": {"storage": "1Gi"}}
    claim = await world.client.create(PERSISTENTVOLUMECLAIMS, {"metadata": {"name": name}, "spec": asked}, NAMESPACE)
    at = {"namespace": NAMESPACE, "name": name, "uid": claim["metadata"]["uid"]}
    await world.client.patch(PERSISTENTVOLUMES, name, "", {"spec": {"claimRef": at}})
    bound = {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
    await world.client.patch(PERSISTENTVOLUMECLAIMS, name, NAMESPACE, bound, subresource="status")


def _uses(claim: str) -> Object:
    return {"name": claim, "persistentVolumeClaim": {"claimName": claim}}


class Attachments:
    """A volume that goes from node to node after its pods: on one at a time, and never away while it is mounted."""

    controllers: Sequence[str] = ("persistentvolume-attach-detach-controller",)

    def __init__(self, random: Random) -> None:
        self.moves = random.randint(1, 5)
        self.last = ""

    def start(self, world: Simulation) -> None:
        world.always(VOLUMEATTACHMENTS, lambda: self._exceeded(world))
        world.always(NODES, lambda: self._exceeded(world))

    def _exceeded(self, world: Simulation) -> str:
        there = {each["spec"]["nodeName"]: each for each in world.all(VOLUMEATTACHMENTS)}
        if len(there) > 1 and not world.twins:
            return f"attached to {sorted(there)}"
        for node in world.all(NODES):
            mine = there.get(node["metadata"]["name"])
            if (
                not world.twins
                and _DISK in in_use(node)
                and (mine is None or mine["metadata"].get("deletionTimestamp"))
            ):
                return f"detached from {node['metadata']['name']}, where it is mounted"
        return ""

    async def _attach(self, world: Simulation) -> None:
        """The driver's external attacher."""
        mark = {"metadata": {"finalizers": ["external-attacher/disks-example"]}}
        while True:
            await world.clock.sleep(world.random.random() * 2)
            for each in world.all(VOLUMEATTACHMENTS):
                name, gone = each["metadata"]["name"], each["metadata"].get("deletionTimestamp")
                try:
                    if gone:
                        body = {"metadata": {"finalizers": None}}
                        await world.client.patch(VOLUMEATTACHMENTS, name, "", body)
                    elif not (each.get("status") or {}).get("attached"):
                        await world.client.patch(VOLUMEATTACHMENTS, name, "", mark)
                        done = {"status": {"attached": True}}
                        await world.client.patch(VOLUMEATTACHMENTS, name, "", done, subresource="status")
                except ApiError as error:
                    assert error.code == 404, error

    async def _mount(self, world: Simulation, name: str) -> None:
        """A kubelet: it uses what it was told is attached, as long as a pod is there."""
        while True:
            await world.clock.sleep(world.random.random() * 3)
            node = await world.client.get(NODES, name)
            users = [each for each in world.all(PODS) if each["spec"].get("nodeName") == name]
            wanted = [_DISK] if users and (_DISK in in_use(node) or any(reported(node))) else []
            if sorted(in_use(node)) != wanted:
                version = {"resourceVersion": node["metadata"]["resourceVersion"]}
                body = {"metadata": version, "status": {"volumesInUse": wanted or None}}
                try:
                    await world.client.patch(NODES, name, "", body, subresource="status")
                except ApiError as error:
                    assert error.code == 409, error

    async def play(self, world: Simulation) -> None:
        for node in world.all(NODES):
            name = node["metadata"]["name"]
            await world.client.patch(NODES, name, "", {"metadata": {"annotations": {MANAGED: "true"}}})
            world.start(self._mount(world, name), f"kubelet {name}")
        world.start(self._attach(world), "attacher")
        await claimed_volume(world, "disk", csi={"driver": "disks.example", "volumeHandle": "h"})
        for number in range(self.moves):
            self.last = f"node-{world.random.randrange(3)}"
            body = pod(f"p-{number}", volumes=[_uses("disk")], nodeName=self.last)
            await world.client.create(PODS, body, NAMESPACE)
            await world.pause(world.random.random() * 40)
            if number < self.moves - 1:
                await world.client.delete(PODS, f"p-{number}", NAMESPACE)
                await world.pause(world.random.random() * 5)

    def complaint(self, world: Simulation) -> str:
        there = world.all(VOLUMEATTACHMENTS)
        found = [(each["spec"]["nodeName"], (each.get("status") or {}).get("attached")) for each in there]
        if found != [(self.last, True)]:
            return f"attached are {found}, not {self.last}"
        for node in world.all(NODES):
            told = [each["name"] for each in reported(node)]
            if told != ([_DISK] if node["metadata"]["name"] == self.last else []):
                return f"{node['metadata']['name']} is told of {told}"
        return ""


class Accounts:
    """Namespaces that each have their account, whoever deletes it, and roles that gather others' rules."""

    controllers: Sequence[str] = ("serviceaccount-controller", "clusterrole-aggregation-controller")

    def __init__(self, random: Random) -> None:
        self.spaces = {NAMESPACE}
        self.verbs: set[str] = set()

    def start(self, world: Simulation) -> None:
        for kind in (NAMESPACES, SERVICEACCOUNTS, CLUSTERROLES):
            world.seen.informer(kind)

    async def play(self, world: Simulation) -> None:
        rule = {"clusterRoleSelectors": [{"matchLabels": {"into": "all"}}]}
        await world.client.create(CLUSTERROLES, {"metadata": {"name": "all"}, "aggregationRule": rule, "rules": []})
        for number in range(world.random.randint(2, 7)):
            await world.pause(world.random.random() * 5)
            act = world.random.choice(("space", "account", "role", "unrole"))
            if act == "space":
                self.spaces.add(f"s-{number}")
                await world.client.create(NAMESPACES, {"metadata": {"name": f"s-{number}"}})
            elif act == "role":
                self.verbs.add(verb := f"v{number}")
                rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]
                meta = {"name": verb, "labels": {"into": "all"}}
                await world.client.create(CLUSTERROLES, {"metadata": meta, "rules": rules})
            elif act == "unrole" and self.verbs:
                self.verbs.discard(gone := min(self.verbs))
                await world.client.delete(CLUSTERROLES, gone)
            elif any(each["metadata"]["namespace"] == NAMESPACE for each in world.all(SERVICEACCOUNTS)):
                await world.client.delete(SERVICEACCOUNTS, "default", NAMESPACE)

    def complaint(self, world: Simulation) -> str:
        found = {each["metadata"]["namespace"] for each in world.all(SERVICEACCOUNTS)}
        if not self.spaces <= found:
            return f"no account in {self.spaces - found}"
        (role,) = (each for each in world.all(CLUSTERROLES) if each["metadata"]["name"] == "all")
        verbs = {verb for rule in role.get("rules") or () for verb in rule["verbs"]}
        return "" if verbs == self.verbs else f"rules for {verbs}, not {self.verbs}"


class Leftovers:
    """What must go goes: ended Jobs after their time, pods of absent nodes, claims when nobody uses them any more."""

    controllers: Sequence[str] = (
        "ttl-after-finished-controller",
        "pod-garbage-collector-controller",
        "persistentvolumeclaim-protection-controller",
        "garbage-collector-controller",
    )

    def __init__(self, random: Random) -> None:
        self.used = random.random() < 0.5  # the claim's pod stays
        self.safe = False  # the claim has been marked
        self.jobs = {f"j-{number}": random.choice((None, 0, 30)) for number in range(random.randint(1, 4))}

    def start(self, world: Simulation) -> None:
        world.always(PERSISTENTVOLUMECLAIMS, lambda: self._lost(world))
        world.seen.informer(JOBS)

    def _lost(self, world: Simulation) -> str:
        users = [each for each in world.all(PODS) if each["metadata"]["name"] == "user"]
        marked = any(each["metadata"].get("finalizers") for each in world.all(PERSISTENTVOLUMECLAIMS))
        self.safe = self.safe or marked
        gone = not world.all(PERSISTENTVOLUMECLAIMS)
        running = any(not each["metadata"].get("deletionTimestamp") for each in users)
        return "a claim is gone that a pod uses" if self.safe and gone and running else ""

    async def play(self, world: Simulation) -> None:
        await claimed_volume(world, "disk", hostPath={"path": "/tmp/x"})
        await world.client.create(PODS, pod("user", volumes=[_uses("disk")]), NAMESPACE)
        await world.client.create(PODS, pod("lost", nodeName="nowhere"), NAMESPACE)
        for name, seconds in self.jobs.items():
            body = job(name) if seconds is None else job(name, ttlSecondsAfterFinished=seconds)
            await world.client.create(JOBS, body, NAMESPACE)
            await world.pause(world.random.random() * 10)
            now = rfc3339(world.clock.now())
            each = {"status": "True", "lastTransitionTime": now}
            status = {"startTime": now, "completionTime": now}
            status |= {"conditions": [{"type": kind, **each} for kind in ("SuccessCriteriaMet", "Complete")]}
            await world.client.patch(JOBS, name, NAMESPACE, {"status": status}, subresource="status")
        await world.pause(30)
        await world.client.delete(PERSISTENTVOLUMECLAIMS, "disk", NAMESPACE)
        await world.pause(world.random.random() * 20)
        if not self.used:
            await world.client.delete(PODS, "user", NAMESPACE)

    def complaint(self, world: Simulation) -> str:
        jobs = {each["metadata"]["name"] for each in world.all(JOBS)}
        if jobs != (wanted := {name for name, seconds in self.jobs.items() if seconds is None}):
            return f"Jobs {jobs}, not {wanted}"
        left = {each["metadata"]["name"] for each in world.all(PODS)}
        if left != ({"user"} if self.used else set()):
            return f"pods {left}"
        return "" if bool(world.all(PERSISTENTVOLUMECLAIMS)) is self.used else "the claim is there, or not"


class Addresses:
    """A Service whose pods come and go: its Endpoints hold exactly those that are ready."""

    controllers: Sequence[str] = ("endpoints-controller",)

    def __init__(self, random: Random) -> None:
        self.left: set[str] = set()

    def start(self, world: Simulation) -> None:
        world.seen.informer(ENDPOINTS)

    async def play(self, world: Simulation) -> None:
        await world.client.create(SERVICES, service("web"), NAMESPACE)
        for number in range(world.random.randint(2, 8)):
            await world.pause(world.random.random() * 10)
            if self.left and world.random.random() < 0.4:
                self.left.discard(gone := min(self.left))
                await world.client.delete(PODS, gone, NAMESPACE)
            else:
                self.left.add(f"p-{number}")
                await world.client.create(PODS, pod(f"p-{number}", labels={"app": "web"}), NAMESPACE)

    def complaint(self, world: Simulation) -> str:
        wanted = sorted(each["status"]["podIP"] for each in available(world))
        if len(wanted) != len(self.left):
            return f"{len(wanted)} pods are ready"
        subsets = [part for each in world.all(ENDPOINTS) for part in each.get("subsets") or ()]
        found = sorted(each["ip"] for part in subsets for each in part.get("addresses") or ())
        return "" if found == wanted else f"addresses {found}, not {wanted}"


HOUSEKEEPING = (Attachments, Accounts, Leftovers, Addresses)
