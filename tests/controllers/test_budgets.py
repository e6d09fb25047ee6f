"""Disruption budgets, quotas and aggregated roles."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import (
    CLUSTERROLES,
    CONFIGMAPS,
    DAEMONSETS,
    DEPLOYMENTS,
    NAMESPACES,
    PERSISTENTVOLUMECLAIMS,
    PODDISRUPTIONBUDGETS,
    PODS,
    REPLICASETS,
    SERVICES,
    STATEFULSETS,
    Object,
    Resource,
)
from steersman.client.deviceclaims import CLAIMS
from steersman.client.quota import concerns, total, usage
from steersman.controllers.clusterroleaggregation import rules_of
from steersman.controllers.disruption import allowed
from steersman.controllers.resourcequota import CONTROLLER, RESOURCEQUOTAS, collections_of
from steersman.lib.clock import rfc3339

from .conftest import World
from .objects import deployment, pod, service

NOW = 1_767_226_000.0


def a_pod(name: str, *, ready: bool = True, **meta: Any) -> Object:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": {"name": name, **meta}, "spec": {}, "status": {"conditions": conditions}}


def budget(**spec: Any) -> Object:
    return {"metadata": {"name": "b", "generation": 1}, "spec": spec}


THREE = [a_pod("a"), a_pod("b"), a_pod("c", ready=False)]


@pytest.mark.parametrize(
    ("owner", "scale", "expected"),
    [
        (budget(minAvailable=1), None, (1, 2, 1, 3)),
        (budget(minAvailable=3), None, (0, 2, 3, 3)),
        (budget(minAvailable="50%"), 4, (0, 2, 2, 4)),
        (budget(minAvailable="30%"), 3, (1, 2, 1, 3)),
        (budget(maxUnavailable=1), 3, (0, 2, 2, 3)),
        (budget(maxUnavailable="50%"), 3, (1, 2, 1, 3)),
        (budget(maxUnavailable=9), 3, (2, 2, 0, 3)),
        (budget(maxUnavailable=1), 0, (0, 2, 0, 0)),
    ],
)
def test_how_many_may_go(owner: Object, scale: int | None, expected: tuple[int, ...]) -> None:
    found = allowed(owner, THREE, scale, NOW)
    names = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
    assert tuple(found[name] for name in names) == expected


def test_pods_on_their_way_out_count_until_they_are_gone_or_forgotten() -> None:
    owner = budget(minAvailable=0)
    owner["status"] = {"disruptedPods": {"a": rfc3339(NOW - 60), "b": rfc3339(NOW - 600), "gone": rfc3339(NOW)}}
    found = allowed(owner, THREE, None, NOW)
    assert found["disruptedPods"] == {"a": rfc3339(NOW - 60)}
    assert found["currentHealthy"] == 1


async def test_a_budget_follows_its_pods(world: World) -> None:
    world.start("disruption-controller", "deployment-controller", "replicaset-controller")
    world.tasks.spawn(world.kubelet(), "kubelet")
    await world.client.create(DEPLOYMENTS, deployment(replicas=4), "default")
    body = {"metadata": {"name": "b"}, "spec": {"maxUnavailable": "25%", "selector": {"matchLabels": {"app": "web"}}}}
    await world.client.create(PODDISRUPTIONBUDGETS, body, "default")
    await world.settle(10)
    status = (await world.get(PODDISRUPTIONBUDGETS, "b"))["status"]
    [condition] = status.pop("conditions")
    assert (condition["type"], condition["status"], condition["reason"]) == (
        "DisruptionAllowed",
        "True",
        "SufficientPods",
    )
    assert status == {
        "disruptionsAllowed": 1,
        "currentHealthy": 4,
        "desiredHealthy": 3,
        "expectedPods": 4,
        "observedGeneration": 1,
    }
    first = (await world.list(PODS))[0]
    not_ready = [{"type": "Ready", "status": "False", "lastTransitionTime": rfc3339(world.clock.now())}]
    await world.set_status(PODS, first, conditions=not_ready)
    await world.settle(1)
    assert (await world.get(PODDISRUPTIONBUDGETS, "b"))["status"]["disruptionsAllowed"] == 0


async def test_a_disruption_that_did_not_happen_is_taken_back(world: World) -> None:
    world.start("disruption-controller")
    victim = await world.client.create(PODS, pod("victim"), "default")
    await world.make_ready(victim)
    found = (await world.get(PODS, "victim"))["status"]["conditions"]
    target = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": rfc3339(world.clock.now())}
    await world.set_status(PODS, victim, conditions=[*found, target])
    await world.settle(100)
    statuses = {each["type"]: each["status"] for each in (await world.get(PODS, "victim"))["status"]["conditions"]}
    assert statuses["DisruptionTarget"] == "True"
    await world.settle(30)
    statuses = {each["type"]: each["status"] for each in (await world.get(PODS, "victim"))["status"]["conditions"]}
    assert statuses["DisruptionTarget"] == "False"


async def test_a_selector_that_selects_everything_is_every_pods_of_its_namespace(world: World) -> None:
    world.start("disruption-controller")
    body = {"metadata": {"name": "all"}, "spec": {"minAvailable": 2, "selector": {}}}
    await world.client.create(PODDISRUPTIONBUDGETS, body, "default")
    for name in ("a", "b", "c"):
        await world.make_ready(await world.client.create(PODS, pod(name, labels={"app": name}), "default"))
    await world.client.create(NAMESPACES, {"metadata": {"name": "other"}})
    await world.client.create(PODS, pod("d"), "other")
    await world.settle(1)
    status = (await world.get(PODDISRUPTIONBUDGETS, "all"))["status"]
    assert (status["expectedPods"], status["disruptionsAllowed"]) == (3, 1)


@pytest.mark.parametrize("kind", [DEPLOYMENTS, DAEMONSETS, REPLICASETS, STATEFULSETS], ids=lambda kind: kind.kind)
async def test_a_workload_may_not_select_everything(world: World, kind: Resource) -> None:
    body = deployment()
    body["spec"]["selector"] = {}
    with pytest.raises(ApiError, match="empty selector is invalid for"):
        await world.client.create(kind, {"metadata": {"name": "all"}, "spec": body["spec"]}, "default")


async def test_what_is_odd_about_a_budget_is_told(world: World) -> None:
    world.start("disruption-controller")
    matched = {"matchLabels": {"app": "web"}}
    for name in ("b", "c"):
        body = {"metadata": {"name": name}, "spec": {"maxUnavailable": 1, "selector": matched}}
        await world.client.create(PODDISRUPTIONBUDGETS, body, "default")
    await world.settle(1)
    await world.make_ready(await world.client.create(PODS, pod("lonely", labels={"app": "web"}), "default"))
    await world.settle(1)
    stamp = rfc3339(world.clock.now())
    budget = await world.get(PODDISRUPTIONBUDGETS, "b")
    await world.set_status(PODDISRUPTIONBUDGETS, budget, disruptedPods={"lonely": stamp})
    await world.settle(130)
    told = dict(await world.events())
    assert told["UnmanagedPods"].startswith(
        "Pods selected by this PodDisruptionBudget (selector: &LabelSelector{MatchLabels:map[string]string{app: web,},"
        "MatchExpressions:[]LabelSelectorRequirement{},}) were found to be unmanaged. As a result, the status"
    )
    text = 'Pod "default"/"lonely" matches multiple PodDisruptionBudgets.  Chose "b" arbitrarily.'
    assert told["MultiplePodDisruptionBudgets"] == text
    assert told["NotDeleted"] == "Pod was expected by PDB default/default to be deleted but it wasn't"


def quota(scopes: list[str] | None = None, terms: list[Object] | None = None, **hard: str) -> Object:
    spec: Object = {"hard": hard}
    if scopes:
        spec["scopes"] = scopes
    if terms:
        spec["scopeSelector"] = {"matchExpressions": terms}
    return {"metadata": {"name": "q"}, "spec": spec}


BIG = pod("big", priorityClassName="high", activeDeadlineSeconds=5)
BIG["spec"]["containers"][0]["resources"] = {
    "requests": {"cpu": "500m", "memory": "1Gi", "example.com/gpu": "2"},
    "limits": {"cpu": "1", "memory": "1Gi", "example.com/gpu": "2"},
}


@pytest.mark.parametrize(
    ("resource", "obj", "expected"),
    [
        (
            PODS,
            BIG,
            {
                "count/pods": "1",
                "pods": "1",
                "requests.cpu": "500m",
                "cpu": "500m",
                "requests.memory": "1Gi",
                "memory": "1Gi",
                "requests.example.com/gpu": "2",
                "limits.cpu": "1",
                "limits.memory": "1Gi",
            },
        ),
        (PODS, {**BIG, "status": {"phase": "Succeeded"}}, {"count/pods": "1"}),
        (CONFIGMAPS, {"metadata": {}}, {"count/configmaps": "1", "configmaps": "1"}),
        (DEPLOYMENTS, {"metadata": {}}, {"count/deployments.apps": "1"}),
        (
            SERVICES,
            service(type="LoadBalancer", allocateLoadBalancerNodePorts=False),
            {"count/services": "1", "services": "1", "services.loadbalancers": "1"},
        ),
        (
            SERVICES,
            service(type="NodePort"),
            {"count/services": "1", "services": "1", "services.nodeports": "1"},
        ),
        (
            PERSISTENTVOLUMECLAIMS,
            {
                "metadata": {},
                "spec": {"resources": {"requests": {"storage": "1500m"}}},
                "status": {"allocatedResources": {"storage": "7"}},
            },
            {"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "7"},
        ),
        (
            PERSISTENTVOLUMECLAIMS,
            {"metadata": {}, "spec": {"resources": {"requests": {"storage": "1500m"}}}},
            {"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "2"},
        ),
        (
            PERSISTENTVOLUMECLAIMS,
            {"metadata": {}, "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "5Gi"}}}},
            {
                "count/persistentvolumeclaims": "1",
                "persistentvolumeclaims": "1",
                "requests.storage": "5Gi",
                "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
                "fast.storageclass.storage.k8s.io/requests.storage": "5Gi",
            },
        ),
        (
            CLAIMS,
            {
                "spec": {
                    "devices": {
                        "requests": [
                            {"exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
                            {"exactly": {"deviceClassName": "net", "allocationMode": "All"}},
                            {"firstAvailable": [{"deviceClassName": "gpu", "count": 3}, {"deviceClassName": "gpu"}]},
                        ]
                    }
                }
            },
            {
                "count/resourceclaims.resource.k8s.io": "1",
                "gpu.deviceclass.resource.k8s.io/devices": "5",
                "net.deviceclass.resource.k8s.io/devices": "32",
            },
        ),
    ],
)
def test_what_an_object_uses(resource: Resource, obj: Object, expected: dict[str, str]) -> None:
    assert {name: str(amount) for name, amount in usage(resource, obj, NOW).items()} == expected


def test_sums_are_exact_and_only_of_what_is_named() -> None:
    parts = [usage(PODS, BIG, NOW)] * 3
    assert total(parts, ["requests.cpu", "pods", "secrets"]) == {"requests.cpu": "1500m", "pods": "3", "secrets": "0"}


HIGH = {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}


SILVER = {"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["silver"]}
MOVING = {
    "spec": {"volumeAttributesClassName": "silver"},
    "status": {
        "currentVolumeAttributesClassName": "gold",
        "modifyVolumeStatus": {"status": "InProgress", "targetVolumeAttributesClassName": "bronze"},
    },
}


@pytest.mark.parametrize(
    ("owner", "resource", "obj", "expected"),
    [
        (quota(), PODS, BIG, True),
        (quota(["Terminating"]), PODS, BIG, True),
        (quota(["NotTerminating"]), PODS, BIG, False),
        (quota(["BestEffort"]), PODS, BIG, False),
        (quota(["BestEffort"]), PODS, pod("p"), True),
        (quota(["NotBestEffort", "Terminating"]), PODS, BIG, True),
        (quota(terms=[HIGH]), PODS, BIG, True),
        (quota(terms=[{**HIGH, "operator": "NotIn"}]), PODS, BIG, False),
        (quota(terms=[{"scopeName": "PriorityClass", "operator": "DoesNotExist"}]), PODS, pod("p"), True),
        (quota(["CrossNamespacePodAffinity"]), PODS, BIG, False),
        (quota(["BestEffort"]), CONFIGMAPS, {"metadata": {}}, False),
        (quota(terms=[{**SILVER, "values": ["gold"]}]), PERSISTENTVOLUMECLAIMS, MOVING, True),
        (quota(terms=[SILVER]), PERSISTENTVOLUMECLAIMS, MOVING, True),
        (quota(terms=[{**SILVER, "values": ["bronze"]}]), PERSISTENTVOLUMECLAIMS, MOVING, True),
        (quota(terms=[{**SILVER, "values": ["tin"]}]), PERSISTENTVOLUMECLAIMS, MOVING, False),
        (quota(["VolumeAttributesClass"]), PERSISTENTVOLUMECLAIMS, {"spec": {}}, False),
    ],
)
def test_scopes(owner: Object, resource: Resource, obj: Object, expected: bool) -> None:
    assert concerns(owner, resource, obj) is expected


def test_which_collections_a_quota_needs() -> None:
    names = [
        "requests.cpu",
        "count/deployments.apps",
        "services.nodeports",
        "gpu.deviceclass.resource.k8s.io/devices",
        "gold.storageclass.storage.k8s.io/requests.storage",
    ]
    assert collections_of(names) == {
        ("", "pods"),
        ("apps", "deployments"),
        ("", "services"),
        ("resource.k8s.io", "resourceclaims"),
        ("", "persistentvolumeclaims"),
    }


def test_a_charge_alone_is_no_reason_to_count() -> None:
    """Admission charges before the object is written: counting then would give the charge back."""
    (watch,) = CONTROLLER.watches
    memory: Any = SimpleNamespace(memory={})
    made: Object = {"metadata": {"name": "q", "namespace": "n", "uid": "u"}, "spec": {"hard": {"pods": "2"}}}
    charged = {**made, "status": {"hard": {"pods": "2"}, "used": {"pods": "1"}}}
    changed = {**charged, "spec": {"hard": {"pods": "3"}}}
    assert [len(list(watch.keys(memory, each))) for each in (made, charged, made, changed, charged)] == [1, 0, 1, 1, 0]
    assert list(watch.keys(SimpleNamespace(memory={}), charged)), "once for every controller that starts"  # type: ignore[arg-type]


async def test_a_quota_counts_devices_of_a_class(world: World) -> None:
    world.start("resourcequota-controller")
    hard = {"gpu.deviceclass.resource.k8s.io/devices": "5"}
    await world.client.create(RESOURCEQUOTAS, quota(**hard), "default")
    asked = [{"name": "r", "exactly": {"deviceClassName": "gpu", "count": 3}}]
    await world.client.create(CLAIMS, {"metadata": {"name": "c"}, "spec": {"devices": {"requests": asked}}}, "default")
    await world.settle()
    assert (await world.get(RESOURCEQUOTAS, "q"))["status"]["used"] == {"gpu.deviceclass.resource.k8s.io/devices": "3"}


async def test_a_quota_counts_what_comes_and_goes(world: World) -> None:
    world.start("resourcequota-controller")
    hard = {
        "pods": "5",
        "count/configmaps": "3",
        "services": "1",
        "requests.cpu": "2",
        "count/unknown.example.com": "1",
    }
    await world.client.create(RESOURCEQUOTAS, quota(**hard), "default")
    await world.settle()
    status = (await world.get(RESOURCEQUOTAS, "q"))["status"]
    assert status == {"hard": hard, "used": dict.fromkeys(hard, "0")}
    await world.client.create(PODS, {**BIG, "spec": {**BIG["spec"], "priorityClassName": ""}}, "default")
    await world.client.create(CONFIGMAPS, {"metadata": {"name": "c"}}, "default")
    await world.client.create(CONFIGMAPS, {"metadata": {"name": "c"}}, "kube-system")
    await world.settle()
    used = (await world.get(RESOURCEQUOTAS, "q"))["status"]["used"]
    assert (used["pods"], used["requests.cpu"], used["count/configmaps"]) == ("1", "500m", "1")
    await world.client.delete(PODS, "big", "default", grace_seconds=0)
    await world.client.delete(CONFIGMAPS, "c", "default")
    await world.settle()
    assert set((await world.get(RESOURCEQUOTAS, "q"))["status"]["used"].values()) == {"0"}
    await world.client.patch(RESOURCEQUOTAS, "q", "default", {"spec": {"hard": {"pods": "7"}}})
    await world.settle()
    assert (await world.get(RESOURCEQUOTAS, "q"))["status"]["hard"]["pods"] == "7"


def role(name: str, labels: dict[str, str] | None = None, **more: Any) -> Object:
    rules = [{"apiGroups": [""], "resources": [name], "verbs": ["get"]}]
    return {"metadata": {"name": name, "labels": labels or {}}, "rules": rules, **more}


def test_rules_of_chosen_roles_are_joined_each_once() -> None:
    chosen = [{"matchLabels": {"to": "admin"}}, {"matchLabels": {"also": "yes"}}]
    owner = role("admin", aggregationRule={"clusterRoleSelectors": chosen})
    first, both = role("a", {"to": "admin"}), role("b", {"to": "admin", "also": "yes"})
    assert [rule["resources"] for rule in rules_of(owner, [[owner, both, first], [both]])] == [["a"], ["b"]]


async def test_aggregated_roles_follow_those_they_choose(world: World) -> None:
    world.start("clusterrole-aggregation-controller")
    chosen = [{"matchLabels": {"to": "boss"}}]
    await world.client.create(CLUSTERROLES, role("boss", aggregationRule={"clusterRoleSelectors": chosen}))
    await world.client.create(CLUSTERROLES, role("one", {"to": "boss"}))
    await world.settle()
    boss = await world.get(CLUSTERROLES, "boss")
    assert [rule["resources"] for rule in boss["rules"]] == [["one"]]
    owners = {each["manager"]: each["operation"] for each in boss["metadata"]["managedFields"]}
    assert owners["clusterrole-aggregation-controller"] == "Apply"
    await world.client.delete(CLUSTERROLES, "one")
    await world.settle()
    assert (await world.get(CLUSTERROLES, "boss")).get("rules") in (None, [])


async def test_a_quota_is_right_although_its_own_status_comes_late(world: World) -> None:
    """What the controller last wrote counts, not what its informer still shows."""
    quota = {"metadata": {"name": "all"}, "spec": {"hard": {"count/configmaps": "9"}}}
    await world.client.create(RESOURCEQUOTAS, quota, "default")
    world.start("resourcequota-controller")
    await world.settle()
    informer = world.informers.informer(RESOURCEQUOTAS)
    put, missed = informer._put, []
    informer._put = lambda *event: missed.append(event)  # type: ignore[method-assign]
    await world.client.create(CONFIGMAPS, {"metadata": {"name": "a"}}, "default")
    await world.settle()
    assert (await world.get(RESOURCEQUOTAS, "all"))["status"]["used"] == {"count/configmaps": "1"}
    await world.client.delete(CONFIGMAPS, "a", "default")
    await world.settle()
    informer._put = put  # type: ignore[method-assign]
    for event in missed:
        put(*event)
    await world.settle()
    assert (await world.get(RESOURCEQUOTAS, "all"))["status"]["used"] == {"count/configmaps": "0"}
