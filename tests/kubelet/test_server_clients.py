"""Unmodified Python clients enter a container and reach its ports, each with its own WebSocket subprotocol."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kr8s
import pytest
from kr8s.asyncio.objects import Pod
from kubernetes import client
from kubernetes.stream import portforward, stream

from tests.kubelet.fronting import Front, echo, fronted

_LIMIT = 20  # seconds
_REFUSED = 1  # a port where nobody listens
_SCRIPT = ["sh", "-c", "echo out; echo wrong >&2; exit 5"]


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with fronted(tmp_path) as made:
        yield made


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def _official(front: Front) -> client.CoreV1Api:
    configuration = client.Configuration()
    configuration.host = front.url
    return client.CoreV1Api(client.ApiClient(configuration))


def _protocols(front: Front) -> set[str | None]:
    return {request.header("sec-websocket-protocol") for request in front.requests if request.header("upgrade")}


@pytest.mark.slow
async def test_the_official_client_executes(front: Front) -> None:
    def run() -> tuple[str, str, int]:
        api = _official(front)
        answer = stream(api.connect_get_namespaced_pod_exec, "web", "default", command=_SCRIPT,
                        stdin=False, stdout=True, stderr=True, tty=False, _preload_content=False)  # fmt: skip
        answer.run_forever(timeout=_LIMIT)
        answer.sock.shutdown()  # it leaves that to the garbage collector
        return answer.read_stdout(), answer.read_stderr(), answer.returncode

    assert await asyncio.to_thread(run) == ("out\n", "wrong\n", 5)
    assert _protocols(front) == {"v5.channel.k8s.io,v4.channel.k8s.io"}


async def test_the_official_client_forwards(front: Front, port: int) -> None:
    def run() -> tuple[bytes, str | None, bytes, str | None]:
        api = _official(front)
        forward: Any = portforward(api.connect_get_namespaced_pod_portforward, "web", "default",
                                   ports=f"{port},{_REFUSED}")  # fmt: skip
        socket, refused = forward.socket(port), forward.socket(_REFUSED)
        socket.settimeout(_LIMIT)
        refused.settimeout(_LIMIT)
        socket.sendall(b"there and back" * 1000)
        back = b""
        while len(back) < 14_000:
            back += socket.recv(65536)
        nothing = refused.recv(1)
        socket.close()
        return back, forward.error(port), nothing, forward.error(_REFUSED)

    back, error, nothing, refusal = await asyncio.to_thread(run)
    assert (back, error, nothing) == (b"there and back" * 1000, None, b"")
    assert refusal is not None and refusal.endswith("failed to connect to localhost:1: Connection refused")


async def _kr8s_pod(front: Front) -> Pod:
    cluster = {"name": "c", "cluster": {"server": front.url}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "default"}}
    config = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "users": [{"name": "u", "user": {}}],
              "contexts": [context], "current-context": "x"}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it knows releases up to 1.35
        api = await kr8s.asyncio.api(kubeconfig=config)
        return await Pod.get("web", namespace="default", api=api)


async def test_kr8s_executes_and_forwards(front: Front, port: int) -> None:
    async with asyncio.timeout(_LIMIT):
        pod = await _kr8s_pod(front)
        done = await pod.exec(_SCRIPT, check=False)
        assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"wrong\n", 5)
        assert _protocols(front) == {"v4.channel.k8s.io"}
        async with pod.portforward(port, local_port="auto") as local:
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", local)
                writer.write(b"x" * 100_000)
                assert await reader.readexactly(100_000) == b"x" * 100_000
                writer.close()
        assert _protocols(front) == {"v4.channel.k8s.io", None}
