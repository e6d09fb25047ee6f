"""What kube-controller-manager 1.36 was seen to write, beside ours, for the same objects on the same API server."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import (
    CONFIGMAPS,
    CONTROLLERREVISIONS,
    DEPLOYMENTS,
    ENDPOINTS,
    ENDPOINTSLICES,
    EVENTS,
    JOBS,
    NODES,
    PODS,
    SERVICES,
    STATEFULSETS,
    Object,
    Resource,
)
from steersman.controllers.hpa import HPAS
from steersman.controllers.servicecidr import FINALIZER, SERVICECIDRS
from steersman.lib.clock import rfc3339

from .conftest import World
from .objects import deployment, pod, service, template

TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"


async def test_revisions_of_a_statefulset_have_another_label_than_its_pods(world: World) -> None:
    world.start("statefulset-controller")
    spec = {"serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": template(app="db")}
    await world.client.create(STATEFULSETS, {"metadata": {"name": "db"}, "spec": spec}, "default")
    await world.settle()
    [revision] = await world.list(CONTROLLERREVISIONS)
    assert revision["metadata"]["name"] == f"db-{revision['metadata']['labels']['controller.kubernetes.io/hash']}"
    assert "controller-revision-hash" not in revision["metadata"]["labels"]
    [made] = await world.list(PODS)
    assert made["metadata"]["labels"]["controller-revision-hash"] == revision["metadata"]["name"]


async def test_a_new_set_is_told_of_before_its_availability(world: World) -> None:
    world.start("deployment-controller")
    await world.client.create(DEPLOYMENTS, deployment(), "default")
    await world.settle()
    found = (await world.get(DEPLOYMENTS, "web"))["status"]["conditions"]
    assert [each["type"] for each in found] == ["Progressing", "Available"]


async def test_endpoints_say_when_what_changed_them_happened(world: World) -> None:
    world.start("endpoints-controller", "endpointslice-controller")
    await world.client.create(NODES, {"metadata": {"name": "node-1"}})
    made = await world.client.create(SERVICES, service(), "default")
    await world.settle(10)
    for kind in (ENDPOINTS, ENDPOINTSLICES):
        [found] = await world.list(kind, labels="" if kind is ENDPOINTS else "kubernetes.io/service-name=web")
        assert found["metadata"]["annotations"][TRIGGER] == made["metadata"]["creationTimestamp"]
    await world.make_ready(await world.client.create(PODS, pod("web-0"), "default"))
    when = rfc3339(world.clock.now())
    await world.settle(10)
    for kind in (ENDPOINTS, ENDPOINTSLICES):
        [found] = await world.list(kind, labels="" if kind is ENDPOINTS else "kubernetes.io/service-name=web")
        assert found["metadata"]["annotations"][TRIGGER] == when


async def test_a_job_is_resumed_although_its_pods_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    create = world.client.create

    async def refuse(resource: Resource, *rest: Any, **more: Any) -> Object:
        if resource is PODS:
            raise ApiError(403, "Forbidden", "exceeded quota")
        return await create(resource, *rest, **more)

    monkeypatch.setattr(world.client, "create", refuse)
    world.start("job-controller")
    spec: Object = {"suspend": True, "template": template(restartPolicy="Never")}
    await world.client.create(JOBS, {"metadata": {"name": "j"}, "spec": spec}, "default")
    await world.settle()
    await world.client.patch(JOBS, "j", "default", {"spec": {"suspend": False}})
    await world.settle()
    events = await world.events()
    assert ("Resumed", "Job resumed") in events
    assert "FailedCreate" in [reason for reason, _ in events]


class Refusing:
    """Writes of one kind, and of one verb, are refused."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, verb: str, kind: Resource) -> None:
        allowed = getattr(world.client, verb)

        async def refuse(resource: Resource, *rest: Any, **more: Any) -> Object:
            if resource == kind:
                raise ApiError(403, "Forbidden", "not today")
            found: Object = await allowed(resource, *rest, **more)
            return found

        monkeypatch.setattr(world.client, verb, refuse)


async def test_slices_that_cannot_be_written_are_told_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    Refusing(world, monkeypatch, "create", ENDPOINTSLICES)
    world.start("endpointslice-controller")
    await world.client.create(SERVICES, service(), "default")
    await world.settle()
    text = "Error updating Endpoint Slices for Service default/web: "
    text += "failed to create EndpointSlice for Service default/web: not today"
    assert ("FailedToUpdateEndpointSlices", text) in await world.events()


async def test_a_range_that_cannot_be_called_ready(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"metadata": {"name": "more", "finalizers": [FINALIZER]}, "spec": {"cidrs": ["10.77.0.0/24"]}}
    await world.client.create(SERVICECIDRS, body)
    Refusing(world, monkeypatch, "patch", SERVICECIDRS)
    world.start("service-cidr-controller")
    await world.settle()
    text = "The ServiceCIDR Status can not be set to Ready=True"
    assert ("KubernetesServiceCIDRError", text) in await world.events()


async def test_an_autoscaler_whose_status_cannot_be_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ghost"}
    spec = {"scaleTargetRef": target, "maxReplicas": 5}
    await world.client.create(HPAS, {"metadata": {"name": "ghost"}, "spec": spec}, "default")
    Refusing(world, monkeypatch, "update", HPAS)
    world.start("horizontal-pod-autoscaler-controller")
    await world.settle()
    assert ("FailedUpdateStatus", "not today") in await world.events()


async def test_a_job_whose_completions_nobody_can_count_is_left_alone(world: World) -> None:
    world.start("job-controller")
    made = {"metadata": {"name": "j"}, "spec": {"template": template(restartPolicy="Never")}}
    await world.client.create(JOBS, made, "default")
    await world.settle()
    informer = world.informers.informer(JOBS)
    found = informer.get("default", "j")
    assert found is not None
    informer._put(("default", "j"), {**found, "spec": {**found["spec"], "completionMode": "Sometimes"}})
    await world.settle()
    text = "Skipped Job sync because completion mode is unknown"
    assert ("UnknownCompletionMode", text) in await world.events()


async def test_a_pod_of_a_set_gets_its_name_back(world: World) -> None:
    world.start("statefulset-controller")
    spec = {"serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": template(app="db")}
    await world.client.create(STATEFULSETS, {"metadata": {"name": "db"}, "spec": spec}, "default")
    await world.settle()
    gone = {"metadata": {"labels": {"statefulset.kubernetes.io/pod-name": None}}}
    await world.client.patch(PODS, "db-0", "default", gone)
    await world.settle()
    labels = (await world.get(PODS, "db-0"))["metadata"]["labels"]
    assert labels["statefulset.kubernetes.io/pod-name"] == "db-0"
    assert ("SuccessfulUpdate", "Update Pod db-0 in StatefulSet db successful") in await world.events()


async def test_metrics_that_cannot_be_had_are_shown_as_such(world: World) -> None:
    world.start("horizontal-pod-autoscaler-controller")
    await world.client.create(DEPLOYMENTS, deployment(), "default")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 5}},
    }
    spec = {"scaleTargetRef": target, "maxReplicas": 5, "metrics": [metric]}
    await world.client.create(HPAS, {"metadata": {"name": "web"}, "spec": spec}, "default")
    await world.set_status(DEPLOYMENTS, await world.get(DEPLOYMENTS, "web"), replicas=2)
    await world.settle(20)
    assert (await world.get(HPAS, "web"))["status"]["currentMetrics"] == [{"type": ""}]


async def test_evictions_are_told_of_a_pod_without_its_uid(world: World) -> None:
    world.start("taint-eviction-controller")
    taint = {"key": "k", "value": "v", "effect": "NoExecute"}
    await world.client.create(NODES, {"metadata": {"name": "node-1"}, "spec": {"taints": [taint]}})
    await world.make_ready(await world.client.create(PODS, pod("web-0"), "default"))
    await world.settle()
    await world.recorder.flush()
    [event] = await world.list(EVENTS)
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "web-0"}
    assert (event["reason"], event["involvedObject"]) == ("TaintManagerEviction", about)
    condition = next(
        each for each in (await world.get(PODS, "web-0"))["status"]["conditions"] if each["type"] == "DisruptionTarget"
    )
    assert condition["observedGeneration"] == 1


async def test_what_the_authority_is_good_for(world: World) -> None:
    world.start("root-ca-certificate-publisher-controller", **{"root-ca": "PEM"})
    await world.settle()
    noted = (await world.get(CONFIGMAPS, "kube-root-ca.crt"))["metadata"]["annotations"]
    assert noted["kubernetes.io/description"].endswith("guaranteed across distributions of Kubernetes clusters.")
