"""Controllers against the real API server in process, in virtual time; nodes and kubelets are played by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from steersman.api.resource import EVENTS, PODS, Object, Resource
from steersman.client.cloud import Cloud
from steersman.client.controller import Context
from steersman.client.events import EventRecorder
from steersman.client.informer import Informers
from steersman.controllers.run import run_controllers
from steersman.lib.clock import rfc3339
from steersman.lib.tasks import Tasks
from steersman.lib.virtualtime import VirtualLoop
from steersman.testing.cluster import ApiCluster


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], VirtualLoop]]:
    """Every test's loop jumps over waiting."""
    return {"virtual": VirtualLoop}


class World:
    """A cluster with some controllers running; readers that change what informers hold are caught at the end."""

    def __init__(self, cluster: ApiCluster, tasks: Tasks) -> None:
        self.cluster = cluster
        self.client = cluster.client
        self.clock = cluster.clock
        self.tasks = tasks
        self.informers = Informers(cluster.client, clock=cluster.clock, tasks=tasks, detect_mutation=True)
        self.recorder = EventRecorder(cluster.client, cluster.clock, tasks, component="test")

    def start(self, *names: str, cloud: Cloud | None = None, **config: str) -> None:
        """Run controllers."""
        context = Context(self.client, self.informers, self.clock, self.recorder, Random(1), config, cloud)
        self.tasks.spawn(run_controllers(context, names), "controllers")

    async def settle(self, seconds: float = 5.0) -> None:
        """Let virtual time pass."""
        await self.clock.sleep(seconds)

    async def get(self, resource: Resource, name: str, namespace: str = "default") -> Object:
        return await self.client.get(resource, name, namespace if resource.namespaced else "")

    async def list(self, resource: Resource, namespace: str = "default", **selectors: str) -> list[Object]:
        return (await self.client.list(resource, namespace if resource.namespaced else "", **selectors)).items

    async def names(self, resource: Resource, namespace: str = "default") -> list[str]:
        return sorted(obj["metadata"]["name"] for obj in await self.list(resource, namespace))

    async def events(self, namespace: str = "default") -> list[tuple[str, str]]:
        await self.recorder.flush()
        return [(event["reason"], event["message"]) for event in await self.list(EVENTS, namespace)]

    async def set_status(self, resource: Resource, obj: Object, **status: Any) -> Object:
        meta = obj["metadata"]
        body = {"status": status}
        return await self.client.patch(resource, meta["name"], meta.get("namespace", ""), body, subresource="status")

    async def make_ready(self, pod: Object, node: str = "node-1") -> Object:
        """What scheduler and kubelet do: bound, running, ready, with an address."""
        meta = pod["metadata"]
        if not pod["spec"].get("nodeName"):
            binding = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": meta["name"]},
                "target": {"kind": "Node", "name": node},
            }
            await self.client.create(PODS, binding, meta["namespace"], name=meta["name"], subresource="binding")
        number = sum(map(ord, meta["uid"])) % 250 + 1
        return await self.set_status(
            PODS,
            pod,
            phase="Running",
            podIP=f"10.244.0.{number}",
            podIPs=[{"ip": f"10.244.0.{number}"}],
            hostIP="192.0.2.1",
            startTime=rfc3339(self.clock.now()),
            conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(self.clock.now())}],
        )

    async def kubelet(self) -> None:
        """Until cancelled: every pod becomes ready a second after it is made, and is gone a second after deletion."""
        while True:
            for pod in await self.list(PODS, ""):
                meta = pod["metadata"]
                if meta.get("deletionTimestamp"):
                    await self.client.delete(PODS, meta["name"], meta["namespace"], grace_seconds=0)
                elif not (pod.get("status") or {}).get("podIP"):
                    await self.make_ready(pod)
            await self.clock.sleep(1)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    async with ApiCluster() as cluster, Tasks() as tasks:
        made = World(cluster, tasks)
        yield made
        made.informers.verify()
