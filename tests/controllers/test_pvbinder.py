from __future__ import annotations

from typing import Any

import pytest

from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, Object
from steersman.controllers.pvbinder.claims import STORAGECLASSES
from steersman.controllers.pvbinder.matching import best

from .conftest import World
from .objects import pod


def volume(name: str = "disk", size: str = "1Gi", **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "labels": {"disk": name}},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/tmp/x"},
            "persistentVolumeReclaimPolicy": "Retain",
            **spec,
        },
    }


def claim(size: str = "1Gi", **spec: Any) -> Object:
    return {
        "metadata": {"name": "data", "namespace": "default", "uid": "u"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec},
    }


@pytest.mark.parametrize(
    ("asked", "offered", "expected"),
    [
        (claim(), [volume("big", "5Gi"), volume("small", "2Gi")], "small"),
        (claim("3Gi"), [volume("small", "2Gi")], None),
        (claim(), [volume("a", storageClassName="fast")], None),
        (claim(storageClassName="fast"), [volume("a", storageClassName="fast")], "a"),
        (claim(accessModes=["ReadWriteMany"]), [volume("a")], None),
        (claim(volumeMode="Block"), [volume("a")], None),
        (claim(selector={"matchLabels": {"disk": "b"}}), [volume("a"), volume("b")], "b"),
        (claim(), [volume("a"), volume("z", claimRef={"namespace": "default", "name": "data"})], "z"),
        (claim(), [volume("a", accessModes=["ReadWriteOnce", "ReadOnlyMany"]), volume("b", "9Gi")], "b"),
        (claim(), [volume("a", claimRef={"namespace": "default", "name": "other"})], None),
        (claim(), [volume("a", claimRef={"namespace": "default", "name": "data", "uid": "older"})], None),
    ],
)
def test_which_volume(asked: Object, offered: list[Object], expected: str | None) -> None:
    found = best(asked, [{**each, "status": {"phase": "Available"}} for each in offered])
    assert (found["metadata"]["name"] if found else None) == expected


def new_claim(**spec: Any) -> Object:
    return {**claim(**spec), "metadata": {"name": "data"}}


async def phases(world: World) -> tuple[str | None, str | None]:
    volumes, claims = await world.list(PERSISTENTVOLUMES), await world.list(PERSISTENTVOLUMECLAIMS)
    return (
        volumes[0]["status"].get("phase") if volumes else None,
        claims[0]["status"].get("phase") if claims else None,
    )


async def test_a_claim_is_bound_and_its_volume_released_after_it(world: World) -> None:
    world.start("persistentvolume-binder-controller")
    await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(storageClassName=""), "default")
    await world.settle()
    assert await phases(world) == (None, "Pending")
    assert "FailedBinding" in [reason for reason, _ in await world.events()]
    await world.client.create(PERSISTENTVOLUMES, volume(size="2Gi"))
    await world.settle()
    assert await phases(world) == ("Bound", "Bound")
    bound = await world.get(PERSISTENTVOLUMECLAIMS, "data")
    assert bound["spec"]["volumeName"] == "disk"
    assert bound["status"]["capacity"] == {"storage": "2Gi"}
    assert (await world.get(PERSISTENTVOLUMES, "disk"))["spec"]["claimRef"]["uid"] == bound["metadata"]["uid"]
    revision = world.cluster.store.revision
    await world.settle(3600)
    assert world.cluster.store.revision == revision
    await world.client.delete(PERSISTENTVOLUMECLAIMS, "data", "default")
    await world.settle()
    assert await phases(world) == ("Released", None)
    await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(storageClassName=""), "default")
    await world.settle()
    assert await phases(world) == ("Released", "Pending"), "somebody else's data is not handed on"


async def test_a_claim_whose_volume_is_gone_is_lost(world: World) -> None:
    world.start("persistentvolume-binder-controller")
    await world.client.create(PERSISTENTVOLUMES, volume())
    await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(storageClassName=""), "default")
    await world.settle()
    await world.client.patch(PERSISTENTVOLUMES, "disk", "", {"metadata": {"finalizers": None}})
    await world.client.delete(PERSISTENTVOLUMES, "disk")
    await world.settle()
    assert await phases(world) == (None, "Lost")
    assert "ClaimLost" in [reason for reason, _ in await world.events()]


async def test_classes_wait_for_consumers_or_name_their_provisioner(world: World) -> None:
    world.start("persistentvolume-binder-controller")
    late = {
        "metadata": {"name": "late"},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    await world.client.create(STORAGECLASSES, late)
    await world.client.create(PERSISTENTVOLUMES, volume(storageClassName="late"))
    await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(storageClassName="late"), "default")
    await world.settle()
    assert await phases(world) == ("Available", "Pending")
    user = pod("user", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])
    await world.client.create(PODS, user, "default")
    await world.settle(15)
    assert await phases(world) == ("Available", "Pending")
    assert ("WaitForPodScheduled", "waiting for pod user to be scheduled") in await world.events()
    chosen = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "data"}
    await world.client.patch(PERSISTENTVOLUMES, "disk", "", {"spec": {"claimRef": chosen}})  # as the scheduler does
    await world.settle()
    assert await phases(world) == ("Bound", "Bound")
    other = {**new_claim(storageClassName="made"), "metadata": {"name": "other"}}
    await world.client.create(PERSISTENTVOLUMECLAIMS, other, "default")
    await world.settle()
    assert "ProvisioningFailed" in [reason for reason, _ in await world.events()]
    await world.client.create(STORAGECLASSES, {"metadata": {"name": "made"}, "provisioner": "example.com/disks"})
    await world.settle()
    found = await world.get(PERSISTENTVOLUMECLAIMS, "other")
    assert found["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"] == "example.com/disks"
    assert "ExternalProvisioning" in [reason for reason, _ in await world.events()]
