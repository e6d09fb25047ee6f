from __future__ import annotations

import json
from typing import Any

import pytest

from steersman.api.resource import CONTROLLERREVISIONS, DAEMONSETS, NODES, PODS, Object
from steersman.client.history import restored, snapshot
from steersman.client.nodefit import matches, node_of, pinned
from steersman.controllers.daemonset import Where, by_node, plan_nodes, plan_update, suits

from .conftest import World
from .objects import template

NOW = 1_767_226_000.0


def daemonset(image: str = "agent:1", **spec: Any) -> Object:
    chosen = {"selector": {"matchLabels": {"app": "web"}}, "template": template(image), **spec}
    return {"metadata": {"name": "agent"}, "spec": chosen}


def a_pod(node: str, *, digest: str = "new", ready: bool = True, phase: str = "Running", **meta: Any) -> Object:
    stamp = "2026-01-01T00:00:00Z"
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": stamp}] if ready else []
    labels = {"controller-revision-hash": digest}
    return {
        "metadata": {"name": f"{node}-{digest}", "uid": f"{node}-{digest}", "labels": labels, **meta},
        "spec": {"nodeName": node},
        "status": {"phase": phase, "conditions": conditions},
    }


def names(found: list[Object]) -> list[str]:
    return sorted(each["metadata"]["name"] for each in found)


@pytest.mark.parametrize(
    ("spec", "labels", "taints", "expected"),
    [
        ({}, {}, [], (True, True)),
        ({"nodeSelector": {"a": "b"}}, {}, [], (False, False)),
        ({"nodeSelector": {"a": "b"}}, {"a": "b"}, [], (True, True)),
        ({"nodeName": "other"}, {}, [], (False, False)),
        ({}, {}, [{"key": "k", "effect": "NoSchedule"}], (False, True)),
        ({}, {}, [{"key": "k", "effect": "NoExecute"}], (False, False)),
        ({}, {}, [{"key": "k", "effect": "PreferNoSchedule"}], (True, True)),
        ({"tolerations": [{"operator": "Exists"}]}, {}, [{"key": "k", "effect": "NoExecute"}], (True, True)),
        ({}, {}, [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}], (True, True)),
        ({}, {}, [{"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}], (False, True)),
        (
            {"hostNetwork": True},
            {},
            [{"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}],
            (True, True),
        ),
    ],
)
def test_which_nodes_suit(spec: Object, labels: Object, taints: list[Object], expected: tuple[bool, bool]) -> None:
    node = {"metadata": {"name": "n", "labels": labels}, "spec": {"taints": taints}}
    found = suits({"spec": {"template": {"spec": spec}}}, node)
    assert (found.run, found.stay) == expected


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("In", ["5"], True),
        ("NotIn", ["5"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
        ("Gt", ["4"], True),
        ("Lt", ["4"], False),
        ("Gt", ["x"], False),
        ("Gt", [], False),
        ("Nonsense", ["5"], False),
    ],
)
def test_affinity_operators(operator: str, values: list[str], expected: bool) -> None:
    term = {"matchExpressions": [{"key": "size", "operator": operator, "values": values}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}, term]}}
    node = {"metadata": {"name": "n", "labels": {"size": "5"}}}
    assert matches({"affinity": {"nodeAffinity": required}}, node) is expected


def test_a_pinned_pod_is_of_its_node_before_it_is_bound() -> None:
    spec = {"affinity": pinned({"podAffinity": {"kept": True}}, "n7")}
    assert node_of({"spec": spec}) == "n7"
    assert spec["affinity"]["podAffinity"] == {"kept": True}
    assert matches(spec, {"metadata": {"name": "n7"}})
    assert not matches(spec, {"metadata": {"name": "n8"}})


def test_one_pod_where_one_should_be() -> None:
    nodes = [
        Where("empty", True, True),
        Where("has", True, True),
        Where("no", False, False),
        Where("stay", False, True),
    ]
    gone = a_pod("gone")
    unbound = {**gone, "metadata": {**gone["metadata"], "name": "unbound"}, "spec": {"affinity": pinned(None, "gone")}}
    twice = a_pod("has", digest="older")
    failed = a_pod("stay", phase="Failed")
    placed = by_node([a_pod("has"), twice, a_pod("no"), failed, unbound])
    steps = plan_nodes(nodes, placed, "new", surging=False)
    assert steps.create == ["empty"]
    assert len([name for name in names(steps.delete) if name.startswith("has")]) == 1
    assert {"no-new", "unbound"} <= set(names(steps.delete))
    assert names(steps.failed) == ["stay-new"]
    assert plan_nodes(nodes, placed, "new", surging=True).delete != steps.delete, "a surge may have two"


def test_a_rolling_update_replaces_only_as_many_as_may_be_missing() -> None:
    nodes = [Where(name, True, True) for name in "abcd"]
    owner = {"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}}}
    placed = by_node(
        [a_pod("a", digest="old"), a_pod("b", digest="old", ready=False), a_pod("c", digest="old"), a_pod("d")]
    )
    steps = plan_update(owner, nodes, placed, "new", NOW)
    assert (names(steps.delete), names(steps.idle)) == (["a-old"], ["b-old"])
    waiting = by_node([a_pod("a", digest="old"), a_pod("b", ready=False), a_pod("c", ready=False), a_pod("d")])
    assert plan_update(owner, nodes, waiting, "new", NOW).delete == []


def test_a_surge_starts_the_new_before_the_old_goes() -> None:
    nodes = [Where(name, True, True) for name in "abc"]
    owner = {"spec": {"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}}
    old = [a_pod(name, digest="old") for name in "abc"]
    assert plan_update(owner, nodes, by_node(old), "new", NOW).create == ["a"]
    busy = plan_update(owner, nodes, by_node([*old, a_pod("a", ready=False)]), "new", NOW)
    assert (busy.create, busy.delete) == ([], [])
    done = plan_update(owner, nodes, by_node([*old, a_pod("a")]), "new", NOW)
    assert (done.create, names(done.delete)) == (["b"], ["a-old"])


async def test_pods_follow_nodes_and_the_template(world: World) -> None:
    for name in ("node-1", "node-2"):
        await world.client.create(NODES, {"metadata": {"name": name}})
    world.start("daemonset-controller", "garbage-collector-controller")
    await world.client.create(DAEMONSETS, daemonset(), "default")
    await world.settle()
    pods = await world.list(PODS)
    assert sorted(map(node_of, pods)) == ["node-1", "node-2"]
    for pod in pods:
        await world.make_ready(pod, node=node_of(pod))
    await world.settle()
    status = (await world.get(DAEMONSETS, "agent"))["status"]
    assert status == {
        "currentNumberScheduled": 2,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 2,
        "numberReady": 2,
        "observedGeneration": 1,
        "updatedNumberScheduled": 2,
        "numberAvailable": 2,
    }
    await world.client.create(NODES, {"metadata": {"name": "node-3"}})
    await world.settle()
    assert len(await world.list(PODS)) == 3
    [third] = [pod for pod in await world.list(PODS) if node_of(pod) == "node-3"]
    await world.make_ready(third, node="node-3")
    change = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "agent:2"}]}}}}
    await world.client.patch(DAEMONSETS, "agent", "default", change, type="strategic")
    for _ in range(30):
        await world.settle(1)
        for pod in await world.list(PODS):
            if pod["metadata"].get("deletionTimestamp"):
                await world.client.delete(PODS, pod["metadata"]["name"], "default", grace_seconds=0)
            elif not (pod.get("status") or {}).get("podIP"):
                await world.make_ready(pod, node=node_of(pod))
        ready = [pod for pod in await world.list(PODS) if (pod.get("status") or {}).get("podIP")]
        assert len(ready) >= 2, "one at a time"
    assert {pod["spec"]["containers"][0]["image"] for pod in await world.list(PODS)} == {"agent:2"}
    revisions = {each["revision"]: each for each in await world.list(CONTROLLERREVISIONS)}
    assert sorted(revisions) == [1, 2]
    assert (await world.get(DAEMONSETS, "agent"))["status"]["updatedNumberScheduled"] == 3
    revision = world.cluster.store.revision
    await world.settle(3600)
    assert world.cluster.store.revision == revision


async def test_old_pods_that_became_ready_unseen_are_not_deleted_as_idle(world: World) -> None:
    """The informer's watch of pods ends for a while: what it shows as not ready is ready."""
    for name in ("node-1", "node-2", "node-3"):
        await world.client.create(NODES, {"metadata": {"name": name}})
    world.start("daemonset-controller")
    await world.client.create(DAEMONSETS, daemonset(), "default")
    await world.settle()
    informer = world.informers.informer(PODS)
    put, missed = informer._put, []
    informer._put = lambda *event: missed.append(event)  # type: ignore[method-assign]
    for pod in await world.list(PODS):
        await world.make_ready(pod, node=node_of(pod))
    change = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "agent:2"}]}}}}
    await world.client.patch(DAEMONSETS, "agent", "default", change, type="strategic")
    await world.settle()
    assert not [pod for pod in await world.list(PODS) if pod["metadata"].get("deletionTimestamp")]
    informer._put = put  # type: ignore[method-assign]
    for event in missed:
        put(*event)
    await world.settle()
    assert len([pod for pod in await world.list(PODS) if pod["metadata"].get("deletionTimestamp")]) == 1


async def test_failed_pods_are_replaced_ever_more_slowly(world: World) -> None:
    await world.client.create(NODES, {"metadata": {"name": "node-1"}})
    world.start("daemonset-controller")
    await world.client.create(DAEMONSETS, daemonset(), "default")
    made: set[str] = set()
    for _ in range(120):
        await world.settle(1)
        for pod in await world.list(PODS):
            if pod["metadata"].get("deletionTimestamp"):
                await world.client.delete(PODS, pod["metadata"]["name"], "default", grace_seconds=0)
            elif (pod.get("status") or {}).get("phase") != "Failed":
                made.add(pod["metadata"]["uid"])
                await world.make_ready(pod)
                await world.set_status(PODS, pod, phase="Failed")
    assert 5 <= len(made) <= 9, "after 1, 2, 4, 8 ... seconds"
    assert "FailedDaemonPod" in [reason for reason, _ in await world.events()]


def test_a_revision_holds_what_a_typed_encoder_gives() -> None:
    container = {
        "name": "c",
        "image": "a",
        "args": [],
        "tty": False,
        "resources": {},
        "env": [{"name": "A", "value": ""}],
    }
    made = template(nodeSelector={}, containers=[container], terminationGracePeriodSeconds=0)
    owner = {"spec": {"template": {**made, "metadata": {"annotations": {}, "labels": {"z": "1", "a": "2"}}}}}
    data = snapshot(owner)
    written = (
        '{"spec": {"template": {"$patch": "replace", "metadata": {"labels": {"a": "2", "z": "1"}}, "spec": {'
        '"containers": [{"env": [{"name": "A"}], "image": "a", "name": "c", "resources": {}}], '
        '"terminationGracePeriodSeconds": 0}}}}'
    )
    assert json.dumps(data) == written
    assert snapshot(restored(owner, {"data": data})) == data
