"""What the binder says and writes where a binding or a reclaiming does not simply go well."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from steersman.api.resource import EVENTS, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, Object
from steersman.controllers.pvbinder.claims import STORAGECLASSES
from steersman.controllers.pvbinder.matching import mismatch
from steersman.controllers.pvbinder.reclaim import recycler
from steersman.controllers.pvbinder.writes import guards

from .conftest import World
from .objects import pod
from .test_pvbinder import claim, new_claim, volume

BINDER = "persistentvolume-binder-controller"


async def told(world: World) -> set[tuple[str, str, str, str]]:
    """Kind, type, reason and message of every event."""
    await world.recorder.flush()
    found = await world.list(EVENTS, "default")
    return {(each["involvedObject"]["kind"], each["type"], each["reason"], each["message"]) for each in found}


async def test_a_claim_for_a_volume_that_cannot_hold_it_says_why(world: World) -> None:
    world.start(BINDER)
    await world.client.create(PERSISTENTVOLUMES, volume())
    await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(size="2Gi", volumeName="disk"), "default")
    await world.settle()
    text = 'Cannot bind to requested volume "disk": requested PV is too small'
    assert ("PersistentVolumeClaim", "Warning", "VolumeMismatch", text) in await told(world)


@pytest.mark.parametrize(
    ("asked", "offered", "why"),
    [
        (claim(), volume(), ""),
        (claim("2Gi"), volume(), "requested PV is too small"),
        (claim(storageClassName="fast"), volume(), "storageClassName does not match"),
        (claim(volumeAttributesClassName="gold"), volume(), "volumeAttributesClassName does not match"),
        (claim(volumeMode="Block"), volume(), "incompatible volumeMode"),
        (claim(accessModes=["ReadWriteMany"]), volume(), "incompatible accessMode"),
        (
            claim(),
            {**volume(), "metadata": {"name": "disk", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
            'the volume is marked for deletion "disk"',
        ),
    ],
)
def test_why_a_volume_does_not_do(asked: Object, offered: Object, why: str) -> None:
    assert mismatch(offered, asked) == why


async def test_a_reserved_volume_of_the_other_mode_is_told_of_on_both_sides(world: World) -> None:
    world.start(BINDER)
    made = await world.client.create(
        PERSISTENTVOLUMECLAIMS, new_claim(storageClassName="", volumeMode="Block"), "default"
    )
    reference = {"namespace": "default", "name": "data", "uid": made["metadata"]["uid"]}
    await world.client.create(PERSISTENTVOLUMES, volume(claimRef=reference))
    await world.settle()
    found = await told(world)
    text = 'Cannot bind PersistentVolume to requested PersistentVolumeClaim "data" due to incompatible volumeMode.'
    assert ("PersistentVolume", "Warning", "VolumeMismatch", text) in found
    text = 'Cannot bind PersistentVolume "disk" to requested PersistentVolumeClaim due to incompatible volumeMode.'
    assert ("PersistentVolumeClaim", "Warning", "VolumeMismatch", text) in found


async def test_a_volume_that_somebody_else_has(world: World) -> None:
    world.start(BINDER)
    reference = {"namespace": "default", "name": "other", "uid": "u"}
    await world.client.create(PERSISTENTVOLUMES, volume(claimRef=reference, persistentVolumeReclaimPolicy="Retain"))
    await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(volumeName="disk"), "default")
    await world.settle()
    text = 'volume "disk" already bound to a different claim.'
    assert ("PersistentVolumeClaim", "Warning", "FailedBinding", text) in await told(world)


async def test_what_waits_is_told_again_every_round(world: World) -> None:
    world.start(BINDER, **{"pvclaimbinder-sync-period": "60"})
    late = {
        "metadata": {"name": "late"},
        "provisioner": "example.com/disks",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    await world.client.create(STORAGECLASSES, late)
    await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(storageClassName="late"), "default")
    await world.settle(200)
    for name in ("one", "two"):
        user = pod(name, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])
        await world.client.create(PODS, user, "default")
    await world.settle(60)
    await world.recorder.flush()
    counts = {each["reason"]: each["count"] for each in await world.list(EVENTS)}
    assert counts["WaitForFirstConsumer"] >= 4
    text = "waiting for pods one,two to be scheduled"
    assert ("PersistentVolumeClaim", "Normal", "WaitForPodScheduled", text) in await told(world)


@pytest.mark.parametrize(
    ("made", "spec", "why"),
    [
        ("kubernetes.io/no-provisioner", {}, "no volume plugin matched name: kubernetes.io/no-provisioner"),
        ("kubernetes.io/nfs", {}, "no provisionable volume plugin matched"),
        (
            "kubernetes.io/host-path",
            {},
            'Failed to create provisioner: provisioning in volume plugin "kubernetes.io/host-path" is disabled',
        ),
        (
            "kubernetes.io/host-path",
            {"dataSource": {"kind": "PersistentVolumeClaim", "name": "old"}},
            'plugin "kubernetes.io/host-path" is not a CSI plugin. '
            "Only CSI plugin can provision a claim with a datasource",
        ),
    ],
)
async def test_classes_of_which_nothing_can_come(world: World, made: str, spec: Object, why: str) -> None:
    world.start(BINDER)
    await world.client.create(STORAGECLASSES, {"metadata": {"name": "own"}, "provisioner": made})
    await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(storageClassName="own", **spec), "default")
    await world.settle()
    assert ("PersistentVolumeClaim", "Warning", "ProvisioningFailed", why) in await told(world)


async def test_in_tree_classes_are_their_drivers_business(world: World) -> None:
    world.start(BINDER)
    await world.client.create(STORAGECLASSES, {"metadata": {"name": "ebs"}, "provisioner": "kubernetes.io/aws-ebs"})
    await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(storageClassName="ebs"), "default")
    old = {"name": "old", "annotations": {"volume.beta.kubernetes.io/storage-provisioner": "kubernetes.io/gce-pd"}}
    await world.client.create(PERSISTENTVOLUMECLAIMS, {**new_claim(storageClassName=""), "metadata": old}, "default")
    await world.settle()
    found = await world.get(PERSISTENTVOLUMECLAIMS, "data")
    assert found["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"] == "ebs.csi.aws.com"
    found = await world.get(PERSISTENTVOLUMECLAIMS, "old")
    assert found["metadata"]["annotations"]["pv.kubernetes.io/migrated-to"] == "pd.csi.storage.gke.io"


async def test_a_claim_older_than_the_default_class_gets_it(world: World) -> None:
    world.start(BINDER)
    await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(), "default")
    await world.settle()
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    for name in ("newer", "also"):
        meta = {"name": name, "annotations": default}
        await world.client.create(STORAGECLASSES, {"metadata": meta, "provisioner": "example.com/disks"})
    await world.settle(20)
    assert (await world.get(PERSISTENTVOLUMECLAIMS, "data"))["spec"]["storageClassName"] == "also"


async def _released(world: World, **spec: Any) -> None:
    """A volume whose claim is gone."""
    await world.client.create(PERSISTENTVOLUMES, volume(**spec))
    await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(storageClassName=""), "default")
    await world.settle()
    await world.client.delete(PERSISTENTVOLUMECLAIMS, "data", "default")
    await world.settle()


async def test_a_pod_scrubs_what_is_to_be_recycled(world: World) -> None:
    world.start(BINDER)
    await _released(world, persistentVolumeReclaimPolicy="Recycle")
    scrubber = await world.get(PODS, "recycler-for-disk")
    assert scrubber["spec"]["activeDeadlineSeconds"] == 60
    assert scrubber["spec"]["volumes"][0] == {"name": "vol", "hostPath": {"path": "/tmp/x", "type": ""}}
    world.recorder.event(scrubber, "Normal", "Started", "Started container pv-recycler")
    await world.settle()
    await world.set_status(PODS, scrubber, phase="Succeeded")
    await world.settle()
    found = await told(world)
    assert ("PersistentVolume", "Normal", "VolumeRecycled", "Volume recycled") in found
    assert ("PersistentVolume", "Normal", "RecyclerPod", "Recycler pod: Started container pv-recycler") in found
    assert await world.names(PODS) == []
    freed = await world.get(PERSISTENTVOLUMES, "disk")
    assert (freed["status"]["phase"], freed["spec"].get("claimRef")) == ("Available", None)


async def test_scrubbing_that_fails_is_told_and_tried_again(world: World) -> None:
    world.start(BINDER)
    await world.client.create(PODS, pod("recycler-for-disk"), "default")
    await _released(world, persistentVolumeReclaimPolicy="Recycle")
    text = "Recycle failed: old recycler pod found, will retry later"
    assert ("PersistentVolume", "Warning", "VolumeFailedRecycle", text) in await told(world)
    assert (await world.get(PERSISTENTVOLUMES, "disk"))["status"] | {"lastPhaseTransitionTime": ""} == {
        "phase": "Failed",
        "message": text,
        "lastPhaseTransitionTime": "",
    }
    await world.settle(20)
    scrubber = await world.get(PODS, "recycler-for-disk")
    await world.set_status(PODS, scrubber, phase="Succeeded")
    await world.settle(20)
    assert (await world.get(PERSISTENTVOLUMES, "disk"))["status"]["phase"] == "Available"


async def test_only_directories_and_nfs_are_recycled_and_only_when_unused(world: World) -> None:
    world.start(BINDER)
    iscsi = {"targetPortal": "192.0.2.1", "iqn": "iqn.2001-04.com.example:x", "lun": 0}
    await _released(world, persistentVolumeReclaimPolicy="Recycle", hostPath=None, iscsi=iscsi)
    text = "No recycler plugin found for the volume!"
    assert ("PersistentVolume", "Warning", "VolumeFailedRecycle", text) in await told(world)
    user = pod("user", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])
    await world.client.create(PODS, user, "default")
    await world.settle(20)
    text = "Volume is used by pods: default/user"
    assert ("PersistentVolume", "Normal", "VolumeFailedRecycle", text) in await told(world)


def test_a_scrubbing_pod_has_time_for_the_size() -> None:
    disk = volume(size="10Gi")
    assert recycler(disk, "hostpath", {})["spec"]["activeDeadlineSeconds"] == 300
    flags = {"pv-recycler-timeout-increment-hostpath": "60", "pv-recycler-minimum-timeout-hostpath": "700"}
    assert recycler(disk, "hostpath", flags)["spec"]["activeDeadlineSeconds"] == 700
    nfs = volume(nfs={"server": "192.0.2.1", "path": "/x"})
    own = '{"metadata": {"namespace": "kube-system"}, "spec": {"volumes": [{"name": "a"}], "containers": []}}'
    made = recycler(nfs, "nfs", {"pv-recycler-pod-template-nfs": own})
    assert made["metadata"] == {"namespace": "kube-system", "name": "recycler-for-disk"}
    assert made["spec"]["volumes"] == [{"name": "a", "nfs": {"server": "192.0.2.1", "path": "/x"}}]
    assert made["spec"]["activeDeadlineSeconds"] == 300


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (
            {"hostPath": {"path": "/srv/x"}},
            "host_path deleter only supports /tmp/.+ but received provided /srv/x",
        ),
        (
            {"hostPath": None, "nfs": {"server": "192.0.2.1", "path": "/x"}},
            'error getting deleter volume plugin for volume "disk": no deletable volume plugin matched',
        ),
    ],
)
async def test_what_nobody_can_delete_fails(world: World, spec: Object, why: str) -> None:
    world.start(BINDER)
    await _released(world, persistentVolumeReclaimPolicy="Delete", **spec)
    assert ("PersistentVolume", "Warning", "VolumeFailedDelete", why) in await told(world)
    assert (await world.get(PERSISTENTVOLUMES, "disk"))["status"]["phase"] == "Failed"


async def test_a_directory_is_deleted_with_its_volume(world: World, tmp_path: Any) -> None:
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "file").write_text("x")
    world.start(BINDER, volumes="somewhere")
    await _released(world, persistentVolumeReclaimPolicy="Delete", hostPath={"path": str(inside)})
    await world.settle(20)
    assert await world.list(PERSISTENTVOLUMES) == []
    assert not inside.exists()


async def test_a_link_out_of_the_temporary_directory_is_not_followed(world: World, tmp_path: Any) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as outside:
        (tmp_path / "link").symlink_to(outside)
        world.start(BINDER, volumes="somewhere")
        await _released(world, persistentVolumeReclaimPolicy="Delete", hostPath={"path": f"{tmp_path}/link"})
        await world.settle(20)
        assert await world.list(PERSISTENTVOLUMES) == []
        assert Path(outside).is_dir()


async def test_a_provisioner_deletes_its_own(world: World) -> None:
    world.start(BINDER)
    made = volume(persistentVolumeReclaimPolicy="Delete")
    made["metadata"]["annotations"] = {"pv.kubernetes.io/provisioned-by": "example.com/disks"}
    await world.client.create(PERSISTENTVOLUMES, made)
    await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(storageClassName=""), "default")
    await world.settle()
    await world.client.delete(PERSISTENTVOLUMECLAIMS, "data", "default")
    await world.settle(20)
    assert (await world.get(PERSISTENTVOLUMES, "disk"))["status"]["phase"] == "Released"


@pytest.mark.parametrize(
    ("provisioner", "policy", "before", "after"),
    [
        ("kubernetes.io/host-path", "Delete", [], ["kubernetes.io/pv-controller"]),
        ("kubernetes.io/host-path", "Retain", ["a", "kubernetes.io/pv-controller"], ["a"]),
        ("kubernetes.io/aws-ebs", "Delete", ["kubernetes.io/pv-controller"], []),
        ("example.com/disks", "Delete", ["external-provisioner.volume.kubernetes.io/finalizer"], None),
    ],
)
def test_who_guards_the_end_of_a_volume(
    provisioner: str, policy: str, before: list[str], after: list[str] | None
) -> None:
    noted = {"pv.kubernetes.io/provisioned-by": provisioner}
    made = {"metadata": {"annotations": noted, "finalizers": before}, "spec": {"persistentVolumeReclaimPolicy": policy}}
    assert guards(made) == (before if after is None else after)
