"""Claims of devices: over the real API server, from the template to the claim's end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

from steersman.api.errors import ApiError
from steersman.api.resource import EVENTS, PODS, SERVICEACCOUNTS, Object, Resource
from steersman.client.client import Client
from steersman.client.controller import Context
from steersman.client.deviceclaims import CLAIMS, CLASSES, FINALIZER, SLICES, TEMPLATES, allocation
from steersman.client.events import EventRecorder
from steersman.client.informer import Informers
from steersman.client.series import SeriesRecorder
from steersman.controllers.run import run_controllers
from steersman.lib.tasks import Tasks
from steersman.scheduler.scheduler import Scheduler
from steersman.testing.cluster import ApiCluster
from tests.scheduler.test_scheduler import a_node, a_pod, add_node, until, virtual

DRIVER = "gpu.example.com"


def a_class(name: str = "gpu", *selectors: str, **spec: Any) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {"selectors": [{"cel": {"expression": each}} for each in selectors], **spec},
    }


def a_device(name: str, memory: str = "40Gi", **given: Any) -> Object:
    return {"name": name, "capacity": {"memory": {"value": memory}}, **given}


def a_slice(name: str, devices: Sequence[Object], pool: str = "", **spec: Any) -> Object:
    where = (
        spec
        if {"allNodes", "nodeName", "nodeSelector", "perDeviceNodeSelection"} & set(spec)
        else {"nodeName": name, **spec}
    )
    found: Object = {
        "driver": DRIVER,
        "pool": {"name": pool or name, "generation": 1, "resourceSliceCount": 1},
        **where,
    }
    if devices:
        found["devices"] = list(devices)
    return {"metadata": {"name": name}, "spec": found}


def request(name: str = "r", *selectors: str, **asked: Any) -> Object:
    chosen = [{"cel": {"expression": each}} for each in selectors]
    exactly = {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1, "selectors": chosen, **asked}
    if exactly["allocationMode"] == "All":
        del exactly["count"]
    return {"name": name, "exactly": exactly}


def a_claim(name: str, *requests: Object, **devices: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"devices": {"requests": list(requests or [request()]), **devices}}}


def using(name: str, *claims: str, **spec: Any) -> Object:
    made = a_pod(name, **spec)
    made["spec"]["resourceClaims"] = [{"name": each, "resourceClaimName": each} for each in claims]
    return made


async def with_both(body: Callable[[ApiCluster], Awaitable[None]], caller: type[Client] = Client) -> None:
    """Scheduler, which calls the API by `caller`, and claim controller."""
    async with ApiCluster() as cluster, Tasks() as tasks:
        client, clock = cluster.client, cluster.clock
        series = SeriesRecorder(client, clock, tasks, controller="default-scheduler", host="h")
        recorder = EventRecorder(client, clock, tasks, component="controllers")
        informers = Informers(client, clock=clock, tasks=tasks, detect_mutation=True)
        mine = caller(cluster.transport, clock=clock, user_agent="scheduler")
        scheduler = Scheduler(mine, informers, series, clock, Random(1))
        tasks.spawn(scheduler.run(), "scheduler")
        context = Context(client, informers, clock, recorder, Random(1), {})
        tasks.spawn(run_controllers(context, ("resourceclaim-controller",)), "controllers")
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
        await body(cluster)
        informers.verify()


async def messages(cluster: ApiCluster) -> list[str]:
    await cluster.clock.sleep(2)
    return [each["message"] for each in (await cluster.client.list(EVENTS, "default")).items]


def placed(pod: Object) -> bool:
    return bool(pod["spec"].get("nodeName"))


def told(pod: Object) -> bool:
    return bool((pod.get("status") or {}).get("conditions"))


async def claim_of(cluster: ApiCluster, name: str) -> Object:
    return await cluster.client.get(CLAIMS, name, "default")


class Unbinding(Client):
    """Cannot bind."""

    async def post(
        self, resource: Resource, obj: Object, namespace: str, *, name: str = "", subresource: str = ""
    ) -> None:
        if subresource == "binding":
            raise ApiError(500, "InternalError", "no binding today")
        await super().post(resource, obj, namespace, name=name, subresource=subresource)


def test_who_is_not_bound_reserves_nothing() -> None:
    async def body(cluster: ApiCluster) -> None:
        client = cluster.client
        await add_node(cluster, a_node("n"))
        await client.create(CLASSES, a_class())
        await client.create(SLICES, a_slice("n", [a_device("a")]))
        await client.create(CLAIMS, a_claim("c"), "default")
        await client.create(PODS, using("p", "c"), "default")
        assert any("no binding today" in each for each in await messages(cluster))
        for _ in range(40):
            claim = await claim_of(cluster, "c")
            if "allocation" in claim["status"] and not claim["status"].get("reservedFor"):
                return
            await cluster.clock.sleep(0.1)
        raise AssertionError(claim["status"])

    virtual(lambda: with_both(body, Unbinding))


def test_from_the_template_to_the_end_of_the_claim() -> None:
    async def body(cluster: ApiCluster) -> None:
        client = cluster.client
        for name in ("empty", "full"):
            await add_node(cluster, a_node(name))
        pod = a_pod("p")
        pod["spec"]["resourceClaims"] = [{"name": "card", "resourceClaimTemplateName": "gpu"}]
        await client.create(PODS, pod, "default")
        await cluster.clock.sleep(5)
        assert not told(await client.get(PODS, "p", "default")), "a pod whose claims are not there is not tried"
        template = {"metadata": {"name": "gpu"}, "spec": {"spec": a_claim("x")["spec"]}}
        await client.create(TEMPLATES, template, "default")
        found = await until(cluster, "p", told)
        text = (
            "0/2 nodes are available: request r: device class gpu does not exist. still not schedulable, preemption: "
        )
        assert found["status"]["conditions"][0]["message"].startswith(text)
        await client.create(CLASSES, a_class("gpu", f"device.driver == '{DRIVER}'"))
        await cluster.clock.sleep(5)
        found = await client.get(PODS, "p", "default")
        text = (
            "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, preemption: 0/2 nodes are "
        )
        assert found["status"]["conditions"][0]["message"].startswith(text)
        await client.create(SLICES, a_slice("full", [a_device("a"), a_device("b")]))
        assert (await until(cluster, "p", placed))["spec"]["nodeName"] == "full"
        (claim,) = (await client.list(CLAIMS, "default")).items
        assert claim["metadata"]["finalizers"] == [FINALIZER]
        given = allocation(claim)
        assert given is not None
        assert given["devices"]["results"] == [{"request": "r", "driver": DRIVER, "pool": "full", "device": "a"}]
        here = {"key": "metadata.name", "operator": "In", "values": ["full"]}
        assert given["nodeSelector"] == {"nodeSelectorTerms": [{"matchFields": [here]}]}
        assert [each["name"] for each in claim["status"]["reservedFor"]] == ["p"]
        await client.patch(PODS, "p", "default", {"status": {"phase": "Succeeded"}}, subresource="status")
        await cluster.clock.sleep(5)
        assert not (await client.list(CLAIMS, "default")).items

    virtual(lambda: with_both(body))


def test_no_device_is_given_twice_and_freed_ones_are_given_again() -> None:
    async def body(cluster: ApiCluster) -> None:
        client = cluster.client
        await client.create(CLASSES, a_class())
        for name in ("n1", "n2"):
            await add_node(cluster, a_node(name))
            await client.create(SLICES, a_slice(name, [a_device("a"), a_device("b")]))
        for number in range(6):
            await client.create(CLAIMS, a_claim(f"c{number}"), "default")
            await client.create(PODS, using(f"p{number}", f"c{number}"), "default")
        await cluster.clock.sleep(20)
        pods = (await client.list(PODS, "default")).items
        assert sum(map(placed, pods)) == 4
        given = [allocation(each) for each in (await client.list(CLAIMS, "default")).items]
        devices = [
            (one["devices"]["results"][0]["pool"], one["devices"]["results"][0]["device"]) for one in given if one
        ]
        assert sorted(devices) == [("n1", "a"), ("n1", "b"), ("n2", "a"), ("n2", "b")]
        first = next(filter(placed, pods))["metadata"]["name"]
        await client.delete(PODS, first, "default", grace_seconds=0)
        await cluster.clock.sleep(20)
        assert sum(map(placed, (await client.list(PODS, "default")).items)) == 4

    virtual(lambda: with_both(body))


def test_a_shared_claim_keeps_its_pods_together_until_it_is_free() -> None:
    async def body(cluster: ApiCluster) -> None:
        client = cluster.client
        await client.create(CLASSES, a_class())
        for name in ("n1", "n2"):
            await add_node(cluster, a_node(name))
            await client.create(SLICES, a_slice(name, [a_device("a")]))
        await client.create(CLAIMS, a_claim("shared"), "default")
        for number in range(4):
            await client.create(PODS, using(f"p{number}", "shared"), "default")
        nodes = {(await until(cluster, f"p{number}", placed))["spec"]["nodeName"] for number in range(4)}
        assert len(nodes) == 1
        await cluster.clock.sleep(1)
        assert len((await claim_of(cluster, "shared"))["status"]["reservedFor"]) == 4
        other = ({"n1", "n2"} - nodes).pop()
        await client.create(
            PODS, using("elsewhere", "shared", nodeSelector={"kubernetes.io/hostname": other}), "default"
        )
        for number in range(4):
            await client.delete(PODS, f"p{number}", "default", grace_seconds=0)
        await cluster.clock.sleep(5)
        left = await claim_of(cluster, "shared")
        assert not allocation(left)
        assert not left["metadata"].get("finalizers")

    virtual(lambda: with_both(body))


def test_devices_that_keep_a_pod_from_its_node_are_given_up() -> None:
    async def body(cluster: ApiCluster) -> None:
        client = cluster.client
        await client.create(CLASSES, a_class())
        for name in ("n1", "n2"):
            await add_node(cluster, {**a_node(name), "metadata": {"name": name, "labels": {"at": name}}})
        await client.create(SLICES, a_slice("n1", [a_device("a")]))
        claim = await client.create(CLAIMS, a_claim("mine"), "default")
        here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
        device = {"request": "r", "driver": DRIVER, "pool": "n1", "device": "a"}
        held = {**claim, "metadata": {**claim["metadata"], "finalizers": [FINALIZER]}}
        claim = await client.update(CLAIMS, held)
        status = {"allocation": {"devices": {"results": [device]}, "nodeSelector": {"nodeSelectorTerms": [here]}}}
        await client.update(CLAIMS, {**claim, "status": status}, subresource="status")
        await client.create(SLICES, a_slice("n2", [a_device("b")]))
        await client.create(PODS, using("p", "mine", nodeSelector={"at": "n2"}), "default")
        await until(cluster, "p", placed)
        given = allocation(await claim_of(cluster, "mine"))
        assert given is not None
        assert given["devices"]["results"][0]["device"] == "b"
        assert any("deallocation of ResourceClaim completed" in each for each in await messages(cluster))

    virtual(lambda: with_both(body))


def test_a_selector_that_fails_ends_the_attempt() -> None:
    async def body(cluster: ApiCluster) -> None:
        client = cluster.client
        await add_node(cluster, a_node("n"))
        await client.create(CLASSES, a_class())
        await client.create(SLICES, a_slice("n", [a_device("a")]))
        broken = a_claim("c", request("r", f"device.attributes['{DRIVER}'].model == 'x'"))
        await client.create(CLAIMS, broken, "default")
        await client.create(PODS, using("p", "c"), "default")
        found = await until(cluster, "p", told)
        condition = found["status"]["conditions"][0]
        text = 'running "DynamicResources" filter plugin: claim default/c: selector #0: CEL runtime error: '
        text += "no such key: model"
        assert (condition["reason"], condition["message"]) == ("SchedulerError", text)

    virtual(lambda: with_both(body))


def test_devices_are_made_ready_before_the_pod_is_bound() -> None:
    async def body(cluster: ApiCluster) -> None:
        client = cluster.client
        await add_node(cluster, a_node("n"))
        await client.create(CLASSES, a_class())
        fabric = {"bindingConditions": ["attached"], "bindingFailureConditions": ["failed"], "bindsToNode": True}
        await client.create(SLICES, a_slice("fabric", [a_device("a", **fabric)], allNodes=True))
        await client.create(CLAIMS, a_claim("c"), "default")
        await client.create(PODS, using("p", "c"), "default")
        await cluster.clock.sleep(30)
        assert not placed(await client.get(PODS, "p", "default"))
        claim = await claim_of(cluster, "c")
        assert allocation(claim)
        ready = {
            "type": "attached",
            "status": "True",
            "reason": "Done",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        device = {"driver": DRIVER, "pool": "fabric", "device": "a", "conditions": [ready]}
        status = {**claim["status"], "devices": [device]}
        await client.update(CLAIMS, {**claim, "status": status}, subresource="status")
        await until(cluster, "p", placed)
        assert "waiting for binding conditions for device on node n" in await messages(cluster)

    virtual(lambda: with_both(body))


def test_extended_resources_are_devices_of_the_class_that_stands_for_them() -> None:
    async def body(cluster: ApiCluster) -> None:
        client = cluster.client
        await add_node(cluster, a_node("none"))
        plugged = a_node("plugged")
        plugged["status"]["allocatable"]["example.com/gpu"] = "1"
        pod = a_pod("p")
        asked = {"requests": {"cpu": "1m", "example.com/gpu": "2"}, "limits": {"example.com/gpu": "2"}}
        pod["spec"]["containers"][0]["resources"] = asked
        once = {"requests": {"example.com/gpu": "3"}, "limits": {"example.com/gpu": "3"}}
        pod["spec"]["initContainers"] = [{"name": "i", "image": "i", "resources": once}]
        await client.create(PODS, pod, "default")
        found = await until(cluster, "p", told)
        assert "1 Insufficient example.com/gpu" in found["status"]["conditions"][0]["message"]
        await add_node(cluster, plugged)
        await client.create(CLASSES, a_class("gpu", extendedResourceName="example.com/gpu"))
        await cluster.clock.sleep(10)
        assert not placed(await client.get(PODS, "p", "default")), "one node has too few, the other has none"
        await client.create(SLICES, a_slice("none", [a_device(name) for name in "abcd"]))
        found = await until(cluster, "p", placed)
        assert found["spec"]["nodeName"] == "none"
        status = found["status"]["extendedResourceClaimStatus"]
        assert status["requestMappings"] == [
            {"containerName": "c", "resourceName": "example.com/gpu", "requestName": "container-1-request-1"},
            {"containerName": "i", "resourceName": "example.com/gpu", "requestName": "container-1-request-1"},
            {"containerName": "i", "resourceName": "example.com/gpu", "requestName": "container-0-request-0"},
        ]
        claim = await claim_of(cluster, status["resourceClaimName"])
        assert claim["metadata"]["name"].startswith("p-extended-resources-")
        assert claim["metadata"]["annotations"] == {"resource.kubernetes.io/extended-resource-claim": "true"}
        given = allocation(claim)
        assert given is not None
        devices = [(each["request"], each["device"]) for each in given["devices"]["results"]]
        assert devices == [
            ("container-0-request-0", "a"),
            ("container-1-request-1", "b"),
            ("container-1-request-1", "c"),
        ]
        second = a_pod("second")
        second["spec"]["containers"][0]["resources"] = asked
        await client.create(PODS, second, "default")
        assert "2 nodes" in (await until(cluster, "second", told))["status"]["conditions"][0]["message"]
        await client.patch(PODS, "p", "default", {"status": {"phase": "Succeeded"}}, subresource="status")
        await until(cluster, "second", placed)
        (left,) = (await client.list(CLAIMS, "default")).items
        assert left["metadata"]["name"].startswith("second-extended-resources-")

    virtual(lambda: with_both(body))
