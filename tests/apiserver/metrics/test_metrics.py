"""metrics.k8s.io of a real API server: a kubelet's Summary comes in, NodeMetrics and PodMetrics go out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from steersman.api.openapi_merge import part_of
from steersman.api.openapi_protobuf import CONTENT_TYPE
from steersman.api.resource import APISERVICES, NODES, PODS, Object
from steersman.apiserver.aggregation.aggregator import Aggregator
from steersman.apiserver.aggregation.backend import Proxy
from steersman.apiserver.metrics.resource import GROUP, VERSION, Metrics
from steersman.apiserver.metrics.usage import Counter, Look, Use, node_usage, pod_usages, read
from steersman.apiserver.paths import OpenApiPaths
from steersman.client.transport import InProcess
from steersman.lib.clock import Clock, rfc3339
from steersman.lib.http.messages import Answer, Request, Response
from steersman.lib.tasks import Tasks
from steersman.testing.cluster import ApiCluster

BASE = f"/apis/{GROUP}/{VERSION}"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"


class Kubelet:
    """Every container burns so many millicores since it started; `answer` replaces the Summary."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.pods: dict[str, dict[str, tuple[int, float]]] = {}  # pod: container: millicores, started
        self.asked = 0
        self.answer: Answer | None = None
        self.silent = False

    async def handle(self, request: Request) -> Answer:
        self.asked += 1
        assert request.path == "/stats/summary"
        if self.silent:
            await asyncio.Event().wait()
        return self.answer or Response(200, [], msgspec.json.encode(self.summary()))

    def summary(self) -> Object:
        now = self._clock.now()
        node = {
            "nodeName": "n1",
            "cpu": {"usageCoreNanoSeconds": int(now * 5e8)},
            "memory": {"workingSetBytes": 1 << 30},
        }
        pods = [
            {
                "podRef": {"name": pod, "namespace": "default", "uid": pod},
                "containers": [
                    {
                        "name": name,
                        "startTime": rfc3339(started),
                        "cpu": {"usageCoreNanoSeconds": int((now - started) * milli * 1e6)},
                        "memory": {"workingSetBytes": 5 << 20},
                    }
                    for name, (milli, started) in containers.items()
                ],
            }
            for pod, containers in self.pods.items()
        ]
        return {"node": node, "pods": pods}


class World:
    """A cluster with one node, whose kubelet the test plays."""

    def __init__(self, cluster: ApiCluster) -> None:
        self.client, self.clock = cluster.client, cluster.clock
        self.kubelet = Kubelet(cluster.clock)
        self.transport = InProcess(self.kubelet.handle)

    async def pod(self, name: str, **millicores: int) -> None:
        body = {
            "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
            "spec": {"nodeName": "n1", "containers": [{"name": each, "image": "x"} for each in millicores]},
        }
        await self.client.create(PODS, body)
        self.kubelet.pods[name] = {each: (milli, self.clock.now() - 100) for each, milli in millicores.items()}

    async def get(self, path: str, accept: str = "") -> tuple[int, Object]:
        response, body = await self.client.raw("GET", f"{BASE}/{path}", accept=accept)
        return response.status, json.loads(body)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with ApiCluster() as cluster, Tasks() as tasks:
        made = World(cluster)
        residents = {(GROUP, VERSION): Metrics(cluster.server.services, lambda node: made.transport)}
        nowhere = Proxy(tmp_path / "none.crt", tmp_path / "none.key")
        aggregator = Aggregator(cluster.server, tasks, nowhere, residents=residents)
        documented = OpenApiPaths(cluster.server.registry)
        documented.documents.others = aggregator.documents
        cluster.server.paths.append(documented)
        await aggregator.start()
        await cluster.client.create(NODES, {"metadata": {"name": "n1", "labels": {"disk": "fast"}}})
        yield made
        await made.transport.close()


async def test_a_pods_containers(world: World) -> None:
    await world.pod("web", nginx=250, sidecar=0)
    status, found = await world.get("namespaces/default/pods/web")
    assert status == 200
    assert (found["kind"], found["apiVersion"]) == ("PodMetrics", "metrics.k8s.io/v1beta1")
    assert found["metadata"]["labels"] == {"app": "web"}
    assert found["window"] == "1s"
    nginx, sidecar = found["containers"]
    assert (nginx["name"], sidecar) == ("nginx", {"name": "sidecar", "usage": {"cpu": "0", "memory": "5120Ki"}})
    assert 249_000_000 < int(nginx["usage"]["cpu"].removesuffix("n")) < 251_000_000


async def test_nodes(world: World) -> None:
    status, found = await world.get("nodes")
    assert (status, found["kind"], found["metadata"]) == (200, "NodeMetricsList", {})
    (node,) = found["items"]
    assert (node["metadata"]["name"], node["usage"]["memory"]) == ("n1", "1048576Ki")
    assert 499_000_000 < int(node["usage"]["cpu"].removesuffix("n")) < 501_000_000
    assert (await world.get("nodes?labelSelector=disk%3Dslow"))[1]["items"] == []


async def test_a_question_soon_after_costs_the_kubelet_nothing(world: World) -> None:
    await world.pod("web", nginx=250)
    await world.get("pods")
    assert world.kubelet.asked == 2
    await asyncio.gather(world.get("pods"), world.get("nodes"), world.get("pods"))
    assert world.kubelet.asked == 2
    await world.clock.sleep(15)
    assert (await world.get("pods"))[1]["items"][0]["window"] == "15s"
    assert world.kubelet.asked == 3
    await world.clock.sleep(3600)  # a rate over an hour would tell nothing of now
    assert (await world.get("pods"))[1]["items"][0]["window"] == "1s"
    assert world.kubelet.asked == 5


async def test_pods_are_selected(world: World) -> None:
    await world.pod("web", nginx=1)
    await world.pod("db", postgres=2)

    async def names(query: str) -> list[str]:
        status, found = await world.get(query)
        assert status == 200
        return [each["metadata"]["name"] for each in found["items"]]

    assert await names("pods") == ["db", "web"]
    assert await names("namespaces/default/pods?labelSelector=app%3Ddb") == ["db"]
    assert await names("pods?fieldSelector=metadata.name%21%3Ddb") == ["web"]
    assert await names("namespaces/kube-system/pods") == []
    status, found = await world.get("pods?fieldSelector=spec.nodeName%3Dn1")
    assert (status, found["message"]) == (400, "field label not supported: spec.nodeName")
    assert (await world.get("pods?labelSelector=%21%21"))[0] == 400


async def test_what_is_not_there(world: World) -> None:
    status, found = await world.get("namespaces/default/pods/none")
    assert (status, found["message"]) == (404, 'podmetrics.metrics.k8s.io "default/none" not found')
    status, found = await world.get("nodes/none")
    assert (status, found["message"]) == (404, 'nodemetrics.metrics.k8s.io "none" not found')
    assert (await world.get("secrets"))[0] == 404
    response, _ = await world.client.raw("DELETE", f"{BASE}/nodes/n1")
    assert response.status == 405


async def test_a_new_container_counts_from_its_start(world: World) -> None:
    await world.pod("old", nginx=10)
    await world.get("pods")
    await world.clock.sleep(15)
    await world.pod("new", nginx=500)
    world.kubelet.pods["new"] = {"nginx": (500, world.clock.now() - 10)}
    found = (await world.get("namespaces/default/pods/new"))[1]
    assert 400_000_000 < int(found["containers"][0]["usage"]["cpu"].removesuffix("n")) < 600_000_000


@pytest.mark.parametrize(
    "answer",
    [
        Response(500, [], b"no"),
        Response(200, [], b"{"),
        Response(200, [], b'{"node": {}, "pods": [{"podRef": 7}]}'),
        Response(200, [], b"[" * 100_000),
        Response(200, [], b" " * (33 << 20)),
    ],
    ids=["500", "cut", "wrong", "deep", "huge"],
)
async def test_a_kubelet_that_talks_nonsense_is_left_out(world: World, answer: Answer) -> None:
    await world.pod("web", nginx=250)
    world.kubelet.answer = answer
    assert (await world.get("pods"))[1]["items"] == []
    assert (await world.get("nodes"))[1]["items"] == []
    world.kubelet.answer = None
    assert len((await world.get("pods"))[1]["items"]) == 1


async def test_a_silent_kubelet_does_not_hang_the_question(world: World) -> None:
    await world.pod("web", nginx=250)
    world.kubelet.silent = True
    before = world.clock.now()
    assert (await world.get("pods"))[1]["items"] == []
    assert world.clock.now() - before < 11


async def test_tables_and_discovery(world: World) -> None:
    await world.pod("web", nginx=250, sidecar=250)
    _, table = await world.get("pods", TABLE)
    assert [each["name"] for each in table["columnDefinitions"]] == ["Name", "CPU", "Memory", "Window"]
    assert table["rows"][0]["cells"][0::2] == ["web", "10240Ki"]
    _, found = await world.get("")
    assert [(row["name"], row["kind"], row["verbs"]) for row in found["resources"]] == [
        ("nodes", "NodeMetrics", ["get", "list"]),
        ("pods", "PodMetrics", ["get", "list"]),
    ]
    service = await world.client.get(APISERVICES, "v1beta1.metrics.k8s.io")
    assert service["status"]["conditions"][0]["reason"] == "Local"


async def test_it_is_documented(world: World) -> None:
    whole = msgspec.json.decode((await world.client.raw("GET", "/openapi/v2"))[1])
    part_of(whole, f"{BASE}/")  # every reference leads somewhere
    assert whole["definitions"]["io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics"]["properties"]["containers"]
    index = msgspec.json.decode((await world.client.raw("GET", "/openapi/v3"))[1])
    _, body = await world.client.raw("GET", index["paths"][BASE.removeprefix("/")]["serverRelativeURL"])
    operation = msgspec.json.decode(body)["paths"][f"{BASE}/nodes"]["get"]
    assert operation["x-kubernetes-group-version-kind"]["kind"] == "NodeMetrics"
    response, _ = await world.client.raw("GET", "/openapi/v2", accept=CONTENT_TYPE)
    assert response.status == 200


async def test_a_metrics_server_of_the_users_takes_over(world: World) -> None:
    service = {"namespace": "kube-system", "name": "metrics-server"}
    await world.client.patch(APISERVICES, "v1beta1.metrics.k8s.io", "", {"spec": {"service": service}})
    response, body = await world.client.raw("GET", f"{BASE}/nodes")
    assert (response.status, body) == (503, b"service unavailable\n")
    await world.client.patch(APISERVICES, "v1beta1.metrics.k8s.io", "", {"spec": {"service": None}})
    assert (await world.get("nodes"))[0] == 200
    await world.client.delete(APISERVICES, "v1beta1.metrics.k8s.io")
    response, _ = await world.client.raw("GET", f"{BASE}/nodes")
    assert response.status == 404


def test_counters_that_went_back_are_a_new_start() -> None:
    def look(at: float, node: int, pod: int, started: float) -> Look:
        return Look(at, Counter(node, 1, 0), {("ns", "p"): {"c": Counter(pod, 7, started)}})

    before = look(100, 5_000, 900, 10)
    assert node_usage(before, look(110, 4_000, 0, 10)) is None
    assert pod_usages(before, look(110, 6_000, 100, 10)) == {}
    restarted = pod_usages(before, look(110, 6_000, 100, 105))["ns", "p"]
    assert (restarted.total, restarted.window) == (Use(20, 7), 5)
    assert pod_usages(before, look(110, 6_000, 100, 109.5)) == {}
    assert node_usage(before, before) is None


def test_a_pod_with_a_container_that_cannot_be_told_is_left_out() -> None:
    body = b'{"node": {}, "pods": [{"podRef": {"name": "p", "namespace": "n"}, "containers": [{"name": "c"}]}]}'
    assert read(body, 1.0).pods == {}
