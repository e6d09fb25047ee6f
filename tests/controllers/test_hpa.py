"""The autoscaler: numbers from usage, rules that keep them steady, and its story against the API."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest

from steersman.api.resource import DEPLOYMENTS, PODS, Object
from steersman.client.client import Client
from steersman.client.transport import InProcess
from steersman.controllers.hpa import HPAS
from steersman.controllers.hpa.replicas import Sample, Tolerance, Unable, by_average, by_share, by_utilization, group
from steersman.controllers.hpa.rules import History, normalize
from steersman.lib.clock import rfc3339
from steersman.lib.http.messages import Answer, Request, Response

from .conftest import World
from .objects import deployment

NOW = 10_000.0


def a_pod(
    name: str, phase: str = "Running", *, ready: bool = True, start: float = 0.0, deleted: bool = False
) -> Object:
    meta = {"name": name, **({"deletionTimestamp": rfc3339(NOW)} if deleted else {})}
    ready_condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": rfc3339(start + 10)}
    return {"metadata": meta, "status": {"phase": phase, "startTime": rfc3339(start), "conditions": [ready_condition]}}


def used(**values: int) -> dict[str, Sample]:
    return {name: Sample(value, NOW) for name, value in values.items()}


A, B, C = a_pod("a"), a_pod("b"), a_pod("c")
REQUESTS = {"a": 1000, "b": 1000, "c": 1000}


@pytest.mark.parametrize(
    ("pods", "samples", "target", "replicas"),
    [
        ([A, B, C], used(a=300, b=500, c=700), 30, 5),
        ([A, B, C], used(a=300, b=500, c=700), 48, 3),  # within a tenth
        ([A, B, C], used(a=100, b=100, c=100), 50, 1),
        ([A, B, C], used(a=1000, b=1000), 50, 4),  # the silent one counts as idle on the way up
        ([A, B, C], used(a=100, b=100), 50, 3),  # and as full on the way down
        ([A, B, C], used(a=400, b=400), 300, 2),  # at its target, where that is above what it asked for
        ([A, B, a_pod("c", "Pending")], used(a=1000, b=1000), 50, 4),
        ([A, B, a_pod("c", "Failed")], used(a=1000, b=1000, c=9000), 50, 4),
        ([A, B, a_pod("c", deleted=True)], used(a=1000, b=1000, c=9000), 50, 4),
        ([A, B, a_pod("c", ready=False, start=NOW - 60)], used(a=1000, b=1000, c=9000), 50, 4),
    ],
)
def test_replicas_by_utilization(pods: list[Object], samples: dict[str, Sample], target: int, replicas: int) -> None:
    groups = group(pods, samples, "cpu", NOW)
    assert by_utilization(groups, REQUESTS, 3, target, Tolerance())[0] == replicas


def test_replicas_by_average_and_share() -> None:
    assert by_average(group([A, B, C], used(a=20, b=10, c=10), "", NOW), 3, 10, Tolerance()) == (4, 13)
    assert by_share(8600, 2000, 3, Tolerance()) == (5, 2867)
    assert by_share(8600, 3000, 3, Tolerance()) == (3, 2867)
    assert by_share(5000, 2000, 0, Tolerance()) == (3, 5000)


def test_tolerance_has_two_sides() -> None:
    groups = group([A, B, C], used(a=600, b=600, c=600), "cpu", NOW)
    assert by_utilization(groups, REQUESTS, 3, 50, Tolerance(up=0.3))[0] == 3
    assert by_utilization(groups, REQUESTS, 3, 50, Tolerance(up=0.0))[0] == 4


@pytest.mark.parametrize(
    ("pods", "samples", "text"),
    [
        ([], used(a=1), "no pods returned by selector while calculating replica count"),
        ([a_pod("a", "Pending")], used(a=1), "did not receive metrics for targeted pods (pods might be unready)"),
    ],
)
def test_without_pods_there_is_no_number(pods: list[Object], samples: dict[str, Sample], text: str) -> None:
    with pytest.raises(Unable) as error:
        group(pods, samples, "cpu", NOW)
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("current", "proposed", "replicas", "reason"),
    [
        (1, 9, 4, "ScaleUpLimit"),
        (4, 9, 8, "ScaleUpLimit"),
        (8, 90, 10, "TooManyReplicas"),
        (3, 1, 2, "TooFewReplicas"),
        (3, 5, 5, "DesiredWithinRange"),
    ],
)
def test_without_behavior_growth_is_doubling(current: int, proposed: int, replicas: int, reason: str) -> None:
    decision = normalize(None, History(), current, proposed, 2, 10, NOW)
    assert (decision.replicas, decision.limited[1]) == (replicas, reason)


def test_shrinking_waits_for_its_window() -> None:
    history = History()
    assert normalize(None, history, 4, 8, 1, 10, NOW).replicas == 8
    waiting = normalize(None, history, 8, 2, 1, 10, NOW + 299)
    assert (waiting.replicas, waiting.able[0]) == (8, "ScaleDownStabilized")
    assert normalize(None, history, 8, 2, 1, 10, NOW + 301).replicas == 2


def test_policies_limit_what_happens_in_a_period() -> None:
    pods = [{"type": "Pods", "value": 2, "periodSeconds": 60}, {"type": "Percent", "value": 10, "periodSeconds": 60}]
    behavior = {"scaleUp": {"policies": pods}, "scaleDown": {"selectPolicy": "Disabled"}}
    history = History()
    first = normalize(behavior, history, 10, 20, 1, 50, NOW)
    assert (first.replicas, first.limited[1]) == (12, "ScaleUpLimit")
    history.scaled(behavior, 10, 12, NOW)
    assert normalize(behavior, history, 12, 20, 1, 50, NOW + 30).replicas == 12
    assert normalize(behavior, history, 12, 20, 1, 50, NOW + 61).replicas == 14
    later = normalize(behavior, History(), 12, 3, 1, 50, NOW)
    assert (later.replicas, later.limited[1]) == (12, "ScaleDownLimit")
    slowest = {"scaleUp": {"policies": pods, "selectPolicy": "Min"}}
    assert normalize(slowest, History(), 10, 20, 1, 50, NOW).replicas == 11


class Metrics:
    """A metrics API before the server: every pod uses `cpu`."""

    def __init__(self, world: World) -> None:
        self.world, self.cpu = world, "100m"
        world.client = Client(InProcess(self.handle), clock=world.clock, user_agent="test")

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        ours = request.path.startswith("/apis/metrics.k8s.io/v1beta1/")
        return self._answer() if ours else self.world.cluster.server.handle(request)

    async def _answer(self) -> Answer:
        pods = await self.world.list(PODS)
        usage = [{"name": "c", "usage": {"cpu": self.cpu}}]
        stamp = {"timestamp": rfc3339(self.world.clock.now()), "window": "30s"}
        items = [{"metadata": {"name": each["metadata"]["name"]}, **stamp, "containers": usage} for each in pods]
        return Response(200, [("content-type", "application/json")], msgspec.json.encode({"items": items}))


def scaler(*metrics: Object, **spec: Any) -> Object:
    given = metrics or (cpu_at(50),)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    return {
        "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 6, "metrics": [*given], **spec},
    }


def cpu_at(percent: int) -> Object:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def workload(replicas: int = 2) -> Object:
    made = deployment(replicas=replicas)
    made["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "100m"}}
    return made


def conditions(status: Object) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}


NAMES = ("horizontal-pod-autoscaler-controller", "deployment-controller", "replicaset-controller")


async def test_it_follows_the_load_up_and_down(world: World) -> None:
    metrics = Metrics(world)
    world.tasks.spawn(world.kubelet(), "kubelet")
    await world.client.create(DEPLOYMENTS, workload(), "default")
    world.start(*NAMES)
    await world.settle(400)
    await world.client.create(HPAS, scaler(), "default")
    await world.settle(10)
    assert (await world.get(DEPLOYMENTS, "web"))["spec"]["replicas"] == 4
    await world.settle(600)
    status = (await world.get(HPAS, "web"))["status"]
    assert (status["currentReplicas"], status["desiredReplicas"]) == (6, 6)
    assert conditions(status) == {
        "AbleToScale": ("True", "ReadyForNewScale"),
        "ScalingActive": ("True", "ValidMetricFound"),
        "ScalingLimited": ("True", "TooManyReplicas"),
    }
    current = {"averageUtilization": 100, "averageValue": "100m"}
    assert status["currentMetrics"] == [{"type": "Resource", "resource": {"name": "cpu", "current": current}}]
    metrics.cpu = "10m"
    await world.settle(240)
    assert (await world.get(DEPLOYMENTS, "web"))["spec"]["replicas"] == 6, "it is steady for five minutes"
    await world.settle(900)
    assert (await world.get(DEPLOYMENTS, "web"))["spec"]["replicas"] == 1
    told = [message for reason, message in await world.events() if reason == "SuccessfulRescale"]
    assert "New size: 4; reason: cpu resource utilization (percentage of request) above target" in told
    assert any(each.endswith("reason: All metrics below target") for each in told)


async def test_without_metrics_it_leaves_the_size_and_says_why(world: World) -> None:
    await world.client.create(DEPLOYMENTS, workload(), "default")
    world.start(*NAMES)
    await world.client.create(HPAS, scaler(), "default")
    await world.settle(60)
    status = (await world.get(HPAS, "web"))["status"]
    (active,) = [each for each in status["conditions"] if each["type"] == "ScalingActive"]
    text = (
        "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource"
        " metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)"
    )
    assert active["message"] == f"the HPA was unable to compute the replica count: {text}"
    assert (await world.get(DEPLOYMENTS, "web"))["spec"]["replicas"] == 2
    told = await world.events()
    assert ("FailedGetResourceMetric", text) in told
    whole = f"invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {text}"
    assert ("FailedComputeMetricsReplicas", whole) in told


@pytest.mark.parametrize(
    ("replicas", "limits", "size", "reason"),
    [
        (9, {}, 6, "SucceededRescale"),
        (1, {"minReplicas": 3}, 3, "SucceededRescale"),
        (0, {}, 0, "SucceededGetScale"),
    ],
)
async def test_limits_need_no_metrics(world: World, replicas: int, limits: Object, size: int, reason: str) -> None:
    await world.client.create(DEPLOYMENTS, workload(replicas), "default")
    world.start(NAMES[0])
    await world.client.create(HPAS, scaler(**limits), "default")
    await world.settle(5)
    assert (await world.get(DEPLOYMENTS, "web"))["spec"]["replicas"] == size
    assert conditions((await world.get(HPAS, "web"))["status"])["AbleToScale"] == ("True", reason)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ({"kind": "Deployment", "name": "gone", "apiVersion": "apps/v1"}, 'deployments.apps "gone" not found'),
        ({"kind": "Boat", "name": "x", "apiVersion": "sea/v1"}, 'no matches for kind "Boat" in group "sea"'),
    ],
)
async def test_a_target_that_is_not_there(world: World, target: Object, text: str) -> None:
    world.start(NAMES[0])
    await world.client.create(HPAS, scaler(scaleTargetRef=target), "default")
    await world.settle()
    (able,) = (await world.get(HPAS, "web"))["status"]["conditions"]
    assert (able["status"], able["reason"]) == ("False", "FailedGetScale")
    assert able["message"] == f"the HPA controller was unable to get the target's current scale: {text}"
    assert ("FailedGetScale", text) in await world.events()


async def test_how_often_it_looks_is_a_setting(world: World) -> None:
    await world.client.create(DEPLOYMENTS, workload(2), "default")
    world.start(NAMES[0], **{"horizontal-pod-autoscaler-sync-period": "4"})
    await world.client.create(HPAS, scaler(cpu_at(50), minReplicas=1, maxReplicas=3), "default")
    await world.settle(1)
    await world.client.patch(DEPLOYMENTS, "web", "default", {"spec": {"replicas": 9}})
    await world.settle(5)
    assert (await world.get(DEPLOYMENTS, "web"))["spec"]["replicas"] == 3
