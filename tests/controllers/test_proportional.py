"""When one object changes, the work of every control loop is the same in a small cluster and in a larger one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from steersman.api.resource import (
    CLUSTERROLES,
    CRONJOBS,
    DAEMONSETS,
    DEPLOYMENTS,
    JOBS,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODDISRUPTIONBUDGETS,
    PODS,
    SERVICES,
    STATEFULSETS,
    Object,
    Resource,
)
from steersman.client.informer import Informer, Objects

from .conftest import World
from .objects import pod, service, template

CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
    "cronjob-controller",
    "endpointslice-controller",
    "endpoints-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "ttl-after-finished-controller",
    "resourcequota-controller",
    "clusterrole-aggregation-controller",
    "endpointslice-mirroring-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-expander-controller",
    "persistentvolumeclaim-protection-controller",
    "pod-garbage-collector-controller",
    "resourceclaim-controller",
    "selinux-warning-controller",
    "service-lb-controller",
    "serviceaccount-controller",
    "taint-eviction-controller",
    "ttl-controller",
)
PATIENCE = {f"node-{name}-grace-period": "1000000" for name in ("startup", "monitor")}
TOUCHED = (DEPLOYMENTS, STATEFULSETS, DAEMONSETS, JOBS, CRONJOBS, SERVICES, NODES, CLUSTERROLES, PERSISTENTVOLUMECLAIMS)
SMALL, LARGE = 4, 24


def _workload(kind: Resource, name: str) -> Object:
    spec: Object = {"selector": {"matchLabels": {"app": name}}, "template": template(app=name)}
    if kind is STATEFULSETS:
        spec["serviceName"] = name
    if kind in (JOBS, CRONJOBS):
        spec = {"template": template(app=name, restartPolicy="Never")}
    if kind is CRONJOBS:
        spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": spec}}
    if kind is DAEMONSETS:
        spec["template"]["spec"]["nodeSelector"] = {"first": "yes"}
    return {"metadata": {"name": name}, "spec": spec}


async def _furnish(world: World, number: int) -> None:
    """A node, a role and one that takes it in, a volume and its claim, a balancer."""
    name = f"nodes-{number}"
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
    labels = {} if number else {"first": "yes"}
    node = await world.client.create(NODES, {"metadata": {"name": name, "labels": labels}})
    address = {"type": "InternalIP", "address": f"192.0.2.{number + 1}"}
    await world.set_status(NODES, node, conditions=[ready], addresses=[address])
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    role = {"metadata": {"name": f"clusterroles-{number}", "labels": {f"to-{number}": "yes"}}, "rules": rules}
    await world.client.create(CLUSTERROLES, role)
    choice = {"clusterRoleSelectors": [{"matchLabels": {f"to-{number}": "yes"}}]}
    await world.client.create(CLUSTERROLES, {"metadata": {"name": f"sum-{number}"}, "aggregationRule": choice})
    spec: Object = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
    await world.client.create(PERSISTENTVOLUMES, {"metadata": {"name": f"disk-{number}"}, "spec": spec})
    asked: Object = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": f"disk-{number}"}
    asked["resources"] = {"requests": {"storage": "1Gi"}}
    claim = {"metadata": {"name": f"persistentvolumeclaims-{number}"}, "spec": asked}
    await world.client.create(PERSISTENTVOLUMECLAIMS, claim, "default")
    balanced = service(f"balanced-{number}", {"app": f"deployments-{number}"}, type="LoadBalancer")
    await world.client.create(SERVICES, balanced, "default")


async def _fill(world: World, count: int) -> None:
    """So many of everything, each in a namespace with others of its kind."""
    for number in range(count):
        await _furnish(world, number)
        for kind in (DEPLOYMENTS, STATEFULSETS, DAEMONSETS, JOBS, CRONJOBS):
            name = f"{kind.plural}-{number}"
            await world.client.create(kind, _workload(kind, name), "default")
        await world.client.create(SERVICES, service(f"service-{number}", {"app": f"deployments-{number}"}), "default")
        chosen = {"matchLabels": {"app": f"deployments-{number}"}}
        budget = {"metadata": {"name": f"budget-{number}"}, "spec": {"minAvailable": 1, "selector": chosen}}
        await world.client.create(PODDISRUPTIONBUDGETS, budget, "default")
        await world.client.create(PODS, pod(f"bare-{number}", {"bare": str(number)}), "default")
    await world.settle(120)


@contextmanager
def _counted(monkeypatch: pytest.MonkeyPatch, read: dict[str, int]) -> Iterator[None]:
    """Count the objects that informers hand out."""
    listed, filed = Informer.list, Informer.by_index

    def count_listed(self: Informer, namespace: str | None = None) -> Objects:
        found = listed(self, namespace)
        read[self.resource.plural] = read.get(self.resource.plural, 0) + len(found)
        return found

    def count_filed(self: Informer, name: str, key: str) -> Objects:
        found = filed(self, name, key)
        read[self.resource.plural] = read.get(self.resource.plural, 0) + len(found)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Informer, "list", count_listed)
        patched.setattr(Informer, "by_index", count_filed)
        yield


async def _work_of_one_change(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    read: dict[str, int] = {}
    with _counted(monkeypatch, read):
        for kind in TOUCHED:
            name = "service-1" if kind is SERVICES else f"{kind.plural}-1"
            namespace = "default" if kind.namespaced else ""
            await world.client.patch(kind, name, namespace, {"metadata": {"labels": {"touched": "yes"}}})
        for made in await world.list(PODS, labels="app=deployments-1"):
            await world.make_ready(made, "nodes-1")
        await world.settle(20)
    return read


@pytest.mark.slow
async def test_one_change_costs_the_same_in_a_larger_cluster(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.start(*CONTROLLERS, **PATIENCE)
    await _fill(world, SMALL)
    small = await _work_of_one_change(world, monkeypatch)
    for kind in (*TOUCHED, PODDISRUPTIONBUDGETS, PODS):
        if kind.namespaced:
            await world.client.delete_collection(kind, "default", propagation="Background")
    await world.settle(60)
    for kind in (NODES, CLUSTERROLES, PERSISTENTVOLUMES):
        for each in await world.list(kind, ""):
            if each["metadata"]["name"].rpartition("-")[0] in (kind.plural, "sum", "disk"):
                await world.client.delete(kind, each["metadata"]["name"])
    for left in await world.list(PODS):  # no kubelet ends what was bound
        await world.client.delete(PODS, left["metadata"]["name"], "default", grace_seconds=0)
    await world.settle(60)
    await _fill(world, LARGE)
    large = await _work_of_one_change(world, monkeypatch)
    assert sum(small.values()) > 0
    assert {kind: count for kind, count in large.items() if count > small.get(kind, 0) + 2} == {}
