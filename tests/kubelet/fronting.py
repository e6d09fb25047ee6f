"""A real API server in front of a kubelet's server, for unmodified clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from steersman.api.resource import NODES, PODS, Object
from steersman.lib.clock import SystemClock
from steersman.lib.http.messages import Answer, Request, Response, Transport
from steersman.lib.http.server import Server
from steersman.testing.cluster import ApiCluster
from tests.kubelet.serving import World, serving

_VERSION = b'{"major":"1","minor":"36","gitVersion":"v1.36.3"}'


@dataclass
class ToKubelet:
    """The API server's way to the one node; implements `subresources.streams.Dialer`."""

    world: World

    def kubelet(self, node: Object) -> Transport:
        return self.world.client()

    def address(self, scheme: str, host: str, port: int) -> Transport:
        raise AssertionError("nothing here is proxied")


@dataclass
class Front:
    """Where clients connect, and what they asked."""

    world: World
    cluster: ApiCluster
    url: str = ""
    requests: list[Request] = field(default_factory=list)

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        self.requests.append(request)
        if request.path.rstrip("/") == "/version":
            return Response(200, [("content-type", "application/json")], _VERSION)
        return self.cluster.server.handle(request)


@asynccontextmanager
async def fronted(folder: Path) -> AsyncIterator[Front]:
    """The kubelet's server of `serving` behind an API server on a port without TLS."""
    async with serving(folder) as world, ApiCluster(clock=SystemClock()) as cluster:
        cluster.server.services.extras["dialer"] = ToKubelet(world)
        await _node_and_pod(cluster)
        front = Front(world, cluster)
        async with Server(front.handle, SystemClock()) as server:
            front.url = f"http://127.0.0.1:{await server.listen('127.0.0.1', 0)}"
            yield front


async def _node_and_pod(cluster: ApiCluster) -> None:
    await cluster.client.create(NODES, {"metadata": {"name": "node-a"}})
    containers = [{"name": "main", "image": "image"}]
    pod = {"metadata": {"name": "web"}, "spec": {"nodeName": "node-a", "containers": containers}}
    made = await cluster.client.create(PODS, pod, "default")
    state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    status = {"name": "main", "ready": True, "restartCount": 0, "image": "image", "imageID": "x", "state": state}
    conditions = [
        {"type": each, "status": "True"} for each in ("Ready", "ContainersReady", "Initialized", "PodScheduled")
    ]
    made = {**made, "status": {"phase": "Running", "conditions": conditions, "containerStatuses": [status]}}
    await cluster.client.update(PODS, made, subresource="status")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server in the pod."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
