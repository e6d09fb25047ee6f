"""The scheduler over the real API server, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from steersman.api.resource import EVENTS, NODES, PODS, SERVICEACCOUNTS, Object
from steersman.client.informer import Informers
from steersman.client.series import SeriesRecorder
from steersman.lib.clock import LoopClock
from steersman.lib.tasks import Tasks
from steersman.lib.virtualtime import VirtualLoop
from steersman.scheduler.framework import Event
from steersman.scheduler.podinfo import PodInfo, read
from steersman.scheduler.queue import Queue
from steersman.scheduler.scheduler import Scheduler
from steersman.testing.cluster import ApiCluster


def virtual(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on a loop of virtual time."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(test())
    finally:
        loop.close()


def a_node(name: str, cpu: str = "1") -> Object:
    return {"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "10"}}}


def a_pod(name: str, cpu: str = "100m", **spec: object) -> Object:
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


async def with_scheduler(body: Callable[[ApiCluster], Awaitable[None]]) -> None:
    async with ApiCluster() as cluster, Tasks() as tasks:
        client, clock = cluster.client, cluster.clock
        recorder = SeriesRecorder(client, clock, tasks, controller="default-scheduler", host="h")
        informers = Informers(client, clock=clock, tasks=tasks)
        scheduler = Scheduler(client, informers, recorder, clock, Random(1))
        tasks.spawn(scheduler.run(), "scheduler")
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
        await body(cluster)


async def add_node(cluster: ApiCluster, node: Object) -> None:
    made = await cluster.client.create(NODES, node)
    made["status"] = node["status"]
    made = await cluster.client.update(NODES, made, subresource="status")
    made["spec"].pop("taints", None)
    await cluster.client.update(NODES, made)


async def until(cluster: ApiCluster, name: str, good: Callable[[Object], bool]) -> Object:
    async with asyncio.timeout(60):
        while True:
            pod = await cluster.client.get(PODS, name, "default")
            if good(pod):
                return pod
            await cluster.clock.sleep(0.1)


def test_a_pod_is_bound_and_told_of() -> None:
    async def body(cluster: ApiCluster) -> None:
        await add_node(cluster, a_node("n"))
        await cluster.client.create(PODS, a_pod("p"), "default")
        pod = await until(cluster, "p", lambda pod: bool(pod["spec"].get("nodeName")))
        assert pod["spec"]["nodeName"] == "n"
        assert {c["type"]: c["status"] for c in pod["status"]["conditions"]}["PodScheduled"] == "True"
        await cluster.clock.sleep(1)
        events = (await cluster.client.list(EVENTS, "default")).items
        assert [e["message"] for e in events if e["reason"] == "Scheduled"] == ["Successfully assigned default/p to n"]

    virtual(lambda: with_scheduler(body))


def test_a_pod_that_fits_nowhere_waits_for_a_node() -> None:
    async def body(cluster: ApiCluster) -> None:
        await add_node(cluster, a_node("small", "50m"))
        await cluster.client.create(PODS, a_pod("p"), "default")
        pod = await until(cluster, "p", lambda pod: bool((pod.get("status") or {}).get("conditions")))
        condition = pod["status"]["conditions"][0]
        assert (condition["type"], condition["status"], condition["reason"]) == (
            "PodScheduled",
            "False",
            "Unschedulable",
        )
        assert condition["message"].startswith("0/1 nodes are available: 1 Insufficient cpu.")
        await add_node(cluster, a_node("large"))
        assert (await until(cluster, "p", lambda pod: bool(pod["spec"].get("nodeName"))))["spec"]["nodeName"] == "large"

    virtual(lambda: with_scheduler(body))


def test_a_node_is_never_given_more_than_it_has() -> None:
    async def body(cluster: ApiCluster) -> None:
        await add_node(cluster, a_node("n", "1"))
        for number in range(15):
            await cluster.client.create(PODS, a_pod(f"p{number}", "150m"), "default")
        await cluster.clock.sleep(5)
        placed = [p for p in (await cluster.client.list(PODS, "default")).items if p["spec"].get("nodeName")]
        assert len(placed) == 6
        await cluster.client.delete(PODS, placed[0]["metadata"]["name"], "default", grace_seconds=0)
        await cluster.clock.sleep(30)
        placed = [p for p in (await cluster.client.list(PODS, "default")).items if p["spec"].get("nodeName")]
        assert len(placed) == 6

    virtual(lambda: with_scheduler(body))


@pytest.mark.parametrize("spec", [{"schedulerName": "other"}, {"schedulingGates": [{"name": "a.b/wait"}]}])
def test_pods_of_others_and_gated_pods_are_left_alone(spec: Object) -> None:
    async def body(cluster: ApiCluster) -> None:
        await add_node(cluster, a_node("n"))
        await cluster.client.create(PODS, a_pod("p", **spec), "default")
        await cluster.clock.sleep(30)
        assert not (await cluster.client.get(PODS, "p", "default"))["spec"].get("nodeName")

    virtual(lambda: with_scheduler(body))


def test_a_pod_waits_for_the_one_that_it_wants_to_be_near() -> None:
    async def body(cluster: ApiCluster) -> None:
        node = a_node("n")
        node["metadata"]["labels"] = {"zone": "z"}
        await add_node(cluster, node)
        term = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}}
        affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        await cluster.client.create(PODS, a_pod("waits", affinity=affinity), "default")
        pod = await until(cluster, "waits", lambda pod: bool((pod.get("status") or {}).get("conditions")))
        assert "1 node(s) didn't match pod affinity rules" in pod["status"]["conditions"][0]["message"]
        await cluster.clock.sleep(30)
        near = a_pod("near")
        near["metadata"]["labels"] = {"app": "x"}
        await cluster.client.create(PODS, near, "default")
        await until(cluster, "waits", lambda pod: bool(pod["spec"].get("nodeName")))

    virtual(lambda: with_scheduler(body))


def test_the_queue_orders_backs_off_and_wakes() -> None:
    async def body() -> None:
        clock = LoopClock()
        queue = Queue(clock)

        def info(uid: str, priority: int) -> object:
            pod = a_pod(uid, priority=priority)
            pod["metadata"] |= {"uid": uid, "namespace": "d", "creationTimestamp": "2026-01-01T00:00:00Z"}
            return read(pod)

        for uid, priority in (("low", 0), ("high", 10), ("mid", 5)):
            queue.put(info(uid, priority))  # type: ignore[arg-type]
        assert [(await queue.pop()).uid for _ in range(3)] == ["high", "mid", "low"]
        for uid in ("low", "mid", "high"):
            queue.failed(uid, ["NodeResourcesFit"])
        began = clock.monotonic()
        queue.tell(Event("pod freed"))
        first = (await queue.pop()).uid
        assert clock.monotonic() == began  # nobody else waits, so nobody backs off
        queue.retry(first)
        assert {(await queue.pop()).uid, (await queue.pop()).uid, first} == {"low", "mid", "high"}
        assert (await queue.pop()).uid == first
        assert clock.monotonic() - began == pytest.approx(2.0, abs=0.01)  # an error waits its time

    virtual(body)


@pytest.mark.parametrize(
    "requests",
    [
        {"cpu": str(2**63 - 1), "memory": f"{2**63 - 1}Ei"},
        {"memory": "8Ei", "example.com/thing": str(2**63 - 1)},
    ],
)
def test_requests_beyond_all_numbers_wait_and_stop_nobody(requests: dict[str, str]) -> None:
    async def body(cluster: ApiCluster) -> None:
        await add_node(cluster, a_node("node-1"))
        huge = a_pod("huge")
        asked = {"requests": requests, "limits": {"example.com/thing": requests.get("example.com/thing", "0")}}
        huge["spec"]["containers"] = [{"name": name, "image": "i", "resources": asked} for name in ("c", "d")]
        await cluster.client.create(PODS, huge, "default")
        waiting = await until(cluster, "huge", lambda pod: bool((pod.get("status") or {}).get("conditions")))
        assert "Insufficient memory" in waiting["status"]["conditions"][0]["message"]
        forced = {**huge, "metadata": {"name": "forced"}, "spec": {**huge["spec"], "nodeName": "node-1"}}
        await cluster.client.create(PODS, forced, "default")
        await cluster.client.delete(PODS, "forced", "default", grace_seconds=0)
        await cluster.client.create(PODS, a_pod("small"), "default")
        await until(cluster, "small", lambda pod: pod["spec"].get("nodeName") == "node-1")

    virtual(lambda: with_scheduler(body))


def test_a_pod_that_breaks_a_rule_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = Scheduler._decide

    def breaking(self: Scheduler, pod: PodInfo, told: Any) -> Any:
        if pod.name == "odd":
            raise OverflowError("what nobody thought of")
        return decide(self, pod, told)

    monkeypatch.setattr(Scheduler, "_decide", breaking)

    async def body(cluster: ApiCluster) -> None:
        await add_node(cluster, a_node("node-1"))
        for name in ("odd", "even"):
            await cluster.client.create(PODS, a_pod(name), "default")
        await until(cluster, "even", lambda pod: pod["spec"].get("nodeName") == "node-1")

    virtual(lambda: with_scheduler(body))
