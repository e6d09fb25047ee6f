"""Pods that could not use their volumes side by side where volumes are mounted with an SELinux label."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, Object
from steersman.client.controller import Context, Key
from steersman.client.metrics import Metrics
from steersman.controllers.run import run_controllers
from steersman.controllers.selinuxwarning import CSIDRIVERS, mounted, unique_name
from steersman.controllers.selinuxwarning.conflicts import Conflict, Use, Uses, differ, label_of

from .conftest import World

NAME = "selinux-warning-controller"


def user(name: str, level: str = "", claim: str = "disk", policy: str = "", **container: Any) -> Object:
    security: Object = {"seLinuxOptions": {"level": level}} if level else {}
    if policy:
        security["seLinuxChangePolicy"] = policy
    first = {"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}], **container}
    spec: Object = {"securityContext": security, "containers": [first]}
    spec["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
    return {"metadata": {"name": name}, "spec": spec}


async def storage(world: World, *, mount: bool = True) -> None:
    """A driver, and a volume of it with its claim."""
    driver = {"metadata": {"name": "disks.example.com"}, "spec": {"seLinuxMount": mount}}
    await world.client.create(CSIDRIVERS, driver)
    asked: Object = {"accessModes": ["ReadWriteMany"], "volumeName": "disk", "storageClassName": ""}
    asked["resources"] = {"requests": {"storage": "1Gi"}}
    claim = await world.client.create(PERSISTENTVOLUMECLAIMS, {"metadata": {"name": "disk"}, "spec": asked}, "default")
    spec: Object = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"]}
    spec["csi"] = {"driver": "disks.example.com", "volumeHandle": "h"}
    spec["claimRef"] = {"namespace": "default", "name": "disk", "uid": claim["metadata"]["uid"]}
    await world.client.create(PERSISTENTVOLUMES, {"metadata": {"name": "disk"}, "spec": spec})
    await world.set_status(PERSISTENTVOLUMECLAIMS, claim, phase="Bound")


async def test_two_labels_are_told_to_both_pods(world: World) -> None:
    await storage(world)
    metrics = Metrics(world.clock.monotonic)
    context = Context(world.client, world.informers, world.clock, world.recorder, None, {}, None, metrics)  # type: ignore[arg-type]
    world.tasks.spawn(run_controllers(context, [NAME]), "controllers")
    await world.client.create(PODS, user("one", "s0:c1,c2"), "default")
    await world.client.create(PODS, user("two", "s0:c3,c4"), "default")
    await world.settle()
    end = "If both pods land on the same node, only one of them may access the volume."
    text = 'SELinuxLabel ":::s0:c1,c2" conflicts with pod two that uses the same volume as this pod with SELinuxLabel '
    assert ("SELinuxLabelConflict", f'{text}":::s0:c3,c4". {end}') in await world.events()
    assert [reason for reason, _ in await world.events()] == ["SELinuxLabelConflict"] * 2
    shown = "selinux_warning_controller_selinux_volume_conflict{pod1_name="
    assert metrics.registry.text().count(shown) == 2
    await world.client.delete(PODS, "two", "default", grace_seconds=0)
    await world.settle()
    assert shown not in metrics.registry.text()


async def test_policies_conflict_too_and_drivers_without_mounts_never_do(world: World) -> None:
    await storage(world, mount=False)
    world.start(NAME)
    await world.client.create(PODS, user("one", "s0:c1,c2"), "default")
    await world.client.create(PODS, user("two", "s0:c3,c4"), "default")
    await world.client.create(PODS, user("three", "s0:c3,c4", policy="Recursive"), "default")
    await world.settle()
    assert await world.events() == []
    await world.client.patch(CSIDRIVERS, "disks.example.com", "", {"spec": {"seLinuxMount": True}})
    await world.settle()
    reasons = [reason for reason, _ in await world.events()]
    assert {"SELinuxLabelConflict", "SELinuxChangePolicyConflict"} == set(reasons)


async def test_one_pod_with_two_labels(world: World) -> None:
    await storage(world)
    world.start(NAME)
    made = user("one", "s0:c1,c2")
    second = {**made["spec"]["containers"][0], "name": "d", "securityContext": {"seLinuxOptions": {"level": "s0:c9"}}}
    made["spec"]["containers"].append(second)
    await world.client.create(PODS, made, "default")
    await world.settle()
    text = 'Volume "v" is mounted twice with different SELinux labels inside this pod'
    assert ("MultipleSELinuxLabels", text) in await world.events()


def test_labels() -> None:
    assert label_of({}) == ""
    assert label_of({"type": "t", "level": "s0:c1,c2"}) == "::t:s0:c1,c2"
    assert mounted(user("a", "s0")) == {"v": {":::s0"}}
    assert mounted(user("a")) == {"v": set()}
    assert mounted(user("a", "s0", securityContext={"seLinuxOptions": {"user": "u"}})) == {"v": {"u:::"}}


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ("system_u:system_r:container_t:s0:c1,c2", ":::s0:c1,c2", False),
        ("system_u:system_r:container_t:s0:c1,c2", ":::s0:c98,c99", True),
        (":::s0:c1,c2", "", True),
        ("", "", False),
        ("a:::s0", "b:::s0", True),
        ("a:::s0", ":r::s0", False),
    ],
)
def test_which_labels_conflict(one: str, other: str, conflict: bool) -> None:
    assert differ(one, other) == differ(other, one) == conflict


def test_a_pod_of_another_namespace_is_not_named() -> None:
    heard: list[tuple[Conflict, bool]] = []
    uses = Uses(lambda conflict, there: heard.append((conflict, there)))
    uses.add("v", Key("a", "one"), Use("::t:s0", "MountOption"), "d")
    [mine, theirs] = uses.add("v", Key("b", "two"), Use("::t:s1", "MountOption"), "d")
    assert "one" not in mine.message.split("If both")[0].replace("one of", "")
    assert mine.message.startswith('SELinuxLabel"::t:s1" conflicts with another pod that uses the same volume')
    assert theirs.pod == Key("a", "one")
    assert uses.add("v", Key("b", "two"), Use("::t:s1", "MountOption"), "d") == [], "said once"
    assert sorted(uses.of_driver("d")) == [Key("a", "one"), Key("b", "two")]
    uses.remove(Key("a", "one"))
    uses.remove(Key("b", "two"))
    assert [there for _, there in heard] == [True, True, False, False]
    assert uses.of_driver("d") == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"csi": {"driver": "d", "volumeHandle": "h"}}, "kubernetes.io/csi/d^h"),
        ({"hostPath": {"path": "/x"}}, "kubernetes.io/host-path//x"),
        ({"nfs": {"server": "s", "path": "/x"}}, "kubernetes.io/nfs/s//x"),
        ({"iscsi": {"targetPortal": "p", "iqn": "q", "lun": 3}}, "kubernetes.io/iscsi/p:q:3"),
        ({"fc": {"targetWWNs": ["a", "b"], "lun": 1}}, "kubernetes.io/fc/[a b]:1"),
        ({"fc": {"wwids": ["w"]}}, "kubernetes.io/fc/[w]"),
    ],
)
def test_names_of_volumes(source: Object, name: str) -> None:
    assert unique_name(source)[0] == name
