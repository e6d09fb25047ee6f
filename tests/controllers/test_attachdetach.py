"""Attach and detach, and growing claims; the external attacher is played by the test."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.resource import NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, Object
from steersman.client.migrated import migrated
from steersman.controllers import attachdetach
from steersman.controllers.attachdetach import CSIDRIVERS, VOLUMEATTACHMENTS
from steersman.controllers.attachdetach.volumes import (
    MANAGED,
    OUT_OF_SERVICE,
    Place,
    attachment,
    multi_attach_text,
    needs,
    shareable,
    unique_name,
)
from steersman.controllers.volumeexpand import grows

from .conftest import World

DISK = "kubernetes.io/csi/disks.example^h-disk"


def volume(name: str = "disk", *modes: str, **spec: Any) -> Object:
    source = spec or {"csi": {"driver": "disks.example", "volumeHandle": f"h-{name}"}}
    body = {"capacity": {"storage": "1Gi"}, "accessModes": list(modes) or ["ReadWriteOnce"], **source}
    return {"metadata": {"name": name}, "spec": body}


def pod_with(name: str, node: str, claim: str = "disk", namespace: str = "default", **spec: Any) -> Object:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
    containers = [{"name": "c", "image": "i"}]
    body = {"nodeName": node, "containers": containers, "volumes": volumes, **spec}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": body}


class Storage:
    """A CSI driver's attacher, kubelets that mount, and shorthands."""

    def __init__(self, world: World) -> None:
        self.world, self.client = world, world.client
        self.works, self.error = True, ""
        self.config: dict[str, str] = {}

    async def begin(self, *modes: str, nodes: int = 2, **spec: Any) -> None:
        for number in range(nodes):
            await self.node(f"node-{number}")
        await self.claimed("disk", *modes, **spec)
        self.world.start("persistentvolume-attach-detach-controller", **self.config)
        self.world.tasks.spawn(self._attach(), "attacher")
        await self.world.settle()

    async def claimed(self, name: str, *modes: str, **spec: Any) -> None:
        made = await self.client.create(PERSISTENTVOLUMES, volume(name, *modes, **spec))
        body: Object = {"accessModes": ["ReadWriteOnce"], "volumeName": name, "storageClassName": ""}
        body["resources"] = {"requests": {"storage": "1Gi"}}
        claim = {"metadata": {"name": name}, "spec": body}
        claim = await self.client.create(PERSISTENTVOLUMECLAIMS, claim, "default")
        at = {"namespace": "default", "name": name, "uid": claim["metadata"]["uid"]}
        await self.client.patch(PERSISTENTVOLUMES, name, "", {"spec": {"claimRef": at}})
        await self.world.set_status(PERSISTENTVOLUMES, made, phase="Bound")
        await self.world.set_status(PERSISTENTVOLUMECLAIMS, claim, phase="Bound", capacity={"storage": "1Gi"})

    async def node(self, name: str) -> None:
        made = await self.client.create(NODES, {"metadata": {"name": name, "annotations": {MANAGED: "true"}}})
        await self.ready(made, "True")

    async def ready(self, node: Object, status: str) -> None:
        await self.world.set_status(NODES, node, conditions=[{"type": "Ready", "status": status}])

    async def _attach(self) -> None:
        while True:
            for each in await self.world.list(VOLUMEATTACHMENTS) if self.works else ():
                meta, status = each["metadata"], each.get("status") or {}
                if meta.get("deletionTimestamp"):
                    await self.client.patch(VOLUMEATTACHMENTS, meta["name"], "", {"metadata": {"finalizers": None}})
                elif self.error and not status.get("attachError"):
                    said = {"attached": False, "attachError": {"message": self.error}}
                    await self.world.set_status(VOLUMEATTACHMENTS, each, **said)
                elif not self.error and not status.get("attached"):
                    mark = {"metadata": {"finalizers": ["external-attacher/disks-example"]}}
                    await self.client.patch(VOLUMEATTACHMENTS, meta["name"], "", mark)
                    await self.world.set_status(VOLUMEATTACHMENTS, each, attached=True, attachError=None)
            await self.world.clock.sleep(1)

    async def run(self, name: str, node: str, **spec: Any) -> None:
        await self.client.create(PODS, pod_with(name, node, **spec), "default")
        await self.world.settle()

    async def stop(self, name: str) -> None:
        await self.client.delete(PODS, name, "default", grace_seconds=0)
        await self.world.settle()

    async def mount(self, node: str, *names: str) -> None:
        await self.client.patch(NODES, node, "", {"status": {"volumesInUse": list(names)}}, subresource="status")
        await self.world.settle()

    async def where(self) -> list[str]:
        return sorted(each["spec"]["nodeName"] for each in await self.world.list(VOLUMEATTACHMENTS))

    async def told(self, node: str) -> list[str]:
        status = (await self.world.get(NODES, node)).get("status") or {}
        return [each["name"] for each in status.get("volumesAttached") or ()]


@pytest.fixture
def storage(world: World) -> Storage:
    return Storage(world)


def test_names_are_those_that_drivers_and_kubelets_compute() -> None:
    assert unique_name(volume()) == DISK
    assert unique_name(volume(hostPath={"path": "/x"})) == ""
    made = attachment({"metadata": {"name": "pv"}, "spec": {"csi": {"driver": "d", "volumeHandle": "h"}}}, "n")
    # printf hdn | sha256sum
    assert made["metadata"]["name"] == "csi-9072ed11cc1acb5fa433a877ff339b6311d013f33bddd1d0092711a8ace5b16d"
    assert made["spec"] == {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}


@pytest.mark.parametrize(
    ("modes", "expected"),
    [([], True), (["ReadWriteOnce"], False), (["ReadWriteOncePod"], False), (["ReadWriteOnce", "ReadOnlyMany"], True)],
)
def test_which_volumes_several_nodes_may_have(modes: list[str], expected: bool) -> None:
    assert shareable({"spec": {"accessModes": modes}}) is expected


def test_which_pods_need_a_volume() -> None:
    claim = {"metadata": {"name": "disk", "uid": "u"}}
    running = {"status": {"containerStatuses": [{"state": {"running": {}}}]}}
    going = {"metadata": {"name": "p", "deletionTimestamp": "x"}}
    assert needs(pod_with("p", "n"), claim)
    assert not needs(pod_with("p", ""), claim)
    assert not needs(pod_with("p", "n", claim="other"), claim)
    assert not needs({**pod_with("p", "n"), "status": {"phase": "Failed"}}, claim)
    assert needs({**pod_with("p", "n"), **going, **running}, claim)
    assert not needs({**pod_with("p", "n"), **going}, claim), "nothing of it runs any more"
    own = pod_with("p", "n", volumes=[{"name": "disk", "ephemeral": {}}])
    assert not needs(own, {"metadata": {"name": "p-disk", "uid": "u"}}), "somebody else's claim of that name"


@pytest.mark.parametrize(
    ("spaces", "expected"),
    [
        ([], "Volume is already exclusively attached to one node and can't be attached to another"),
        (["default", "default"], "Volume is already used by pod(s) p0, p1"),
        (["default", "far"], "Volume is already used by pod(s) p0 and 1 pod(s) in different namespaces"),
        (["far", "far"], "Volume is already used by 2 pod(s) in different namespaces"),
    ],
)
def test_multi_attach_texts(spaces: list[str], expected: str) -> None:
    others = [pod_with(f"p{number}", "n", namespace=space) for number, space in enumerate(spaces)]
    text = multi_attach_text(volume(), pod_with("new", "m"), others)
    assert text == f'Multi-Attach error for volume "disk" {expected}'


def test_only_a_sick_or_abandoned_node_loses_what_it_has_mounted() -> None:
    assert not Place("n", known=True, ready=True).forced(9999, 360)
    assert not Place("n", known=True).forced(359, 360)
    assert Place("n", known=True).forced(360, 360)
    assert not Place("n", known=True).forced(9999, None)
    assert Place("n", known=True, ready=True, out_of_service=True).forced(0, None)


async def test_a_volume_follows_its_pod(world: World, storage: Storage) -> None:
    await storage.begin()
    await storage.run("one", "node-0")
    assert (await storage.where(), await storage.told("node-0")) == (["node-0"], [DISK])
    event = ("SuccessfulAttachVolume", 'AttachVolume.Attach succeeded for volume "disk" ')
    assert event in await world.events()
    await storage.mount("node-0", DISK)
    await storage.stop("one")
    assert await storage.where() == ["node-0"], "it is still mounted"
    assert await storage.told("node-0") == [DISK]
    await storage.mount("node-0")
    assert (await storage.where(), await storage.told("node-0")) == ([], [])
    await storage.run("two", "node-1")
    assert await storage.where() == ["node-1"]
    revision = world.cluster.store.revision
    await world.settle(7200)
    assert world.cluster.store.revision == revision


async def test_one_node_at_a_time(world: World, storage: Storage) -> None:
    await storage.begin()
    await storage.run("one", "node-0")
    await storage.mount("node-0", DISK)
    await storage.run("two", "node-1")
    assert await storage.where() == ["node-0"]
    text = 'Multi-Attach error for volume "disk" Volume is already used by pod(s) one'
    assert [each for each in await world.events() if each[0] == "FailedAttachVolume"] == [("FailedAttachVolume", text)]
    await storage.stop("one")
    await storage.mount("node-0")
    await world.settle()
    assert await storage.where() == ["node-1"]


async def test_shared_volumes_go_to_every_node(storage: Storage) -> None:
    await storage.begin("ReadWriteMany")
    await storage.run("one", "node-0")
    await storage.run("two", "node-1")
    assert await storage.where() == ["node-0", "node-1"]


async def test_one_volume_does_not_trouble_the_others_of_its_node(
    world: World, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.config["disable-attach-detach-reconcile-sync"] = "true"
    await storage.begin()
    for number in range(10):
        await storage.claimed(f"other-{number}")
        await storage.run(f"p-{number}", "node-0", claim=f"other-{number}")
    seen: list[str] = []
    places = attachdetach._places
    monkeypatch.setattr(attachdetach, "_places", lambda *asked: (seen.append(asked[1]), places(*asked))[1])
    await storage.run("one", "node-0")
    await storage.mount("node-0", DISK)
    assert len(await storage.told("node-0")) == 11
    assert set(seen) == {DISK}


async def test_a_node_out_of_service_gives_up_what_it_has_mounted(world: World, storage: Storage) -> None:
    await storage.begin()
    await storage.run("one", "node-0")
    await storage.mount("node-0", DISK)
    await storage.stop("one")
    assert await storage.where() == ["node-0"]
    taint = {"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}
    await world.client.patch(NODES, "node-0", "", {"spec": {"taints": [taint]}})
    await world.settle()
    assert await storage.where() == []


@pytest.mark.parametrize("how", ["not ready", "gone", "never"])
async def test_a_silent_node_gives_up_after_six_minutes(world: World, storage: Storage, how: str) -> None:
    if how == "never":
        storage.config["disable-force-detach-on-timeout"] = "true"
    await storage.begin()
    await storage.run("one", "node-0")
    await storage.mount("node-0", DISK)
    if how == "gone":
        await world.client.delete(NODES, "node-0")
    else:
        await storage.ready(await world.get(NODES, "node-0"), "Unknown")
    await storage.stop("one")
    await world.settle(350)
    assert await storage.where() == ["node-0"]
    await world.settle(30)
    assert await storage.where() == (["node-0"] if how == "never" else [])


async def test_an_attacher_that_fails_or_is_silent_is_told_of(world: World, storage: Storage) -> None:
    await storage.begin()
    storage.works = False
    await storage.run("one", "node-0")
    await world.settle(130)
    prefix = 'AttachVolume.Attach failed for volume "disk" : '
    late = "timed out waiting for external-attacher of disks.example CSI driver to attach volume h-disk"
    assert ("FailedAttachVolume", prefix + late) in await world.events()
    storage.works, storage.error = True, "no such disk"
    await world.settle(130)
    assert ("FailedAttachVolume", prefix + "no such disk") in await world.events()
    storage.error = ""
    await world.settle(5)
    assert await storage.told("node-0") == [DISK]


async def test_what_needs_no_attaching_is_left_alone(world: World, storage: Storage) -> None:
    spec = {"metadata": {"name": "disks.example"}, "spec": {"attachRequired": False}}
    await world.client.create(CSIDRIVERS, spec)
    await storage.begin()
    await storage.run("one", "node-0")
    assert await storage.where() == []
    plain = {"metadata": {"name": "plain"}}
    await world.client.create(NODES, plain)
    await storage.run("two", "plain")
    assert await storage.where() == [], "its kubelet attaches by itself"


async def test_a_node_is_told_the_truth_when_somebody_else_detached(world: World, storage: Storage) -> None:
    await storage.begin()
    await storage.run("one", "node-0")
    storage.works = False
    (there,) = await world.list(VOLUMEATTACHMENTS)
    await world.client.patch(VOLUMEATTACHMENTS, there["metadata"]["name"], "", {"metadata": {"finalizers": None}})
    await world.client.delete(VOLUMEATTACHMENTS, there["metadata"]["name"])
    await world.settle()
    assert await storage.where() == ["node-0"], "asked for anew: the pod still needs it"
    assert await storage.told("node-0") == []
    await storage.stop("one")
    await world.settle()
    assert (await storage.where(), await storage.told("node-0")) == ([], [])


@pytest.mark.parametrize(
    ("asked", "has", "annotated", "expected"),
    [
        ("2Gi", "1Gi", False, True),
        ("1Gi", "1Gi", False, False),
        ("1Gi", "2Gi", False, False),
        ("1Gi", "1Gi", True, True),
    ],
)
def test_which_claims_grow(asked: str, has: str, annotated: bool, expected: bool) -> None:
    claim = {"spec": {"resources": {"requests": {"storage": asked}}}, "status": {"capacity": {"storage": has}}}
    notes = {"volume.alpha.kubernetes.io/pre-resize-capacity": "1Gi"} if annotated else {}
    assert grows(claim, {"metadata": {"annotations": notes}}) is expected


async def test_a_claim_that_grows_is_left_to_its_driver(world: World, storage: Storage) -> None:
    await storage.begin()
    world.start("persistentvolume-expander-controller")
    await world.settle()
    assert await world.events() == []
    body = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    await world.client.patch(PERSISTENTVOLUMECLAIMS, "disk", "default", body)
    await world.settle(60)
    said = ("ExternalExpanding", "waiting for an external controller to expand this PVC")
    assert await world.events() == [said]


async def test_a_claim_of_an_older_kind_names_the_driver_that_took_over(world: World, storage: Storage) -> None:
    assert migrated(volume()) is None
    await storage.begin(awsElasticBlockStore={"volumeID": "vol-1"})
    world.start("persistentvolume-expander-controller")
    body = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    await world.client.patch(PERSISTENTVOLUMECLAIMS, "disk", "default", body)
    await world.settle()
    claim = await world.get(PERSISTENTVOLUMECLAIMS, "disk")
    assert claim["metadata"]["annotations"]["volume.kubernetes.io/storage-resizer"] == "ebs.csi.aws.com"
    text = "CSI migration enabled for kubernetes.io/aws-ebs; waiting for external resizer to expand the pvc"
    assert ("ExternalExpanding", text) in await world.events()
