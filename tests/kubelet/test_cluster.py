"""A simulated node under the real API server: client, informers, patches and events are the product's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, EVENTS, LEASES, NODES, PODS, Object
from steersman.client.events import EventRecorder
from steersman.client.informer import Informers
from steersman.engine.interface import PullFailed
from steersman.kubelet.agent import Kubelet
from steersman.lib.tasks import Tasks
from steersman.lib.virtualtime import VirtualLoop
from steersman.testing.cluster import ApiCluster
from steersman.testing.fakeruntime import Script

from .pods import container
from .world import World


class Node:
    """A kubelet's surroundings, and questions to the API."""

    def __init__(self, cluster: ApiCluster, world: World) -> None:
        self.cluster = cluster
        self.client = cluster.client
        self.world = world
        world.clock = cluster.clock  # type: ignore[assignment]

    @asynccontextmanager
    async def kubelet(self) -> AsyncIterator[Kubelet]:
        async with Tasks() as tasks:
            clock = self.cluster.clock
            kubelet = Kubelet(
                settings=self.world.settings,
                client=self.client,
                informers=Informers(self.client, clock=clock, tasks=tasks),
                runtime=self.world.runtime,
                images=self.world.images,
                clock=clock,
                recorder=EventRecorder(self.client, clock, tasks, component="kubelet", host="node-1"),
            )
            async with kubelet.running():
                yield kubelet

    async def create(self, name: str = "web", *containers: Object, **spec: Any) -> Object:
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": "node-1", "containers": list(containers) or [container()], **spec},
        }
        return await self.client.create(PODS, body, "default")

    async def pod(self, name: str = "web") -> Object | None:
        try:
            return await self.client.get(PODS, name, "default")
        except ApiError as error:
            assert error.code == 404
            return None

    async def until(self, check: Callable[[Object | None], Any], name: str = "web") -> Object:
        """Ask until the pod is as it should be."""
        async with asyncio.timeout(600):
            while not check(found := await self.pod(name)):
                await self.cluster.clock.sleep(0.05)
        return found or {}

    async def reasons(self, name: str = "web") -> list[str]:
        page = await self.client.list(EVENTS, "default")
        found = [each for each in page.items if each["involvedObject"]["name"] == name]
        return [each["reason"] for each in sorted(found, key=lambda each: int(each["metadata"]["resourceVersion"]))]


def simulated(test: Callable[..., Any]) -> Callable[[Path], None]:
    def called(tmp_path: Path) -> None:
        async def run() -> None:
            async with ApiCluster() as cluster:
                await test(Node(cluster, World(tmp_path)))

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(run())

    called.__name__ = test.__name__
    return called


def running(found: Object | None) -> bool:
    return found is not None and found["status"].get("phase") == "Running"


@simulated
async def test_a_pods_whole_life(node: Node) -> None:
    async with node.kubelet():
        assert (await node.client.get(NODES, "node-1"))["status"]["conditions"][-1]["reason"] == "KubeletReady"
        await node.create()
        found = await node.until(running)
        status = found["status"]
        assert {each["type"]: each["status"] for each in status["conditions"]}["Ready"] == "True"
        assert status["podIPs"] == [{"ip": "10.244.0.1"}]
        assert status["containerStatuses"][0]["ready"]
        await node.client.delete(PODS, "web", "default")
        await node.until(lambda found: found is None)
        assert not node.world.runtime.sandboxes()
        assert await node.reasons() == ["Pulled", "Created", "Started", "Killing"]
        lease = await node.client.get(LEASES, "node-1", "kube-node-lease")
        assert lease["spec"]["holderIdentity"] == "node-1"


@simulated
async def test_foreign_conditions_survive_and_gates_are_seen(node: Node) -> None:
    gate = "example.com/ok"
    async with node.kubelet():
        await node.create(readinessGates=[{"conditionType": gate}])
        await node.until(running)
        body = {"status": {"conditions": [{"type": gate, "status": "True"}]}}
        await node.client.patch(PODS, "web", "default", body, type="strategic", subresource="status")

        def ready(found: Object | None) -> bool:
            conditions = {each["type"]: each["status"] for each in (found or {})["status"]["conditions"]}
            return conditions.get("Ready") == "True" and conditions.get(gate) == "True"

        await node.until(ready)


@simulated
async def test_a_changed_image_restarts_the_container(node: Node) -> None:
    async with node.kubelet():
        await node.create()
        await node.until(running)
        body = {"spec": {"containers": [{"name": "main", "image": "busybox"}]}}
        await node.client.patch(PODS, "web", "default", body, type="strategic")
        found = await node.until(lambda found: found and found["status"]["containerStatuses"][0]["restartCount"] == 1)
        assert found["status"]["containerStatuses"][0]["image"] == "docker.io/library/busybox:latest"


@simulated
async def test_new_sandboxes_replace_the_address(node: Node) -> None:
    async with node.kubelet():
        await node.create()
        await node.until(running)
        node.world.runtime.lose_sandbox(node.world.runtime.sandboxes()[0].id)
        await node.until(lambda found: found and found["status"]["podIPs"] == [{"ip": "10.244.0.2"}])


@simulated
async def test_pull_errors_are_told(node: Node) -> None:
    node.world.images.failures["nginx:nope"] = PullFailed("manifest unknown")
    async with node.kubelet():
        await node.create("web", container(image="nginx:nope"))

        def waits(reason: str) -> Callable[[Object | None], bool]:
            return lambda found: reason in str((found or {})["status"].get("containerStatuses"))

        await node.until(waits("ErrImagePull"))
        await node.until(waits("ImagePullBackOff"))
        node.world.images.failures.clear()
        await node.until(running)
        assert {"Pulling", "Failed", "BackOff", "Pulled"} <= set(await node.reasons())


@simulated
async def test_configmaps_arrive_and_change(node: Node) -> None:
    mount = [{"name": "c", "mountPath": "/c"}]
    async with node.kubelet():
        volumes = [{"name": "c", "configMap": {"name": "c", "optional": True}}]
        await node.create("web", container(volumeMounts=mount), volumes=volumes)
        await node.until(running)
        place = Path(next(each.host_path for each in node.world.runtime.containers()[0].config.mounts))
        assert not (place / "k").exists()
        made = await node.client.create(CONFIGMAPS, {"metadata": {"name": "c"}, "data": {"k": "1"}}, "default")
        await node.until(lambda _: (place / "k").exists())
        await node.client.update(CONFIGMAPS, {**made, "data": {"k": "2"}})
        await node.until(lambda _: (place / "k").read_text() == "2")


@simulated
async def test_a_restarted_kubelet_under_the_real_api(node: Node) -> None:
    node.world.scripts["main"] = Script(runs_for=30.0, exit_code=5)
    async with node.kubelet():
        await node.create(restartPolicy="Never")
        await node.until(running)
    await node.cluster.clock.sleep(60)
    async with node.kubelet():
        found = await node.until(lambda found: found and found["status"]["phase"] == "Failed")
        assert found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 5
        await node.client.delete(PODS, "web", "default")
        await node.until(lambda found: found is None)


@simulated
async def test_a_finalizer_holds_the_object_only(node: Node) -> None:
    async with node.kubelet() as kubelet:
        made = await node.create()
        await node.until(running)
        body = {"metadata": {"finalizers": ["example.com/wait"]}}
        await node.client.patch(PODS, "web", "default", body)
        await node.client.delete(PODS, "web", "default")
        await node.until(lambda _: not node.world.runtime.sandboxes())
        await node.cluster.clock.sleep(30)
        version = (await node.pod() or {})["metadata"]["resourceVersion"]
        await node.cluster.clock.sleep(300)
        assert (await node.pod() or {})["metadata"]["resourceVersion"] == version
        await node.client.patch(PODS, "web", "default", {"metadata": {"finalizers": None}})
        await node.until(lambda found: found is None)
        assert not kubelet.pods() and made["metadata"]["uid"]


@simulated
async def test_a_pod_of_the_same_name_follows_at_once(node: Node) -> None:
    async with node.kubelet():
        first = await node.create()
        await node.until(running)
        await node.client.delete(PODS, "web", "default", grace_seconds=0)
        await node.create()
        found = await node.until(running)
        assert found["metadata"]["uid"] != first["metadata"]["uid"]
        await node.until(lambda _: len(node.world.runtime.sandboxes()) == 1)


@pytest.mark.parametrize("grace", [0, 1])
def test_forced_deletion(tmp_path: Path, grace: int) -> None:
    @simulated
    async def body(node: Node) -> None:
        node.world.scripts["main"] = Script(stops_in=1000)
        async with node.kubelet():
            await node.create()
            await node.until(running)
            began = node.cluster.clock.now()
            await node.client.delete(PODS, "web", "default", grace_seconds=grace)
            await node.until(lambda _: not node.world.runtime.sandboxes())
            assert node.cluster.clock.now() - began < 35

    body(tmp_path)
