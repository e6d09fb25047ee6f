"""Requests handed on to pods, services, nodes and kubelets, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from steersman.api.resource import ENDPOINTSLICES, NODES, PODS, SERVICES, Object
from steersman.lib.clock import SystemClock
from steersman.lib.http.client import Address, HttpClient
from steersman.lib.http.messages import Answer, Headers, Request, Response, Stream, Transport, Writer
from steersman.lib.http.server import Server
from steersman.testing.cluster import ApiCluster
from steersman.wire.websocket import Closed, Connection, Message

POD = "/api/v1/namespaces/default/pods"
KEY = base64.b64encode(b"0123456789abcdef").decode()
WEBSOCKET = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", KEY),
]


@dataclass
class World:
    """An API server on a port, and one server that stands for every pod and kubelet behind it."""

    cluster: ApiCluster
    front: HttpClient
    backend: int = 0
    dialed: list[str] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)

    def kubelet(self, node: Object) -> Transport:
        self.dialed.append(f"kubelet of {node['metadata']['name']}")
        return HttpClient(Address("127.0.0.1", self.backend))

    def address(self, scheme: str, host: str, port: int) -> Transport:
        self.dialed.append(f"{scheme}://{host}:{port}")
        return HttpClient(Address("127.0.0.1", 1 if port == 1 else self.backend))

    def answer(self, request: Request) -> Answer:
        """What the other side says."""
        self.seen.append(request)
        path = request.path
        if path == "/page":
            headers = [("content-type", "text/html; charset=utf-8"), ("access-control-allow-origin", "*")]
            return Response(200, headers, b'<a href="/next">go</a>')
        if path == "/zipped":
            headers = [("content-type", "text/html"), ("content-encoding", "gzip")]
            return Response(200, headers, gzip.compress(b'<img src="/i.png">'))
        if path == "/moved":
            return Response(302, [("location", "/there?a=1")], b"")
        if path.startswith("/containerLogs"):
            if "/broken" in path:
                return Response(400, [("content-type", "text/plain")], b'container "broken" is waiting to start')
            return Stream(200, [("content-type", "text/plain")], self._lines)
        return Response(200, [("x-method", request.method)], request.body or path.encode())

    @staticmethod
    async def _lines(writer: Writer) -> None:
        for number in range(3):
            writer.write(f"line {number}\n".encode())
            await writer.drain()

    async def ask(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> tuple[int, bytes]:
        response = await self.front.request(method, target, headers, body)
        return response.status, await response.read()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with ApiCluster(clock=SystemClock()) as cluster, Server(cluster.server.handle, SystemClock()) as server:
        made = World(cluster, HttpClient(Address("127.0.0.1", await server.listen("127.0.0.1", 0))))
        cluster.server.services.extras["dialer"] = made
        async with Server(made.answer, SystemClock()) as backend:
            made.backend = await backend.listen("127.0.0.1", 0)
            await fill(cluster)
            yield made
            await made.front.close()


async def fill(cluster: ApiCluster) -> None:
    client = cluster.client
    node = await client.create(NODES, {"metadata": {"name": "n"}})
    node["status"] = {"addresses": [{"type": "InternalIP", "address": "10.0.0.9"}]}
    await client.update(NODES, node, subresource="status")
    containers = [{"name": "c", "image": "i", "ports": [{"containerPort": 8080}]}]
    for name, address in (("web", "10.244.0.5"), ("local", "127.0.0.1"), ("link", "169.254.169.254"), ("none", "")):
        spec = {"nodeName": "n", "containers": containers}
        pod = await client.create(PODS, {"metadata": {"name": name}, "spec": spec}, "default")
        pod["status"] = {
            **pod.get("status", {}),
            **({"podIP": address, "podIPs": [{"ip": address}]} if address else {}),
        }
        await client.update(PODS, pod, subresource="status")
    two = [{"name": "c", "image": "i"}, {"name": "broken", "image": "i"}]
    await client.create(PODS, {"metadata": {"name": "two"}, "spec": {"nodeName": "n", "containers": two}}, "default")
    ports = [{"name": "one", "port": 80, "targetPort": 8081}, {"name": "two", "port": 81, "targetPort": 8082}]
    await client.create(SERVICES, {"metadata": {"name": "s"}, "spec": {"clusterIP": "None", "ports": ports}}, "default")
    slice_ = {
        "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.244.0.7"], "conditions": {"ready": True}},
            {"addresses": ["10.244.0.8"], "conditions": {"ready": False}},
        ],
        "ports": [{"name": "one", "port": 8081}, {"name": "two", "port": 8082}],
    }
    await client.create(ENDPOINTSLICES, slice_, "default")


@pytest.mark.parametrize(
    ("target", "dialed", "body"),
    [
        (f"{POD}/web/proxy/a/b?c=d", "http://10.244.0.5:8080", b"/a/b"),
        (f"{POD}/web/proxy/", "http://10.244.0.5:8080", b"/"),
        (f"{POD}/web:99/proxy/a", "http://10.244.0.5:99", b"/a"),
        (f"{POD}/https:web:99/proxy/a", "https://10.244.0.5:99", b"/a"),
        (f"{POD}/http:web:/proxy/a", "http://10.244.0.5:8080", b"/a"),
        (f"{POD}/web/proxy/a%20b/%2Fc", "http://10.244.0.5:8080", b"/a%20b/%2Fc"),
        ("/api/v1/namespaces/default/services/s:one/proxy/x", "http://10.244.0.7:8081", b"/x"),
        ("/api/v1/namespaces/default/services/s:81/proxy/x", "http://10.244.0.7:8082", b"/x"),
        ("/api/v1/namespaces/default/services/https:s:two/proxy/x", "https://10.244.0.7:8082", b"/x"),
        ("/api/v1/nodes/n/proxy/healthz", "kubelet of n", b"/healthz"),
        ("/api/v1/nodes/n:10250/proxy/healthz", "kubelet of n", b"/healthz"),
        ("/api/v1/nodes/n:9100/proxy/metrics", "http://10.0.0.9:9100", b"/metrics"),
    ],
)
async def test_where_a_name_leads(world: World, target: str, dialed: str, body: bytes) -> None:
    assert await world.ask("GET", target) == (200, body)
    assert world.dialed == [dialed]


@pytest.mark.parametrize(
    ("target", "code", "text"),
    [
        (f"{POD}/local/proxy/", 400, "address not allowed"),
        (f"{POD}/link/proxy/latest", 400, "address not allowed"),
        (f"{POD}/none/proxy/", 400, "address not allowed"),
        (f"{POD}/ftp:web:1/proxy/", 400, "invalid pod request"),
        (f"{POD}/web:70000/proxy/", 400, "invalid pod request"),
        (f"{POD}/a:b:c:d/proxy/", 400, "invalid pod request"),
        (f"{POD}/missing/proxy/", 404, 'pods "missing" not found'),
        (f"{POD}/web:1/proxy/", 503, "error trying to reach service"),
        ("/api/v1/namespaces/default/services/s:82/proxy/", 503, 'no service port 82 found for service "s"'),
        ("/api/v1/namespaces/default/services/s/proxy/", 503, 'no endpoints available for service "s"'),
        ("/api/v1/namespaces/default/services/s:three/proxy/", 503, 'no endpoints available for service "s:three"'),
    ],
)
async def test_what_leads_nowhere(world: World, target: str, code: int, text: str) -> None:
    status, body = await world.ask("GET", target)
    assert status == code
    assert text in json.loads(body)["message"]


async def test_every_method_and_its_body(world: World) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        response = await world.front.request(method, f"{POD}/web/proxy/echo", body=b"data")
        assert (response.status, response.header("x-method")) == (200, method)
        assert await response.read() == b"data"


async def test_credentials_stay_here(world: World) -> None:
    headers = [("authorization", "Bearer secret"), ("x-mine", "1"), ("connection", "keep-alive")]
    await world.ask("GET", f"{POD}/web/proxy/a", headers)
    names = {name for name, _ in world.seen[0].headers}
    assert "authorization" not in names
    assert {"x-mine", "x-forwarded-uri", "x-forwarded-for"} <= names


async def test_a_page_leads_on_through_the_proxy(world: World) -> None:
    response = await world.front.request("GET", f"{POD}/web/proxy/page")
    assert response.header("access-control-allow-origin") is None
    assert await response.read() == f'<a href="{POD}/web/proxy/next">go</a>'.encode()
    response = await world.front.request("GET", f"{POD}/web/proxy/zipped")
    assert gzip.decompress(await response.read()) == f'<img src="{POD}/web/proxy/i.png">'.encode()
    response = await world.front.request("GET", f"{POD}/web/proxy/moved")
    assert (response.status, response.header("location")) == (302, f"{POD}/web/proxy/there?a=1")
    response = await world.front.request("GET", f"{POD}/web/proxy?x=1")
    assert (response.status, response.header("location")) == (301, f"{POD}/web/proxy/?x=1")


async def test_logs_pass_as_they_come(world: World) -> None:
    assert await world.ask("GET", f"{POD}/web/log?tailLines=3") == (200, b"line 0\nline 1\nline 2\n")
    assert world.seen[0].path == "/containerLogs/default/web/c"
    assert world.seen[0].query == "tailLines=3"


@pytest.mark.parametrize(
    ("target", "code", "text"),
    [
        (f"{POD}/two/log", 400, "a container name must be specified for pod two, choose one of: [c broken]"),
        (f"{POD}/two/log?container=x", 400, "container x is not valid for pod two"),
        (f"{POD}/two/log?container=broken", 400, 'container "broken" is waiting to start'),
        (f"{POD}/web/log?tailLines=-1", 422, "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        (f"{POD}/web/log?limitBytes=x", 400, "invalid syntax"),
        (f"{POD}/web/exec", 400, "you must specify at least one of"),
    ],
)
async def test_refusals(world: World, target: str, code: int, text: str) -> None:
    status, body = await world.ask("GET", target)
    assert (status, json.loads(body)["kind"]) == (code, "Status")
    assert text in json.loads(body)["message"]


async def messages(world: World, target: str, *protocols: str, count: int = 99) -> tuple[str | None, list[Message]]:
    """The subprotocol that was agreed, and the first `count` messages."""
    offered = [("sec-websocket-protocol", ", ".join(protocols))] if protocols else []
    response, duplex = await world.front.upgrade("GET", target, [*WEBSOCKET, *offered])
    assert duplex is not None
    assert response.header("sec-websocket-accept")
    wire, told = Connection(server=False, random=lambda size: b"\1" * size), []
    async with asyncio.timeout(5):
        while len(told) < count and (data := await duplex.read()):
            events = wire.receive(data)
            told += [event for event in events if isinstance(event, Message)]
            if any(isinstance(event, Closed) for event in events):
                break
    duplex.close()
    return response.header("sec-websocket-protocol"), told


async def test_logs_over_a_websocket(world: World) -> None:
    protocol, told = await messages(world, f"{POD}/web/log", "binary.k8s.io")
    assert protocol == "binary.k8s.io"
    assert told[0] == Message(b"", False)
    assert b"".join(message.data for message in told) == b"line 0\nline 1\nline 2\n"
    protocol, told = await messages(world, f"{POD}/web/log", "base64.binary.k8s.io")
    assert all(message.text for message in told)
    assert b"".join(base64.b64decode(message.data) for message in told) == b"line 0\nline 1\nline 2\n"


async def test_a_watch_over_a_websocket(world: World) -> None:
    protocol, told = await messages(world, f"{POD}?watch=1&fieldSelector=metadata.name%3Dweb", count=1)
    event = json.loads(told[0].data)
    assert (protocol, told[0].text, event["type"], event["object"]["metadata"]["name"]) == (None, True, "ADDED", "web")


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([*WEBSOCKET, ("sec-websocket-protocol", "nonsense")], "requested protocol(s) are not supported"),
        ([*WEBSOCKET[:3], ("sec-websocket-key", "short")], "Sec-WebSocket-Key is not valid"),
        (WEBSOCKET[:3], "Sec-WebSocket-Key is not valid"),
    ],
)
async def test_broken_handshakes(world: World, headers: Headers, text: str) -> None:
    response, duplex = await world.front.upgrade("GET", f"{POD}/web/log", headers)
    assert (response.status, duplex) == (400, None)
    assert text in json.loads(await response.read())["message"]
