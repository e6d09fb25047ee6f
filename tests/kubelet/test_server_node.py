"""The kubelet's server over the real engine: logs as conmon writes them, a real terminal, a port inside a pod."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from steersman.api.resource import PODS
from steersman.cluster import certs
from steersman.kubelet.server import KubeletServer
from steersman.lib.clock import SystemClock
from steersman.lib.http.server import Server, server_tls
from steersman.lib.tasks import Tasks
from tests.kubelet.pods import container, pod
from tests.kubelet.realnode import RealNode, real_node
from tests.kubelet.serving import World, drain, exit_code

pytestmark = pytest.mark.node

_SCRIPT = "mkdir /www; echo page > /www/index.html; echo started; echo wrong >&2; exec httpd -f -p 80 -h /www"


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[World, RealNode]]:
    """A node whose one pod, `default/web`, runs a web server."""
    certs.ensure(folder, certs.identities([("node-1", "127.0.0.1")], [], "cluster.local"), time.time())  # noqa: TID251
    tls = server_tls(folder / "kubelet-node-1.crt", folder / "kubelet-node-1.key", [folder / "ca.crt"])
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(real_node(folder))
        kubelet = await stack.enter_async_context(node.kubelet())
        tasks = await stack.enter_async_context(Tasks())
        handler = KubeletServer(kubelet, node.runtime, SystemClock())
        async with Server(handler.handle, SystemClock(), tls=tls) as server:
            port = await server.listen("127.0.0.1", 0)
            world = World(node.runtime, kubelet, server, port, folder, tasks)  # type: ignore[arg-type]
            node.api.put(PODS, pod("web", container(image="busybox", command=["sh", "-c", _SCRIPT])))
            await node.until_phase("web", "Running")
            yield world, node
            for client in world.clients:
                await client.close()


def _target(what: str, streams: str, *command: str) -> str:
    query = [(name, "1") for name in streams.split()] + [("command", word) for word in command]
    return f"/{what}/default/web/main?{urlencode(query)}"


async def test_the_server_over_the_real_engine(tmp_path: Path) -> None:
    async with served(tmp_path) as (world, _):
        async with asyncio.timeout(60):
            await _logs(world)
            await _exec(world)
            await _terminal(world)
            await _port_forward(world)
            lines = (await world.get("/metrics/resource"))[1].decode()
            assert 'container_cpu_usage_seconds_total{container="main",namespace="default",pod="web"}' in lines
            assert 'container_start_time_seconds{container="main",namespace="default",pod="web"}' in lines


async def _logs(world: World) -> None:
    answer = await world.client().request("GET", "/containerLogs/default/web/main?follow=true")
    seen = b""
    async for chunk in answer.chunks():
        seen += chunk
        if sorted(seen.split(b"\n")) == [b"", b"started", b"wrong"]:
            break
    await answer.close()
    assert await world.get("/containerLogs/default/web/main?stream=Stderr") == (200, b"wrong\n")


async def _exec(world: World) -> None:
    target = _target("exec", "input output error", "sh", "-c", "cat; echo bad >&2; exit 3")
    connection = await world.spdy(target, "v4.channel.k8s.io")
    streams = {kind: connection.open([("streamtype", kind)]) for kind in ("error", "stdin", "stdout", "stderr")}
    await streams["stdin"].write(b"x" * 1_000_000)
    streams["stdin"].finish()
    assert len(await drain(streams["stdout"])) == 1_000_000
    assert await drain(streams["stderr"]) == b"bad\n"
    assert exit_code(await drain(streams["error"])) == 3
    await connection.end()


async def _terminal(world: World) -> None:
    size = "busybox stty size 2>/dev/null"  # it fails while there is none
    script = f"until test \"$({size})\" = '43 132'; do sleep 0.1; done; {size}; exit 4"
    socket = await world.websocket(_target("exec", "input output tty", "sh", "-c", script), "v5.channel.k8s.io")
    socket.send(4, b'{"Width":132,"Height":43}')
    said = await socket.end()
    assert (said[1].strip(), exit_code(said[3])) == (b"43 132", 4)


async def _port_forward(world: World) -> None:
    connection = await world.spdy("/portForward/default/web", "portforward.k8s.io")
    for request, wanted in ((1, b"page\n"), (2, b"page\n")):
        headers = [("port", "80"), ("requestid", str(request))]
        error = connection.open([*headers, ("streamtype", "error")])
        error.finish()
        data = connection.open([*headers, ("streamtype", "data")])
        await data.write(b"GET /index.html HTTP/1.0\r\n\r\n")
        assert (await drain(data)).endswith(wanted)
        assert await drain(error) == b""
    await connection.end()
