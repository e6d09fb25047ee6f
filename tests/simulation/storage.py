"""What the simulation plays of volumes that are made on demand, of those that grow, and of classes of attributes."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from steersman.api.errors import ApiError
from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, Object
from steersman.controllers.hostpathprovisioner import PROVISIONER
from steersman.controllers.pvbinder.claims import STORAGECLASSES
from steersman.controllers.selinuxwarning import CSIDRIVERS
from steersman.controllers.vacprotection import CLASSES
from steersman.testing.objects import container, pod
from steersman.testing.simulation import Simulation

from .housekeeping import claimed_volume
from .scenarios import NAMESPACE

_RESIZER = "volume.kubernetes.io/storage-resizer"
_FINALIZER = "kubernetes.io/vac-protection"


class Provisioned:
    """Claims that come and go, with a directory each: as many volumes and directories as claims, in the end."""

    controllers: Sequence[str] = ("hostpath-provisioner-controller", "persistentvolume-binder-controller")

    def __init__(self, random: Random) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="steer-volumes-")
        self.settings: Mapping[str, str] = {"volumes": self.folder.name}
        self.there: set[str] = set()

    def start(self, world: Simulation) -> None:
        world.seen.informer(PERSISTENTVOLUMES)
        world.seen.informer(PERSISTENTVOLUMECLAIMS)

    async def play(self, world: Simulation) -> None:
        made = {"metadata": {"name": "standard"}, "provisioner": PROVISIONER, "reclaimPolicy": "Delete"}
        await world.client.create(STORAGECLASSES, made)
        asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        for number in range(world.random.randint(2, 8)):
            await world.pause(world.random.random() * 10)
            if self.there and world.random.random() < 0.4:
                self.there.discard(gone := min(self.there))
                await world.client.delete(PERSISTENTVOLUMECLAIMS, gone, NAMESPACE)
            else:
                self.there.add(f"c-{number}")
                body = {"metadata": {"name": f"c-{number}"}, "spec": asked | {"storageClassName": "standard"}}
                await world.client.create(PERSISTENTVOLUMECLAIMS, body, NAMESPACE)

    def complaint(self, world: Simulation) -> str:
        claims = {
            each["metadata"]["name"]: each["spec"].get("volumeName") for each in world.all(PERSISTENTVOLUMECLAIMS)
        }
        volumes = {each["metadata"]["name"] for each in world.all(PERSISTENTVOLUMES)}
        folders = {each.name for each in Path(self.folder.name).iterdir()}
        if set(claims) != self.there or set(claims.values()) != volumes or volumes != folders:
            return f"claims {claims}, volumes {volumes}, directories {folders}"
        return ""


class Grown:
    """Claims of a migrated plugin that ask for more: the driver's resizer is named on those, and on no others."""

    controllers: Sequence[str] = ("persistentvolume-expander-controller",)

    def __init__(self, random: Random) -> None:
        self.asks = {f"d-{number}": random.random() < 0.6 for number in range(random.randint(1, 4))}

    def start(self, world: Simulation) -> None:
        world.seen.informer(PERSISTENTVOLUMECLAIMS)

    async def play(self, world: Simulation) -> None:
        for name, more in self.asks.items():
            await claimed_volume(world, name, awsElasticBlockStore={"volumeID": name})
            await world.pause(world.random.random() * 10)
            if more:
                body = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
                await world.client.patch(PERSISTENTVOLUMECLAIMS, name, NAMESPACE, body)

    def complaint(self, world: Simulation) -> str:
        for each in world.all(PERSISTENTVOLUMECLAIMS):
            meta = each["metadata"]
            named = (meta.get("annotations") or {}).get(_RESIZER)
            if named != ("ebs.csi.aws.com" if self.asks[meta["name"]] else None):
                return f"{meta['name']} is grown by {named}"
        return ""


class AttributeClasses:
    """Classes that claims name and leave: a class that is deleted is there as long as one names it, and no longer."""

    controllers: Sequence[str] = ("volumeattributesclass-protection-controller",)

    def __init__(self, random: Random) -> None:
        self.uses = {f"c-{number}": random.choice("ab") for number in range(random.randint(0, 3))}
        self.deleted: set[str] = set()
        self.freed: set[str] = set()

    def start(self, world: Simulation) -> None:
        world.seen.informer(PERSISTENTVOLUMECLAIMS)
        world.always(CLASSES, lambda: self._lost(world))

    def _lost(self, world: Simulation) -> str:
        there = {each["metadata"]["name"] for each in world.all(CLASSES)}
        lost = (set(self.uses.values()) - self.freed) & self.deleted - there
        return f"{lost} are gone, and named" if lost else ""

    async def play(self, world: Simulation) -> None:
        for name in "ab":
            meta = {"name": name, "finalizers": [_FINALIZER]}  # admission puts it on
            made = {"metadata": meta, "driverName": "disks.example", "parameters": {"iops": "100"}}
            await world.client.create(CLASSES, made)
        asked: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        for name, chosen in self.uses.items():
            spec = {**asked, "volumeAttributesClassName": chosen}
            await world.client.create(PERSISTENTVOLUMECLAIMS, {"metadata": {"name": name}, "spec": spec}, NAMESPACE)
        await world.pause(60)  # until they are seen: who deletes what others are about to name is not protected
        for name in "ab":
            await world.pause(world.random.random() * 10)
            if world.random.random() < 0.7:
                self.deleted.add(name)
                await world.client.delete(CLASSES, name)
        for name, chosen in list(self.uses.items()):
            await world.pause(world.random.random() * 10)
            if world.random.random() < 0.5:
                del self.uses[name]
                if chosen not in self.uses.values():
                    self.freed.add(chosen)
                try:
                    await world.client.delete(PERSISTENTVOLUMECLAIMS, name, NAMESPACE)
                except ApiError as error:
                    assert error.code == 404

    def complaint(self, world: Simulation) -> str:
        there = {each["metadata"]["name"] for each in world.all(CLASSES)}
        wanted = (set("ab") - self.deleted) | set(self.uses.values())
        return "" if there == wanted else f"classes {there}, not {wanted}"


class Labelled:
    """Pods that share a volume, each with an SELinux label: who conflicts with whom is shown, and nothing else."""

    controllers: Sequence[str] = ("selinux-warning-controller",)

    def __init__(self, random: Random) -> None:
        self.there: dict[str, str] = {}

    def start(self, world: Simulation) -> None:
        world.seen.informer(PODS)

    async def play(self, world: Simulation) -> None:
        driver = {"metadata": {"name": "disks.example"}, "spec": {"seLinuxMount": True}}
        await world.client.create(CSIDRIVERS, driver)
        await claimed_volume(world, "disk", csi={"driver": "disks.example", "volumeHandle": "h"})
        for number in range(world.random.randint(2, 6)):
            await world.pause(world.random.random() * 10)
            if self.there and world.random.random() < 0.3:
                await world.client.delete(PODS, gone := min(self.there), NAMESPACE)
                del self.there[gone]
                continue
            name, level = f"p-{number}", world.random.choice(("s0:c1,c2", "s0:c3,c4"))
            self.there[name] = level
            mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
            volume = {"name": "v", "persistentVolumeClaim": {"claimName": "disk"}}
            context = {"seLinuxOptions": {"level": level}}
            made = pod(name, container(**mount), securityContext=context, volumes=[volume])
            await world.client.create(PODS, made, NAMESPACE)

    def complaint(self, world: Simulation) -> str:
        text = world.metrics.registry.text()
        found = set(re.findall(r'_volume_conflict{[^}]*pod1_name="([^"]*)"[^}]*pod2_name="([^"]*)"', text))
        pairs = [(one, other) for one in self.there for other in self.there]
        wanted = {(one, other) for one, other in pairs if self.there[one] != self.there[other]}
        if world.twins:  # the copy that is looked at may be the one that has ended
            return ""
        return "" if found == wanted else f"conflicts {sorted(found)}, not {sorted(wanted)}"


STORAGE = (Provisioned, Grown, AttributeClasses, Labelled)
