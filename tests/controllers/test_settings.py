"""What the flags of kube-controller-manager change in the controllers themselves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steersman.api.resource import CONFIGMAPS, DEPLOYMENTS, ENDPOINTSLICES, NODES, PODS, REPLICASETS, SERVICES
from steersman.client.pace import Bucket, bucket_of
from steersman.controllers.hpa.replicas import Sample, Settings, group
from steersman.controllers.run import chosen

from .conftest import World
from .objects import deployment, pod, replicaset, service


def test_how_many_work_at_once() -> None:
    [found] = chosen(["job-controller"], {"concurrent-job-syncs": "3"})
    assert found.workers == 3
    [found] = chosen(["job-controller"], {})
    assert found.workers == 5
    assert chosen(["garbage-collector-controller"], {"enable-garbage-collector": "false"}) == []


async def test_controllers_start_one_after_another(world: World) -> None:
    world.start("replicaset-controller", "deployment-controller", **{"controller-start-interval": "60"})
    await world.client.create(DEPLOYMENTS, deployment(), "default")
    await world.settle(50)
    assert (await world.get(DEPLOYMENTS, "web")).get("status", {}) == {}
    await world.settle(80)
    assert len(await world.list(PODS)) == 2


async def test_a_slice_holds_as_many_as_it_may(world: World) -> None:
    flags = {"max-endpoints-per-slice": "2", "endpointslice-updates-batch-period": "30"}
    world.start("endpointslice-controller", **flags)
    await world.client.create(NODES, {"metadata": {"name": "node-1"}})
    await world.client.create(SERVICES, service(), "default")
    await world.settle(40)
    for number in range(5):
        await world.make_ready(await world.client.create(PODS, pod(f"web-{number}"), "default"))
    await world.settle(20)
    assert all(not each.get("endpoints") for each in await world.list(ENDPOINTSLICES)), "changes of pods are gathered"
    await world.settle(20)
    sizes = sorted(len(each["endpoints"]) for each in await world.list(ENDPOINTSLICES))
    assert sizes == [1, 2, 2]


async def test_requests_wait_for_their_turn(world: World) -> None:
    bucket = Bucket(world.clock, 2.0, 4)
    began = world.clock.monotonic()
    await asyncio.gather(*(bucket.take() for _ in range(10)))
    assert world.clock.monotonic() - began == pytest.approx(3.0)
    await world.clock.sleep(100)
    began = world.clock.monotonic()
    await asyncio.gather(*(bucket.take() for _ in range(4)))
    assert world.clock.monotonic() == began, "an idle bucket fills up, and no further"
    assert bucket_of({}, world.clock) is None
    assert bucket_of({"kube-api-qps": "-1"}, world.clock) is None


async def test_a_controller_keeps_to_its_rate(world: World) -> None:
    world.start("replicaset-controller", "deployment-controller", **{"kube-api-qps": "1", "kube-api-burst": "5"})
    await world.client.create(DEPLOYMENTS, deployment(replicas=25), "default")
    await world.settle(5)
    few = len(await world.list(PODS))
    assert 0 < few <= 11
    await world.settle(60)
    assert len(await world.list(PODS)) == 25


def test_autoscaling_has_settings() -> None:
    flags = {
        "horizontal-pod-autoscaler-tolerance": "0.3",
        "horizontal-pod-autoscaler-downscale-stabilization": "60.0",
        "horizontal-pod-autoscaler-cpu-initialization-period": "10.0",
        "horizontal-pod-autoscaler-initial-readiness-delay": "0.0",
    }
    settings = Settings.of(flags)
    assert settings == Settings(15.0, 0.3, 60.0, 10.0, 0.0)
    assert Settings.of({}) == Settings()
    stamp = "2026-01-01T00:00:00Z"
    waiting = pod("web-0")
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:05Z"}
    waiting["status"] = {"phase": "Running", "startTime": stamp, "conditions": [ready]}
    now = 1767225660.0  # a minute after its start
    samples = {"web-0": Sample(100, now)}
    assert group([waiting], samples, "cpu", now, settings).ready == 1
    with pytest.raises(Exception, match="might be unready"):
        group([waiting], samples, "cpu", now, Settings())


async def test_the_authority_that_namespaces_are_told_of(world: World) -> None:
    world.start("root-ca-certificate-publisher-controller", **{"root-ca": "PEM"})
    await world.settle()
    assert (await world.get(CONFIGMAPS, "kube-root-ca.crt"))["data"] == {"ca.crt": "PEM"}


async def test_requests_say_which_controller_they_are_of(world: World) -> None:
    seen: set[str] = set()
    client = world.client.named("shared-informers")
    inner = client.transport

    class Listening:
        """A transport that keeps user agents."""

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

        async def request(self, method: str, target: str, headers: Any = (), body: Any = b"") -> Any:
            seen.add(dict(headers)["user-agent"].partition("/")[2])
            return await inner.request(method, target, headers, body)

    world.client.transport = Listening()  # type: ignore[assignment]
    world.start("replicaset-controller", "garbage-collector-controller")
    await world.client.create(REPLICASETS, replicaset(), "default")
    await world.settle()
    made = await world.list(PODS)
    assert {"replicaset-controller", "generic-garbage-collector"} <= seen
    managers = {each["manager"] for pod_ in made for each in pod_["metadata"]["managedFields"]}
    assert all("/" not in manager for manager in managers)
