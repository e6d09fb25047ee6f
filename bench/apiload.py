"""Closed-loop load on an API server: the operations that `bench.api` measures.

Requests are made of bytes and answers are only framed, not read, so that the load costs little beside the server.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiofastnet

from bench.apitarget import Target

PODS = 1_000
STANDING, OTHERS = "bench", "bench-others"
_WARM_UP = 0.3  # seconds
_MOST = 4_000  # objects that one measurement makes or deletes
_EVENT = b'"type":"MODIFIED"'
_SEQUENCE = b'"bench/seq":"'


@dataclass(frozen=True)
class Measured:
    """Microseconds of server CPU and seconds of latency per operation, and operations per second."""

    cpu: float
    rate: float
    p50: float
    p99: float


class Asker(asyncio.Protocol):
    """One connection: sends a request, frames the answer."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._done: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport = None  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._data += data
        top = self._data.find(b"\r\n\r\n")
        if top < 0 or self._done is None:
            return
        head = bytes(self._data[:top]).lower()
        at = head.find(b"content-length: ")
        if at >= 0:
            size = int(head[at + 16 :].split(b"\r\n", 1)[0])
            if len(self._data) - top - 4 < size:
                return
            body = bytes(self._data[top + 4 :])
        elif self._data.endswith(b"\r\n0\r\n\r\n"):
            body = _unchunked(bytes(self._data[top + 4 :]))
        else:
            return
        self._data.clear()
        done, self._done = self._done, None
        done.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionResetError("closed"))

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """The answer's status and body."""
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._done

    def close(self) -> None:
        self._transport.close()


def _unchunked(data: bytes) -> bytes:
    parts = []
    while data:
        size, _, data = data.partition(b"\r\n")
        count = int(size, 16)
        parts.append(data[:count])
        data = data[count + 2 :]
    return b"".join(parts)


def message(method: str, path: str, body: bytes = b"", media: str = "application/json", more: str = "") -> bytes:
    """A request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n{more}"
    if body:
        head += f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def encode(obj: object) -> bytes:
    """Compact JSON."""
    return json.dumps(obj, separators=(",", ":")).encode()


def pod(name: str) -> dict[str, Any]:
    """What a ReplicaSet makes: 4 KB as stored."""
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "labels": {"app": "shop-frontend", "pod-template-hash": "7c5ddbdf54"},
            "annotations": {"bench/seq": "00000000"},
        },
        "spec": {
            "schedulerName": "bench-nobody",
            "containers": [{
                "name": "web", "image": "shop.example.com/frontend:1.27.3",
                "args": ["--listen=:8080", "--upstream=http://cart:8081"],
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "LOG_LEVEL", "value": "info"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"},
                              "limits": {"cpu": "500m", "memory": "256Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 10},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/shop"}],
            }],
            "volumes": [{"name": "config", "configMap": {"name": "shop-config"}}],
        },
    }  # fmt: skip


def config_map(name: str) -> dict[str, Any]:
    """Half a kilobyte of data."""
    data = {"app.properties": "key=some-value\n" * 32, "mode": "production"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


Step = Callable[[int], tuple[bytes, Callable[[bytes], None] | None]]
"""The request for a pod's number, and what to do with the answer."""


class Load:
    """Some clients of one server, and the objects they work on."""

    def __init__(self, target: Target, clients: int) -> None:
        self._target = target
        self._clients = clients
        self._askers: list[Asker] = []
        self._pods, self._others = (f"/api/v1/namespaces/{name}/pods" for name in (STANDING, OTHERS))
        self._sequence = 0
        self._bodies: dict[int, bytes] = {}
        self._doomed: deque[str] = deque()

    async def prepare(self) -> None:
        """Connect; on the first time make the namespace, the rights and the standing pods."""
        (admin,) = await connect(self._target, 1, "admin")
        for name in (STANDING, OTHERS):
            await admin.ask(message("POST", "/api/v1/namespaces", encode({"metadata": {"name": name}})))
            account = encode({"metadata": {"name": "default"}})
            await admin.ask(message("POST", f"/api/v1/namespaces/{name}/serviceaccounts", account))
        binding = {
            "metadata": {"name": "bench"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bench"}],
        }
        path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
        await admin.ask(message("POST", path, encode(binding)))
        admin.close()
        self._askers = await connect(self._target, self._clients)
        for number in range(PODS):
            await self._askers[0].ask(message("POST", self._pods, encode(pod(f"web-{number}"))))
            await self._askers[0].ask(self._apply_pod(number)[0])

    async def _clear(self) -> None:
        for namespace in (STANDING, OTHERS):
            for plural in ("pods", "configmaps"):
                await self._askers[0].ask(message("DELETE", f"/api/v1/namespaces/{namespace}/{plural}"))

    async def close(self) -> None:
        """Remove everything and hang up."""
        await self._clear()
        for asker in self._askers:
            asker.close()

    async def run(self, name: str, seconds: float) -> Measured:
        """One operation, closed-loop by every client for so long."""
        make = getattr(self, f"_{name.replace('-', '_')}")
        if name == "delete-pod":
            await self._stock()
        if name == "update-pod":
            for number in range(PODS):
                self._bodies[number] = (await self._askers[0].ask(self._get_pod(number)[0]))[1]
        times: list[float] = []
        await self._drive(make, min(_WARM_UP, seconds), [])
        before, began = self._target.cpu(), time.perf_counter()
        await self._drive(make, seconds, times)
        took, used = time.perf_counter() - began, self._target.cpu() - before
        times.sort()
        count = max(len(times), 1)
        return Measured(
            used / count * 1e6, len(times) / took, times[count // 2], times[min(count - 1, count * 99 // 100)]
        )

    async def _drive(self, make: Step, seconds: float, times: list[float]) -> None:
        end = time.perf_counter() + seconds

        async def one(number: int, asker: Asker) -> None:
            turn = number
            while (now := time.perf_counter()) < end and not (make == self._delete_pod and not self._doomed):
                request, after = make(turn % PODS)
                status, body = await asker.ask(request)
                if status >= 300:
                    raise SystemExit(f"{request[:200]!r} failed: {status} {body[:300]!r}")
                times.append(time.perf_counter() - now)
                if after is not None:
                    after(body)
                turn += self._clients

        await asyncio.gather(*(one(number, asker) for number, asker in enumerate(self._askers)))

    async def _stock(self) -> None:
        for _ in range(_MOST):
            self._sequence += 1
            name = f"old-{self._sequence}"
            await self._askers[0].ask(message("POST", self._others, encode(pod(name))))
            self._doomed.append(name)

    # The operations: bytes to send, and what to do with the answer ---------------------------------------------------

    def _get_pod(self, number: int) -> tuple[bytes, None]:
        return message("GET", f"{self._pods}/web-{number}"), None

    def _list_pods(self, number: int) -> tuple[bytes, None]:
        return message("GET", f"{self._pods}?resourceVersion=0"), None

    def _list_pods_gzip(self, number: int) -> tuple[bytes, None]:
        return message("GET", f"{self._pods}?resourceVersion=0", more="Accept-Encoding: gzip\r\n"), None

    def _create_configmap(self, number: int) -> tuple[bytes, None]:
        self._sequence += 1
        path = f"/api/v1/namespaces/{OTHERS}/configmaps"
        return message("POST", path, encode(config_map(f"new-{self._sequence}"))), None

    def _create_pod(self, number: int) -> tuple[bytes, None]:
        self._sequence += 1
        return message("POST", self._others, encode(pod(f"new-{self._sequence}"))), None

    def _update_pod(self, number: int) -> tuple[bytes, Callable[[bytes], None]]:
        self._sequence += 1
        body = self._bodies[number]
        at = body.index(_SEQUENCE) + len(_SEQUENCE)
        body = body[:at] + b"%08d" % self._sequence + body[at + 8 :]

        def keep(answer: bytes) -> None:
            self._bodies[number] = answer

        return message("PUT", f"{self._pods}/web-{number}", body), keep

    def _merge_patch_pod(self, number: int) -> tuple[bytes, None]:
        self._sequence += 1
        body = encode({"metadata": {"annotations": {"bench/seq": f"{self._sequence:08}"}}})
        return message("PATCH", f"{self._pods}/web-{number}", body, "application/merge-patch+json"), None

    def _status_patch_pod(self, number: int) -> tuple[bytes, None]:
        self._sequence += 1
        condition = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        body = encode({"status": {"phase": "Running", "message": f"{self._sequence}", "conditions": [condition]}})
        return message("PATCH", f"{self._pods}/web-{number}/status", body, "application/merge-patch+json"), None

    def _apply_pod(self, number: int) -> tuple[bytes, None]:
        self._sequence += 1
        body = pod(f"app-{number}")
        body["metadata"]["annotations"]["bench/seq"] = f"{self._sequence:08}"
        path = f"{self._others}/app-{number}?fieldManager=bench&force=true"
        return message("PATCH", path, encode(body), "application/apply-patch+yaml"), None

    def _delete_pod(self, number: int) -> tuple[bytes, None]:
        return message("DELETE", f"{self._others}/{self._doomed.popleft()}"), None


class Counter(asyncio.Protocol):
    """One watcher: counts the events it is sent."""

    def __init__(self) -> None:
        self.events = 0
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        text = self._rest + data
        self.events += text.count(_EVENT)
        self._rest = text[-len(_EVENT) + 1 :]


async def fan_out(target: Target, watchers: int, seconds: float) -> Measured:
    """One writer, many watchers of its pods: cost per delivery; latency until the last watcher has an update."""
    load = Load(target, 1)
    await load.prepare()
    loop, counters = asyncio.get_running_loop(), [Counter() for _ in range(watchers)]
    tls = target.tls()
    lines = []
    for counter in counters:
        line, _ = await aiofastnet.create_connection(loop, lambda c=counter: c, "127.0.0.1", target.port, ssl=tls)
        line.write(message("GET", f"/api/v1/namespaces/{STANDING}/configmaps?watch=1&resourceVersion=0"))
        lines.append(line)
    (asker,) = await connect(target, 1)
    path = f"/api/v1/namespaces/{STANDING}/configmaps"
    await asker.ask(message("POST", path, encode(config_map("watched"))))
    await asyncio.sleep(1.0)  # for the watches to be there
    times: list[float] = []
    first, before, began = sum(each.events for each in counters), target.cpu(), time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        body = encode({"metadata": {"annotations": {"bench/seq": f"{len(times):08}"}, "labels": {"x": "y" * 60}}})
        patch = message("PATCH", f"{path}/watched", body, "application/merge-patch+json")
        await asker.ask(patch)
        times.append(0.0)
        due = len(times) * watchers
        while sum(each.events for each in counters) - first < due:  # noqa: ASYNC110  an event costs more than what is measured
            await asyncio.sleep(0)
        times[-1] = time.perf_counter() - now
    used, took = target.cpu() - before, time.perf_counter() - began
    for each in lines:
        each.close()
    asker.close()
    await load.close()
    times.sort()
    count = len(times)
    return Measured(
        used / (count * watchers) * 1e6, count * watchers / took, times[count // 2], times[count * 99 // 100]
    )


async def connect(target: Target, count: int, who: str = "bench") -> list[Asker]:
    """So many connections."""
    loop, tls = asyncio.get_running_loop(), target.tls(who)
    made = [Asker() for _ in range(count)]
    for asker in made:
        await aiofastnet.create_connection(loop, lambda a=asker: a, "127.0.0.1", target.port, ssl=tls)
    return made


OPERATIONS = (
    "get-pod", "list-pods", "list-pods-gzip", "create-configmap", "create-pod", "update-pod", "merge-patch-pod",
    "status-patch-pod", "apply-pod", "delete-pod",
)  # fmt: skip
