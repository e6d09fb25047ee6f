from __future__ import annotations

from typing import Any

import pytest

from steersman.api.resource import PODS, REPLICASETS, REPLICATIONCONTROLLERS, Object
from steersman.client.workload import to_delete
from steersman.controllers.replicaset import plan

from .conftest import World
from .objects import pod, replicaset, template


def a_pod(
    name: str, *, node: str = "n", phase: str = "Running", ready: bool = True, cost: str = "", age: int = 100
) -> Object:
    stamp = f"2026-01-01T00:{(1000 - age) // 60:02}:{(1000 - age) % 60:02}Z"
    meta: dict[str, Any] = {"name": name, "uid": name, "creationTimestamp": stamp}
    if cost:
        meta["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": cost}
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": stamp}] if ready else []
    return {"metadata": meta, "spec": {"nodeName": node}, "status": {"phase": phase, "conditions": conditions}}


NOW = 1767226600.0  # 2026-01-01T00:16:40Z


@pytest.mark.parametrize(
    ("sooner", "later"),
    [
        (a_pod("a", node=""), a_pod("b")),
        (a_pod("b", phase="Pending"), a_pod("a", phase="Running")),
        (a_pod("b", ready=False), a_pod("a")),
        (a_pod("b", cost="-5"), a_pod("a")),
        (a_pod("b"), a_pod("a", cost="10")),
        (a_pod("b", age=10), a_pod("a", age=900)),
        (a_pod("a", cost="not a number"), a_pod("b")),
    ],
)
def test_the_pod_that_is_missed_least_goes_first(sooner: Object, later: Object) -> None:
    assert to_delete([later, sooner], 1, [], NOW) == [sooner]


def test_what_stays_is_spread_over_nodes() -> None:
    crowded, alone = a_pod("b", node="n1"), a_pod("a", node="n2")
    related = [crowded, alone, a_pod("c", node="n1")]
    assert to_delete([alone, crowded], 1, related, NOW) == [crowded]


@pytest.mark.parametrize(
    ("replicas", "active", "create", "delete"), [(3, 1, 2, 0), (1, 3, 0, 2), (2, 2, 0, 0), (9999, 0, 500, 0)]
)
def test_plan_makes_up_the_difference(replicas: int, active: int, create: int, delete: int) -> None:
    steps = plan(replicas, [a_pod(str(number)) for number in range(active)], [], NOW)
    assert (steps.create, len(steps.delete)) == (create, delete)


async def test_it_creates_counts_and_scales(world: World) -> None:
    world.start("replicaset-controller")
    await world.client.create(REPLICASETS, replicaset(replicas=3), "default")
    await world.settle()
    pods = await world.list(PODS)
    assert len(pods) == 3
    assert all(each["metadata"]["name"].startswith("rs-") for each in pods)
    status = (await world.get(REPLICASETS, "rs"))["status"]
    assert status == {"replicas": 3, "fullyLabeledReplicas": 3, "observedGeneration": 1, "terminatingReplicas": 0}
    await world.make_ready(pods[0])
    await world.settle()
    status = (await world.get(REPLICASETS, "rs"))["status"]
    assert (status["readyReplicas"], status["availableReplicas"]) == (1, 1)
    await world.client.patch(REPLICASETS, "rs", "default", {"spec": {"replicas": 1}})
    await world.settle()
    left = [each["metadata"]["name"] for each in await world.list(PODS) if "deletionTimestamp" not in each["metadata"]]
    assert left == [pods[0]["metadata"]["name"]], "the ready one is kept"
    reasons = [reason for reason, _ in await world.events()]
    assert (reasons.count("SuccessfulCreate"), reasons.count("SuccessfulDelete")) == (3, 2)


async def test_a_lost_or_failed_pod_is_replaced(world: World) -> None:
    world.start("replicaset-controller")
    await world.client.create(REPLICASETS, replicaset(replicas=2), "default")
    await world.settle()
    first, second = await world.list(PODS)
    await world.client.delete(PODS, first["metadata"]["name"], "default", grace_seconds=0)
    await world.set_status(PODS, second, phase="Failed")
    await world.settle()
    pods = await world.list(PODS)
    assert len([each for each in pods if each["status"].get("phase") != "Failed"]) == 2


async def test_orphans_are_adopted_and_strays_released(world: World) -> None:
    await world.client.create(PODS, pod("orphan"), "default")
    await world.client.create(PODS, pod("other", {"app": "other"}), "default")
    world.start("replicaset-controller")
    await world.client.create(REPLICASETS, replicaset(replicas=2), "default")
    await world.settle()
    adopted = await world.get(PODS, "orphan")
    assert adopted["metadata"]["ownerReferences"][0]["name"] == "rs"
    assert len(await world.list(PODS)) == 3
    await world.client.patch(PODS, "orphan", "default", {"metadata": {"labels": {"app": "stray"}}})
    await world.settle()
    assert not (await world.get(PODS, "orphan"))["metadata"].get("ownerReferences")
    assert len(await world.list(PODS)) == 4, "a replacement was made"


async def test_min_ready_seconds_delays_availability(world: World) -> None:
    world.start("replicaset-controller")
    await world.client.create(REPLICASETS, replicaset(replicas=1, minReadySeconds=30), "default")
    await world.settle()
    [only] = await world.list(PODS)
    await world.make_ready(only)
    await world.settle(20)
    assert "availableReplicas" not in (await world.get(REPLICASETS, "rs"))["status"]
    await world.settle(15)
    assert (await world.get(REPLICASETS, "rs"))["status"]["availableReplicas"] == 1


async def test_a_create_that_is_refused_is_told_and_retried(world: World) -> None:
    world.start("replicaset-controller")
    bad = replicaset(replicas=1)
    bad["spec"]["template"]["metadata"]["labels"]["app"] = "web"
    bad["metadata"]["name"] = "x" * 240 + "-" + "y" * 12
    await world.client.create(REPLICASETS, bad, "default")
    await world.settle(30)
    pods = await world.list(PODS)
    assert len(pods) == 1, "long names are cut by the API server"
    assert len(pods[0]["metadata"]["name"]) <= 63


async def test_replication_controllers_follow_the_same_rules(world: World) -> None:
    world.start("replicationcontroller-controller")
    body = {"metadata": {"name": "rc"}, "spec": {"replicas": 2, "selector": {"app": "web"}, "template": template()}}
    await world.client.create(REPLICATIONCONTROLLERS, body, "default")
    await world.settle()
    pods = await world.list(PODS)
    assert [each["metadata"]["ownerReferences"][0]["kind"] for each in pods] == ["ReplicationController"] * 2
    assert (await world.get(REPLICATIONCONTROLLERS, "rc"))["status"] == {
        "replicas": 2,
        "fullyLabeledReplicas": 2,
        "observedGeneration": 1,
    }


async def test_nothing_is_written_when_nothing_happens(world: World) -> None:
    world.start("replicaset-controller")
    await world.client.create(REPLICASETS, replicaset(replicas=2), "default")
    await world.settle()
    revision = world.cluster.store.revision
    await world.settle(24 * 3600)
    assert world.cluster.store.revision == revision
