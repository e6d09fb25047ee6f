"""The autoscaler with metrics of pods, objects and elsewhere, from an adapter behind the aggregator, over TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from steersman.api.resource import APISERVICES, DEPLOYMENTS, EVENTS, PODS, Object
from steersman.apiserver.aggregation.backend import Patience
from steersman.client.controller import Context
from steersman.client.events import EventRecorder
from steersman.client.informer import Informers
from steersman.controllers.hpa import HPAS
from steersman.controllers.run import run_controllers
from steersman.lib.clock import rfc3339
from steersman.lib.tasks import Tasks
from tests.apiserver.aggregation.extension import Aggregated, aggregated
from tests.apiserver.aggregation.metricsserver import CUSTOM, EXTERNAL, MetricsServer

TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


class Scaling:
    """A Deployment of two ready pods, the autoscaler's controller, and an adapter."""

    def __init__(self, both: Aggregated, adapter: MetricsServer) -> None:
        self.both, self.client, self.adapter = both, both.client, adapter

    async def workload(self) -> None:
        """What the controllers and a kubelet would have made."""
        spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE}
        await self.client.create(DEPLOYMENTS, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
        body: Object = {"status": {"replicas": 2}}
        await self.client.patch(DEPLOYMENTS, "web", "default", body, subresource="status")
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(0)}
        for name in ("web-1", "web-2"):
            meta = {"name": name, "labels": {"app": "web"}}
            await self.client.create(PODS, {"metadata": meta, "spec": TEMPLATE["spec"]}, "default")
            status: Object = {"status": {"phase": "Running", "startTime": rfc3339(0), "conditions": [ready]}}
            await self.client.patch(PODS, name, "default", status, subresource="status")

    async def available(self, *names: str) -> None:
        """Wait until the API server has found the adapter."""
        async with self.both.patience():
            for name in names:
                while not await self._passed(name):
                    await self.both.changed()

    async def _passed(self, name: str) -> bool:
        found = await self.client.get(APISERVICES, name)
        return any(each["status"] == "True" for each in (found.get("status") or {}).get("conditions") or ())

    async def measured(self, metric: Object) -> Object:
        """The autoscaler's status after its first look at a metric."""
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
        spec = {"scaleTargetRef": target, "maxReplicas": 9, "metrics": [metric]}
        await self.client.create(HPAS, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
        async with self.both.patience():
            while "ScalingActive" not in {each["type"] for each in (await self._status()).get("conditions") or ()}:
                await self.both.changed()
        return await self._status()

    async def _status(self) -> Object:
        found: Object = (await self.client.get(HPAS, "web", "default")).get("status") or {}
        return found

    async def said(self, count: int) -> dict[str, str]:
        """What events there are, by reason, once there are so many."""
        async with self.both.patience():
            while len(found := (await self.client.list(EVENTS, "default")).items) < count:
                await self.both.changed()
        return {each["reason"]: each["message"] for each in found}


@asynccontextmanager
async def scaling(folder: Path, version: str = "v1beta2") -> AsyncIterator[Scaling]:
    async with aggregated(folder, Patience(resync=0.05, refresh=0.0)) as both, Tasks() as tasks:
        adapter = MetricsServer(folder, version)
        made = Scaling(both, adapter)
        await made.workload()
        recorder = EventRecorder(both.client, both.cluster.clock, tasks, component="test")
        informers = Informers(both.client, clock=both.cluster.clock, tasks=tasks)
        context = Context(both.client, informers, both.cluster.clock, recorder, Random(1), {})
        tasks.spawn(run_controllers(context, ["horizontal-pod-autoscaler-controller"]), "controllers")
        await adapter.start(both.client)
        await made.available(f"{version}.{CUSTOM}", f"v1beta1.{EXTERNAL}")
        yield made
        await adapter.stop()


@pytest.fixture
async def ready(tmp_path: Path) -> AsyncIterator[Scaling]:
    async with scaling(tmp_path) as made:
        yield made


def pods_metric(average: str, **identifier: Any) -> Object:
    target = {"type": "AverageValue", "averageValue": average}
    return {"type": "Pods", "pods": {"metric": {"name": "qps", **identifier}, "target": target}}


def object_metric(target: Object, kind: str = "Service", api: str = "v1", name: str = "front") -> Object:
    described = {"apiVersion": api, "kind": kind, "name": name}
    return {"type": "Object", "object": {"metric": {"name": "qps"}, "describedObject": described, "target": target}}


def external_metric(target: Object, **identifier: Any) -> Object:
    return {"type": "External", "external": {"metric": {"name": "queue", **identifier}, "target": target}}


VALUE, AVERAGE = {"type": "Value", "value": "100"}, {"type": "AverageValue", "averageValue": "100"}
GREEN = {"selector": {"matchLabels": {"color": "green"}}}
EACH = [{"describedObject": {"kind": "Pod", "name": name}, "value": "300m"} for name in ("web-1", "web-2")]
ONE = [{"describedObject": {"kind": "Service", "name": "front"}, "value": "350"}]
SELECTED = "&LabelSelector{MatchLabels:map[string]string{color: green,},MatchExpressions:[]LabelSelectorRequirement{},}"


@pytest.mark.parametrize(
    ("metric", "path", "items", "replicas", "current", "why"),
    [
        pytest.param(
            pods_metric("100m"), "namespaces/default/pods/%2A/qps?labelSelector=app%3Dweb", EACH, 6,
            {"averageValue": "300m"}, "pods metric qps", id="pods",
        ),
        pytest.param(
            pods_metric("200m", **GREEN),
            "namespaces/default/pods/%2A/qps?labelSelector=app%3Dweb&metricLabelSelector=color%3Dgreen", EACH, 3,
            {"averageValue": "300m"}, "pods metric qps", id="pods selected",
        ),
        pytest.param(
            object_metric(VALUE), "namespaces/default/services/front/qps", ONE, 7,
            {"value": "350"}, "Service metric qps", id="object",
        ),
        pytest.param(
            object_metric(AVERAGE), "namespaces/default/services/front/qps", ONE, 4,
            {"averageValue": "175"}, "external metric qps(nil)", id="object average",
        ),
        pytest.param(
            object_metric(VALUE, "Deployment", "apps/v1", "web"), "namespaces/default/deployments.apps/web/qps", ONE, 7,
            {"value": "350"}, "Deployment metric qps", id="object of a group",
        ),
        pytest.param(
            object_metric(VALUE, "Endpoints"), "namespaces/default/endpoints/front/qps", ONE, 7,
            {"value": "350"}, "Endpoints metric qps", id="object with an odd plural",
        ),
        pytest.param(
            object_metric(VALUE, "Namespace", name="elsewhere"), "namespaces/default/metrics/qps", ONE, 7,
            {"value": "350"}, "Namespace metric qps", id="its own namespace",
        ),
        pytest.param(
            external_metric(VALUE), "namespaces/default/queue", [{"value": "150"}, {"value": "100"}], 5,
            {"value": "250"}, "external metric queue(nil)", id="external",
        ),
        pytest.param(
            external_metric(AVERAGE, **GREEN), "namespaces/default/queue?labelSelector=color%3Dgreen",
            [{"value": "250"}], 3, {"averageValue": "125"}, f"external metric queue({SELECTED})", id="external average",
        ),
    ],
)  # fmt: skip
async def test_each_kind_of_metric(
    ready: Scaling, metric: Object, path: str, items: list[Object], replicas: int, current: Object, why: str
) -> None:
    ready.adapter.values[path] = items
    status = await ready.measured(metric)
    assert ready.adapter.asked == [path]
    (shown,) = status["currentMetrics"]
    assert shown[metric["type"].lower()]["current"] == current
    assert status["desiredReplicas"] == (await ready.client.get(DEPLOYMENTS, "web", "default"))["spec"]["replicas"]
    wanted = min(replicas, 4)  # without behavior two become four at once
    assert status["desiredReplicas"] == wanted
    assert (await ready.said(1))["SuccessfulRescale"] == f"New size: {wanted}; reason: {why} above target"


async def test_an_adapter_of_the_older_version(tmp_path: Path) -> None:
    async with scaling(tmp_path, "v1beta1") as made:
        made.adapter.values["namespaces/default/services/front/qps"] = ONE
        assert (await made.measured(object_metric(VALUE)))["desiredReplicas"] == 4


LOST = "the server could not find the metric for the object"
ASKED = "unable to fetch metrics from custom metrics API"


@pytest.mark.parametrize(
    ("metric", "items", "reason", "text", "whole"),
    [
        pytest.param(
            pods_metric("1"), None, "FailedGetPodsMetric", f"unable to get metric qps: {ASKED}: {LOST}",
            "failed to get pods metric value: ", id="pods",
        ),
        pytest.param(
            pods_metric("1"), [], "FailedGetPodsMetric",
            "unable to get metric qps: no metrics returned from custom metrics API",
            "failed to get pods metric value: ", id="no pods",
        ),
        pytest.param(
            object_metric(VALUE), None, "FailedGetObjectMetric",
            f"unable to get metric qps: Service on default front/{ASKED}: {LOST}",
            "failed to get object metric value: ", id="object",
        ),
        pytest.param(
            object_metric(AVERAGE), [*ONE, *ONE], "FailedGetObjectMetric",
            f"unable to get metric qps: Service on default front/{ASKED}: "
            "the custom metrics API server returned 2 results when we asked for exactly one",
            "failed to get object metric value: failed to get qps object metric: ", id="two objects",
        ),
        pytest.param(
            object_metric(VALUE, "Boat", "sea/v1"), None, "FailedGetObjectMetric",
            f"unable to get metric qps: Boat on default front/{ASKED}: "
            'unable to map kind Boat.sea to resource: no matches for kind "Boat" in group "sea"',
            "failed to get object metric value: ", id="unknown kind",
        ),
        pytest.param(
            external_metric(VALUE), None, "FailedGetExternalMetric",
            "unable to get external metric default/queue/nil: "
            f"unable to fetch metrics from external metrics API: {LOST}",
            "failed to get queue external metric value: failed to get external metric queue: ", id="external",
        ),
        pytest.param(
            external_metric(AVERAGE, **GREEN), [], "FailedGetExternalMetric",
            f"unable to get external metric default/queue/{SELECTED}: no metrics returned from external metrics API",
            "failed to get queue external metric value: failed to get queue external metric: ", id="no external",
        ),
    ],
)  # fmt: skip
async def test_what_is_said_when_there_is_no_number(
    ready: Scaling, metric: Object, items: list[Object] | None, reason: str, text: str, whole: str
) -> None:
    if items is not None:
        paths = ("pods/%2A/qps?labelSelector=app%3Dweb", "services/front/qps", "queue?labelSelector=color%3Dgreen")
        ready.adapter.values = {f"namespaces/default/{path}": items for path in paths}
    status = await ready.measured(metric)
    (active,) = [each for each in status["conditions"] if each["type"] == "ScalingActive"]
    assert (active["status"], active["reason"]) == ("False", reason)
    assert active["message"] == f"the HPA was unable to compute the replica count: {text}"
    said = await ready.said(2)
    assert said[reason] == text
    counted = "invalid metrics (1 invalid out of 1), first error is: "
    assert said["FailedComputeMetricsReplicas"] == f"{counted}{whole}{text}"
    assert (await ready.client.get(DEPLOYMENTS, "web", "default"))["spec"]["replicas"] == 2


async def test_without_an_adapter(ready: Scaling) -> None:
    await ready.client.delete(APISERVICES, f"v1beta2.{CUSTOM}")
    async with ready.both.patience():
        while (await ready.both.ask("GET", f"/apis/{CUSTOM}"))[0] != 404:
            await ready.both.changed()
    status = await ready.measured(pods_metric("1"))
    (active,) = [each for each in status["conditions"] if each["type"] == "ScalingActive"]
    text = f"{ASKED}: no custom metrics API ({CUSTOM}) registered"
    assert active["message"].endswith(f"unable to get metric qps: {text}")
