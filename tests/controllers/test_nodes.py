from __future__ import annotations

from typing import Any

import pytest

from steersman.api.resource import JOBS, LEASES, NODES, PODS, Object
from steersman.controllers.nodelifecycle import silent, tainted, wanted_taints
from steersman.controllers.tainteviction import stay
from steersman.lib.clock import rfc3339, rfc3339_micro

from .conftest import World
from .objects import pod, template

TAINT = {"key": "a", "value": "b", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("tolerations", "expected"),
    [
        ([], 0.0),
        ([{"key": "a", "operator": "Exists"}], None),
        ([{"operator": "Exists"}], None),
        ([{"key": "a", "value": "b"}], None),
        ([{"key": "a", "value": "c"}], 0.0),
        ([{"key": "a", "operator": "Exists", "effect": "NoSchedule"}], 0.0),
        ([{"key": "a", "operator": "Exists", "tolerationSeconds": 30}], 30.0),
        ([{"key": "a", "operator": "Exists", "tolerationSeconds": -5}], 0.0),
        ([{"operator": "Exists", "tolerationSeconds": 30}, {"key": "a", "value": "b", "tolerationSeconds": 5}], 5.0),
    ],
)
def test_how_long_a_pod_may_stay(tolerations: list[Object], expected: float | None) -> None:
    assert stay(tolerations, [TAINT]) == expected


def a_node(ready: str = "True", **spec: Any) -> Object:
    conditions = [{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "True"}]
    return {"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("node", "evict", "expected"),
    [
        (a_node(), True, {("disk-pressure", "NoSchedule")}),
        (a_node(unschedulable=True), True, {("disk-pressure", "NoSchedule"), ("unschedulable", "NoSchedule")}),
        (
            a_node("False"),
            True,
            {("disk-pressure", "NoSchedule"), ("not-ready", "NoSchedule"), ("not-ready", "NoExecute")},
        ),
        (a_node("Unknown"), False, {("disk-pressure", "NoSchedule"), ("unreachable", "NoSchedule")}),
    ],
)
def test_conditions_become_taints(node: Object, evict: bool, expected: set[tuple[str, str]]) -> None:
    assert wanted_taints(node, evict=evict) == expected


def test_others_taints_are_left_alone() -> None:
    mine = {"key": "example.com/x", "effect": "NoSchedule"}
    old = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    node = a_node(taints=[mine, old])
    assert tainted(node, {("not-ready", "NoSchedule")}, 0) is None
    assert tainted(node, set(), 0) == [mine]
    added = tainted(node, {("not-ready", "NoSchedule"), ("unreachable", "NoExecute")}, 0)
    assert added is not None
    assert [each["key"] for each in added] == [
        "example.com/x",
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]


def test_a_node_that_never_spoke_says_so() -> None:
    found = silent({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"}}, 0)
    assert found is not None
    assert {each["reason"] for each in found} == {"NodeStatusNeverUpdated"}
    assert silent({"metadata": {}, "status": {"conditions": found}}, 5) is None


async def a_living_node(world: World, name: str) -> None:
    await world.client.create(NODES, {"metadata": {"name": name}})
    node = await world.get(NODES, name)
    stamp = rfc3339(world.clock.now())
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": stamp, "lastTransitionTime": stamp}
    await world.set_status(NODES, node, conditions=[ready])
    await world.client.create(LEASES, {"metadata": {"name": name}, "spec": {"holderIdentity": name}}, "kube-node-lease")


async def heartbeat(world: World, name: str) -> None:
    while True:
        body = {"spec": {"renewTime": rfc3339_micro(world.clock.now())}}
        await world.client.patch(LEASES, name, "kube-node-lease", body)
        await world.clock.sleep(10)


async def ready_of(world: World, name: str) -> str:
    node = await world.get(NODES, name)
    return next(each["status"] for each in node["status"]["conditions"] if each["type"] == "Ready")


async def test_a_silent_node_is_tainted_and_its_pods_leave_after_their_patience(world: World) -> None:
    world.start("node-lifecycle-controller", "taint-eviction-controller")
    for name in ("node-1", "node-2"):
        await a_living_node(world, name)
    world.tasks.spawn(heartbeat(world, "node-2"), "node-2")
    beat = world.tasks.spawn(heartbeat(world, "node-1"), "node-1")
    patience = [
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    ]
    for name, tolerations in (("patient", patience), ("stays", [{"operator": "Exists"}])):
        await world.make_ready(await world.client.create(PODS, pod(name, tolerations=tolerations), "default"))
    await world.settle(600)
    assert await ready_of(world, "node-1") == "True"
    beat.cancel()
    await world.settle(35)
    assert await ready_of(world, "node-1") == "True"
    await world.settle(30)
    assert await ready_of(world, "node-1") == "Unknown"
    assert await ready_of(world, "node-2") == "True"
    taints = (await world.get(NODES, "node-1"))["spec"]["taints"]
    assert {(each["key"], each["effect"]) for each in taints} == {
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoSchedule"),
    }
    found = (await world.get(PODS, "patient"))["status"]["conditions"]
    assert [each["status"] for each in found if each["type"] == "Ready"] == ["False"]
    await world.settle(250)
    assert "deletionTimestamp" not in (await world.get(PODS, "patient"))["metadata"]
    await world.settle(100)
    gone = await world.get(PODS, "patient")
    assert "deletionTimestamp" in gone["metadata"]
    assert "DeletionByTaintManager" in [each.get("reason") for each in gone["status"]["conditions"]]
    assert "deletionTimestamp" not in (await world.get(PODS, "stays"))["metadata"]
    assert "TaintManagerEviction" in [reason for reason, _ in await world.events()]


async def test_a_node_that_returns_keeps_its_pods(world: World) -> None:
    world.start("node-lifecycle-controller", "taint-eviction-controller")
    for name in ("node-1", "node-2"):
        await a_living_node(world, name)
    world.tasks.spawn(heartbeat(world, "node-2"), "node-2")
    patience = [{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]
    await world.make_ready(await world.client.create(PODS, pod("p", tolerations=patience), "default"))
    await world.settle(120)
    assert await ready_of(world, "node-1") == "Unknown"
    node = await world.get(NODES, "node-1")
    stamp = rfc3339(world.clock.now())
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": stamp, "lastTransitionTime": stamp}
    world.tasks.spawn(heartbeat(world, "node-1"), "node-1")
    await world.set_status(NODES, node, conditions=[ready])
    await world.settle(600)
    assert not (await world.get(NODES, "node-1"))["spec"].get("taints")
    assert "deletionTimestamp" not in (await world.get(PODS, "p"))["metadata"]


async def test_when_every_node_is_silent_nobody_is_driven_away(world: World) -> None:
    world.start("node-lifecycle-controller", "taint-eviction-controller")
    await a_living_node(world, "node-1")
    await world.make_ready(await world.client.create(PODS, pod("p"), "default"))
    await world.settle(3600)
    taints = (await world.get(NODES, "node-1"))["spec"]["taints"]
    assert [each["effect"] for each in taints] == ["NoSchedule"]
    assert "deletionTimestamp" not in (await world.get(PODS, "p"))["metadata"]


async def test_pods_that_no_kubelet_will_confirm_are_collected(world: World) -> None:
    world.start("pod-garbage-collector-controller", **{"terminated-pod-gc-threshold": "2"})
    await a_living_node(world, "node-1")
    lost = await world.client.create(PODS, pod("lost"), "default")
    await world.make_ready(lost, node="gone")
    await world.make_ready(await world.client.create(PODS, pod("fine"), "default"))
    await world.settle(30)
    assert await world.names(PODS) == ["fine", "lost"]
    await world.settle(30)
    assert await world.names(PODS) == ["fine"]
    for number in range(4):
        ended = await world.client.create(PODS, pod(f"ended-{number}"), "default")
        await world.make_ready(ended)
        await world.set_status(PODS, ended, phase="Succeeded")
        await world.settle(2)
    assert await world.names(PODS) == ["ended-2", "ended-3", "fine"]


async def test_an_ended_job_goes_when_its_time_to_live_is_over(world: World) -> None:
    world.start("ttl-after-finished-controller", "garbage-collector-controller")
    body = {
        "metadata": {"name": "job"},
        "spec": {"ttlSecondsAfterFinished": 100, "template": template(restartPolicy="Never")},
    }
    job = await world.client.create(JOBS, body, "default")
    await world.settle(500)
    stamp = rfc3339(world.clock.now())
    ended = [
        {"type": kind, "status": "True", "lastTransitionTime": stamp} for kind in ("SuccessCriteriaMet", "Complete")
    ]
    await world.set_status(
        JOBS, job, conditions=ended, startTime=stamp, completionTime=stamp, succeeded=1, uncountedTerminatedPods={}
    )
    await world.settle(90)
    assert await world.names(JOBS) == ["job"]
    await world.settle(20)
    assert await world.names(JOBS) == []
