"""Volume plugins: against scalar versions, and over the real API server with the binder beside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.api.resource import (
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    SERVICEACCOUNTS,
    Object,
)
from steersman.client.controller import Context
from steersman.client.informer import Informers
from steersman.client.series import SeriesRecorder
from steersman.controllers.run import run_controllers
from steersman.lib.tasks import Tasks
from steersman.scheduler import podinfo
from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import Event, Plugin
from steersman.scheduler.observer import STORAGECLASSES
from steersman.scheduler.plugins import node_volume_limits, volume_binding, volume_restrictions, volume_zone
from steersman.scheduler.podinfo import PodInfo
from steersman.scheduler.scheduler import Scheduler
from steersman.testing.cluster import ApiCluster
from tests.scheduler.test_scheduler import a_node, a_pod, add_node, until, virtual

ZONE = "topology.kubernetes.io/zone"
LATE = {"volumeBindingMode": "WaitForFirstConsumer"}


def claim(name: str, size: int = 1, mode: str = "ReadWriteOnce", **spec: Any) -> Object:
    meta = {"name": name, "namespace": "d", "uid": f"uid-{name}", "annotations": {}}
    if "volumeName" in spec:
        meta["annotations"] = {"pv.kubernetes.io/bind-completed": "yes"}
    requests = {"requests": {"storage": f"{size}Gi"}}
    return {"metadata": meta, "spec": {"accessModes": [mode], "resources": requests, **spec}}


def volume(name: str, size: int = 1, zones: list[str] | None = None, **spec: Any) -> Object:
    made: Object = {
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "spec": {"capacity": {"storage": f"{size}Gi"}, "accessModes": ["ReadWriteOnce"], **spec},
        "status": {"phase": "Available"},
    }
    if zones is not None:
        terms = [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": zones}]}]
        made["spec"]["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
    return made


def pod(uid: str, *claims: str) -> PodInfo:
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
    spec = {"containers": [{"name": "c"}], "volumes": volumes}
    return podinfo.read({"metadata": {"uid": uid, "name": uid, "namespace": "d"}, "spec": spec})


def node(name: str, zone: str | None = None) -> Object:
    labels = {"kubernetes.io/hostname": name} | ({ZONE: zone} if zone else {})
    return {"metadata": {"name": name, "labels": labels}}


def refusals(columns: Columns, plugin: Plugin, info: PodInfo) -> dict[str, set[str]]:
    """The reasons by node."""
    assert plugin.filter is not None
    found: dict[str, set[str]] = {name: set() for name in columns.rows}
    for rejection in plugin.filter(columns, info):
        for row in np.flatnonzero(rejection.nodes & columns.live):
            found[columns.names[row]].add(rejection.reason)
    return found


BINDING = volume_binding.make({"bindTimeoutSeconds": 600})
NO_MATCH = "node(s) didn't find available persistent volumes to bind"
NO_REACH = "node(s) didn't match PersistentVolume's node affinity"


def fits(zone: str, volumes: list[tuple[int, list[str] | None]], sizes: list[int], makes: set[str]) -> bool:
    """Whether claims of these sizes find volumes in a zone, one after the other, or can be made there."""
    left = sorted(volumes, key=lambda each: each[0])
    for size in sorted(sizes):
        for each in left:
            if each[0] >= size and (each[1] is None or zone in each[1]):
                left.remove(each)
                break
        else:
            if zone not in makes:
                return False
    return True


zones = st.sampled_from(["a", "b", "c"])


@settings(deadline=None)
@given(
    st.lists(zones, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(1, 3), st.none() | st.lists(zones, min_size=1, max_size=2)), max_size=4),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.none() | st.sets(zones, min_size=1),
)
def test_claims_that_wait_find_volumes_node_by_node(
    where: list[str],
    volumes: list[tuple[int, list[str] | None]],
    sizes: list[int],
    made: set[str] | None,
) -> None:
    columns = Columns()
    for at, zone in enumerate(where):
        columns.set_node(node(f"n{at}", zone))
    topology = [{"matchLabelExpressions": [{"key": ZONE, "values": sorted(made)}]}] if made else []
    provisioner = "example.com/p" if made else "kubernetes.io/no-provisioner"
    found = {"metadata": {"name": "late"}, "provisioner": provisioner, "allowedTopologies": topology, **LATE}
    columns.volumes.set_class("late", found)
    for at, (size, reach) in enumerate(volumes):
        columns.volumes.set_volume(f"v{at}", volume(f"v{at}", size, reach, storageClassName="late"))
    names = [f"c{at}" for at in range(len(sizes))]
    for name, size in zip(names, sizes, strict=True):
        columns.volumes.set_claim(("d", name), claim(name, size, storageClassName="late"))
    info = pod("p", *names)
    assert volume_binding.admit(columns, info) is None
    reasons = refusals(columns, BINDING, info)
    for at, zone in enumerate(where):
        assert reasons[f"n{at}"] == (set() if fits(zone, volumes, sizes, made or set()) else {NO_MATCH})
    for at, zone in enumerate(where):
        if reasons[f"n{at}"]:
            continue
        taken = volume_binding.reserve(columns, info, f"n{at}", 1)
        assert taken is not None
        held = [
            each["spec"]["claimRef"]["name"] for each in columns.volumes.volumes.values() if "claimRef" in each["spec"]
        ]
        made_here = [
            name
            for name in names
            if "annotations" in (m := columns.volumes.claims["d", name]["metadata"]) and m["annotations"]
        ]
        assert sorted([*held, *made_here]) == names
        for each in columns.volumes.volumes.values():
            reach = (each["spec"].get("nodeAffinity") or {}).get("required")
            if "claimRef" in each["spec"] and reach:
                assert zone in reach["nodeSelectorTerms"][0]["matchExpressions"][0]["values"]
        taken.undo()
        assert not any("claimRef" in each["spec"] for each in columns.volumes.volumes.values())


def test_bound_claims_say_where() -> None:
    columns = Columns()
    for name, zone in (("na", "a"), ("nb", "b")):
        columns.set_node(node(name, zone))
    columns.volumes.set_volume("v", volume("v", zones=["a"]))
    columns.volumes.set_claim(("d", "c"), claim("c", volumeName="v"))
    columns.volumes.set_claim(("d", "gone"), claim("gone", volumeName="lost"))
    assert refusals(columns, BINDING, pod("p", "c")) == {"na": set(), "nb": {NO_REACH}}
    missing = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
    assert refusals(columns, BINDING, pod("p", "gone")) == {"na": {missing}, "nb": {missing}}


def test_capacity_is_looked_at_where_it_is_published() -> None:
    columns = Columns()
    for name, zone in (("na", "a"), ("nb", "b")):
        columns.set_node(node(name, zone))
    columns.volumes.set_class("late", {"metadata": {"name": "late"}, "provisioner": "example.com/p", **LATE})
    columns.volumes.set_driver("example.com/p", {"spec": {"storageCapacity": True}})
    columns.volumes.set_claim(("d", "c"), claim("c", 10, storageClassName="late"))
    full = "node(s) did not have enough free storage"
    assert refusals(columns, BINDING, pod("p", "c")) == {"na": {full}, "nb": {full}}
    capacity = {"storageClassName": "late", "capacity": "20Gi", "nodeTopology": {"matchLabels": {ZONE: "b"}}}
    columns.volumes.set_capacity(("d", "k"), capacity)
    assert refusals(columns, BINDING, pod("p", "c")) == {"na": {full}, "nb": set()}
    columns.volumes.set_capacity(("d", "k"), {**capacity, "maximumVolumeSize": "5Gi"})
    assert refusals(columns, BINDING, pod("p", "c")) == {"na": {full}, "nb": {full}}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, 'persistentvolumeclaim "c" not found'),
        (claim("c", storageClassName=""), "pod has unbound immediate PersistentVolumeClaims"),
        (claim("c", storageClassName="nobody"), "pod has unbound immediate PersistentVolumeClaims"),
        (claim("c", storageClassName="late"), None),
        (
            {**claim("c", volumeName="v"), "status": {"phase": "Lost"}},
            'persistentvolumeclaim "c" bound to non-existent persistentvolume "v"',
        ),
        (
            {**claim("c"), "metadata": {**claim("c")["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}},
            'persistentvolumeclaim "c" is being deleted',
        ),
    ],
)
def test_what_is_wrong_with_a_claim(found: Object | None, why: str | None) -> None:
    columns = Columns()
    columns.volumes.set_class("late", {"metadata": {"name": "late"}, **LATE})
    columns.volumes.set_claim(("d", "c"), found)
    assert volume_binding.admit(columns, pod("p", "c")) == why


def attachment(node: str, name: str) -> Object:
    return {
        "metadata": {"name": f"{node}-{name}"},
        "spec": {"attacher": "example.com/d", "nodeName": node, "source": {"persistentVolumeName": name}},
    }


def test_an_attachment_that_is_gone_makes_room() -> None:
    columns = Columns()
    csi = {"driver": "example.com/d", "volumeHandle": "h"}
    columns.volumes.set_attachment("a", attachment("n", "old"))
    for name in ("old", "new"):
        columns.volumes.set_volume(name, volume(name, csi=csi | {"volumeHandle": name}))
        columns.volumes.set_claim(("d", name), claim(name, volumeName=name))
    drivers = [{"name": "example.com/d", "allocatable": {"count": 1}}]
    columns.set_node(node("n"))
    columns.volumes.set_limits("n", columns.rows["n"], {"spec": {"drivers": drivers}})
    plugin, mine = node_volume_limits.make({}), pod("p", "new")
    assert refusals(columns, plugin, mine) == {"n": {"node(s) exceed max volume count"}}
    columns.volumes.set_attachment("a", None)
    assert refusals(columns, plugin, mine) == {"n": set()}
    hint = plugin.hints["attachment"]
    assert hint(columns, mine, Event("attachment", old=attachment("n", "old")))
    assert not hint(columns, mine, Event("attachment", new=attachment("n", "old")))
    assert not hint(columns, pod("q"), Event("attachment", old=attachment("n", "old")))


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.sets(st.sampled_from("123"), min_size=1)), max_size=4),
    st.sets(st.sampled_from("123"), min_size=1),
    st.integers(0, 4),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from("123"), st.booleans()), max_size=5),
)
def test_limits(
    limits: list[int],
    put: list[tuple[int, set[str]]],
    wanted: set[str],
    gone: int,
    attached: list[tuple[int, str, bool]],
) -> None:
    columns = Columns()
    for number, (at, name, _) in enumerate(attached):
        columns.volumes.set_attachment(f"a{number}", attachment(f"n{at % len(limits)}", name))
    for name in "123":
        csi = {"driver": "example.com/d", "volumeHandle": f"h{name}"}
        columns.volumes.set_volume(name, volume(name, csi=csi))
        columns.volumes.set_claim(("d", name), claim(name, volumeName=name))
    for at, limit in enumerate(limits):
        drivers = [{"name": "example.com/d", "allocatable": {"count": limit}}] if limit < 3 else []
        columns.volumes.set_limits(f"n{at}", None, {"spec": {"drivers": drivers}})
        columns.set_node(node(f"n{at}"))
    there: list[set[str]] = [set() for _ in limits]
    for number, (at, names) in enumerate(put):
        columns.add_pod(pod(f"p{number}", *sorted(names)), f"n{at % len(limits)}")
        if number >= gone:
            columns.remove_pod(f"p{number}")
        else:
            there[at % len(limits)] |= names
    named: list[set[str]] = [set() for _ in limits]
    for number, (at, name, stays) in enumerate(attached):
        if stays:
            named[at % len(limits)].add(name)
        else:
            columns.volumes.set_attachment(f"a{number}", None)
    reasons = refusals(columns, node_volume_limits.make({}), pod("p", *sorted(wanted)))
    for at, limit in enumerate(limits):
        new = wanted - there[at]
        crowded = limit < 3 and new and len(there[at] | named[at]) + len(new) > limit
        assert reasons[f"n{at}"] == ({"node(s) exceed max volume count"} if crowded else set())


def test_zones_of_volumes() -> None:
    columns = Columns()
    columns.set_node(node("a", "a"))
    columns.set_node(node("b", "b"))
    columns.set_node(node("nowhere"))
    columns.volumes.set_claim(("d", "c"), claim("c", volumeName="v"))
    assert volume_zone.admit(columns, pod("p", "c")) == 'persistentvolume "v" not found'
    labelled = volume("v")
    labelled["metadata"]["labels"] = {"failure-domain.beta.kubernetes.io/zone": "b__c"}
    columns.volumes.set_volume("v", labelled)
    reasons = refusals(columns, volume_zone.make({}), pod("p", "c"))
    assert reasons == {"a": {"node(s) had no available volume zone"}, "b": set(), "nowhere": set()}


def test_a_claim_for_one_pod_alone() -> None:
    columns = Columns()
    columns.set_node(node("a"))
    columns.volumes.set_claim(("d", "c"), claim("c", mode="ReadWriteOncePod"))
    plugin = volume_restrictions.make({})
    assert refusals(columns, plugin, pod("p", "c")) == {"a": set()}
    columns.add_pod(pod("first", "c"), "a")
    assert refusals(columns, plugin, pod("p", "c"))["a"]
    columns.remove_pod("first")
    assert refusals(columns, plugin, pod("p", "c")) == {"a": set()}


async def with_storage(body: Callable[[ApiCluster], Awaitable[None]]) -> None:
    """The scheduler and the binder."""
    async with ApiCluster() as cluster, Tasks() as tasks:
        client, clock = cluster.client, cluster.clock
        recorder = SeriesRecorder(client, clock, tasks, controller="default-scheduler", host="h")
        informers = Informers(client, clock=clock, tasks=tasks)
        tasks.spawn(Scheduler(client, informers, recorder, clock, Random(1)).run(), "scheduler")
        context = Context(client, informers, clock, recorder, Random(1), {})
        tasks.spawn(run_controllers(context, ("persistentvolume-binder-controller",)), "binder")
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
        await body(cluster)


def with_claim(name: str, claimed: str, **spec: Any) -> Object:
    return a_pod(name, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": claimed}}], **spec)


def new_claim(name: str, **spec: Any) -> Object:
    made = claim(name, **spec)
    return {"metadata": {"name": name}, "spec": made["spec"]}


def test_a_pod_gets_its_volume_with_its_node() -> None:
    async def body(cluster: ApiCluster) -> None:
        client = cluster.client
        for name, zone in (("na", "a"), ("nb", "b")):
            made = a_node(name)
            made["metadata"]["labels"] = {ZONE: zone}
            await add_node(cluster, made)
        late = {"metadata": {"name": "late"}, "provisioner": "kubernetes.io/no-provisioner", **LATE}
        await client.create(STORAGECLASSES, late)
        await client.create(PODS, with_claim("user", "data"), "default")
        found = await until(cluster, "user", lambda pod: bool((pod.get("status") or {}).get("conditions")))
        assert found["status"]["conditions"][0]["message"] == (
            '0/2 nodes are available: persistentvolumeclaim "data" not found. no new claims to deallocate, '
            "preemption: 0/2 nodes are available: "
            "2 Preemption is not helpful for scheduling."
        )
        await client.create(PERSISTENTVOLUMECLAIMS, new_claim("data", storageClassName="late"), "default")
        await until(cluster, "user", lambda pod: NO_MATCH in pod["status"]["conditions"][0]["message"])
        disk = volume("disk", zones=["b"], storageClassName="late", hostPath={"path": "/x"})
        disk["metadata"].pop("uid")
        await client.create(PERSISTENTVOLUMES, disk)
        found = await until(cluster, "user", lambda pod: bool(pod["spec"].get("nodeName")))
        assert found["spec"]["nodeName"] == "nb"
        bound = await client.get(PERSISTENTVOLUMECLAIMS, "data", "default")
        assert (bound["status"]["phase"], bound["spec"]["volumeName"]) == ("Bound", "disk")
        kept = await client.get(PERSISTENTVOLUMES, "disk")
        assert kept["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"] == "yes"

    virtual(lambda: with_storage(body))


def test_a_claim_is_made_for_the_node_that_was_chosen() -> None:
    async def body(cluster: ApiCluster) -> None:
        client = cluster.client
        await add_node(cluster, a_node("n"))
        late = {"metadata": {"name": "late"}, "provisioner": "example.com/p", **LATE}
        await client.create(STORAGECLASSES, late)
        await client.create(PERSISTENTVOLUMECLAIMS, new_claim("data", storageClassName="late"), "default")
        await client.create(PODS, with_claim("user", "data"), "default")
        async with asyncio.timeout(60):
            while True:
                found = await client.get(PERSISTENTVOLUMECLAIMS, "data", "default")
                annotations = found["metadata"].get("annotations") or {}
                if "volume.kubernetes.io/selected-node" in annotations:
                    break
                await cluster.clock.sleep(0.1)
        assert annotations["volume.kubernetes.io/selected-node"] == "n"
        await cluster.clock.sleep(30)
        assert not (await client.get(PODS, "user", "default"))["spec"].get("nodeName")
        disk = volume("disk", storageClassName="late", hostPath={"path": "/x"})
        disk["metadata"].pop("uid")
        reference = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "data"}
        disk["spec"]["claimRef"] = {**reference, "uid": found["metadata"]["uid"]}
        await client.create(PERSISTENTVOLUMES, disk)
        await until(cluster, "user", lambda pod: bool(pod["spec"].get("nodeName")))

    virtual(lambda: with_storage(body))


def test_a_more_important_pod_takes_a_claim_for_one() -> None:
    async def body(cluster: ApiCluster) -> None:
        client = cluster.client
        for name in ("n", "m"):
            await add_node(cluster, a_node(name))
        disk = volume("disk", hostPath={"path": "/x"})
        disk["metadata"].pop("uid")
        disk["spec"]["accessModes"] = ["ReadWriteOncePod"]
        await client.create(PERSISTENTVOLUMES, disk)
        wanted = new_claim("data", mode="ReadWriteOncePod", storageClassName="")
        await client.create(PERSISTENTVOLUMECLAIMS, wanted, "default")
        await client.create(PODS, with_claim("first", "data"), "default")
        await until(cluster, "first", lambda pod: bool(pod["spec"].get("nodeName")))
        await client.create(PODS, with_claim("equal", "data"), "default")
        found = await until(cluster, "equal", lambda pod: bool((pod.get("status") or {}).get("conditions")))
        assert "ReadWriteOncePod access mode already in-use" in found["status"]["conditions"][0]["message"]
        await client.create(PODS, with_claim("urgent", "data", priority=1000), "default")
        async with asyncio.timeout(60):
            while True:
                first = [p for p in (await client.list(PODS, "default")).items if p["metadata"]["name"] == "first"]
                if not first or first[0]["metadata"].get("deletionTimestamp"):
                    break
                await cluster.clock.sleep(0.1)
        if first:
            await client.delete(PODS, "first", "default", grace_seconds=0)
        await until(cluster, "urgent", lambda pod: bool(pod["spec"].get("nodeName")))

    virtual(lambda: with_storage(body))
