"""When one object changes, the work of every control loop is the same in a small cluster and in a larger one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from steersman.api.resource import (
    CRONJOBS,
    DAEMONSETS,
    DEPLOYMENTS,
    JOBS,
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
)
SMALL, LARGE = 4, 24


def _workload(kind: Resource, name: str) -> Object:
    spec: Object = {"selector": {"matchLabels": {"app": name}}, "template": template(app=name)}
    if kind is STATEFULSETS:
        spec["serviceName"] = name
    if kind in (JOBS, CRONJOBS):
        spec = {"template": template(app=name, restartPolicy="Never")}
    if kind is CRONJOBS:
        spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": spec}}
    return {"metadata": {"name": name}, "spec": spec}


async def _fill(world: World, count: int) -> None:
    """So many of everything, each in a namespace with others of its kind."""
    for number in range(count):
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
        for kind in (DEPLOYMENTS, STATEFULSETS, DAEMONSETS, JOBS, CRONJOBS, SERVICES):
            name = "service-1" if kind is SERVICES else f"{kind.plural}-1"
            await world.client.patch(kind, name, "default", {"metadata": {"labels": {"touched": "yes"}}})
        for made in await world.list(PODS, labels="app=deployments-1"):
            await world.make_ready(made)
        await world.settle(20)
    return read


@pytest.mark.slow
async def test_one_change_costs_the_same_in_a_larger_cluster(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.start(*CONTROLLERS)
    await _fill(world, SMALL)
    small = await _work_of_one_change(world, monkeypatch)
    for kind in (DEPLOYMENTS, STATEFULSETS, DAEMONSETS, JOBS, CRONJOBS, SERVICES, PODDISRUPTIONBUDGETS, PODS):
        await world.client.delete_collection(kind, "default", propagation="Background")
    await world.settle(60)
    for left in await world.list(PODS):  # no kubelet ends what was bound
        await world.client.delete(PODS, left["metadata"]["name"], "default", grace_seconds=0)
    await world.settle(60)
    await _fill(world, LARGE)
    large = await _work_of_one_change(world, monkeypatch)
    assert sum(small.values()) > 0
    assert {kind: count for kind, count in large.items() if count > small.get(kind, 0) + 2} == {}
