"""A real extension API server: TLS that asks for the front proxy's certificate, discovery, objects, watch, exec.

`twist` makes it misbehave.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from steersman.api.resource import APISERVICES, SERVICES, Object
from steersman.apiserver.aggregation.aggregator import Aggregator
from steersman.apiserver.aggregation.backend import Patience, Proxy
from steersman.apiserver.paths import OpenApiPaths
from steersman.apiserver.request import Query
from steersman.client.client import Client
from steersman.cluster import certs
from steersman.lib.clock import SystemClock
from steersman.lib.http.messages import Answer, Duplex, Request, Response, Stream, Upgrade, Writer
from steersman.lib.http.server import Server, server_tls
from steersman.lib.tasks import Tasks
from steersman.testing.cluster import ApiCluster

GROUP = "wardle.example.com"
PREFIX = f"/apis/{GROUP}/v1alpha1"
FLUNDERS = f"{PREFIX}/namespaces/default/flunders"
JSON = [("content-type", "application/json")]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
ROWS = [
    {"name": "flunders", "singularName": "flunder", "namespaced": True, "kind": "Flunder", "shortNames": ["fl"],
     "verbs": ["create", "delete", "get", "list", "watch"]},
    {"name": "flunders/exec", "singularName": "", "namespaced": True, "kind": "Exec", "verbs": ["get"]},
]  # fmt: skip


def identities() -> list[certs.Identity]:
    """Everybody's, and the extension server's own."""
    names = ["wardle.default.svc"]
    return [
        *certs.identities([], ["127.0.0.1"], "cluster.local"),
        certs.Identity("wardle", "wardle", server=True, names=names),
    ]


REF = {"$ref": "#/definitions/com.example.Flunder"}
KIND = {"group": GROUP, "kind": "Flunder", "version": "v1alpha1"}
OPERATION = {
    "x-kubernetes-group-version-kind": KIND,
    "operationId": "listFlunders",
    "produces": ["application/json"],
    "parameters": [{"name": "limit", "in": "query", "type": "integer"}, {"name": "body", "in": "body", "schema": REF}],
    "responses": {"200": {"description": "OK", "schema": REF}, "401": {"description": "Unauthorized"}},
}
META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
OPENAPI = {
    "swagger": "2.0",
    "info": {"title": "wardle", "version": "1"},
    "paths": {f"{PREFIX}/flunders": {"get": OPERATION}, "/apis/apps/v1/": {"get": {"responses": {}}}},
    "definitions": {
        "com.example.Flunder": {
            "type": "object",
            "properties": {"metadata": {"$ref": f"#/definitions/{META}"}},
            "x-kubernetes-group-version-kind": [KIND],
        },
        META: {"type": "object", "description": "an older one"},
        "com.example.Unused": {"type": "string"},
    },
}


class Extension:
    """Serves flunders to whom the front proxy names, from a dict."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.folder = folder
        self._host = host
        self.twist = ""
        self.openapi: dict[str, bytes] = {}  # path: document
        self.objects: dict[str, Object] = {}
        self.deleted: list[str] = []
        self.asked: list[Request] = []
        self.watchers: list[Writer] = []
        self.tasks = Tasks()
        tls = server_tls(folder / "wardle.crt", folder / "wardle.key", [folder / "front-proxy-ca.crt"])
        self._web = Server(self.handle, SystemClock(), tls=tls)
        self.port = 0

    async def start(self) -> None:
        """Listen where it listened before, if it did."""
        self.port = await self._web.listen(self._host, self.port)

    async def stop(self) -> None:
        """Be gone."""
        await self.tasks.close()
        await self._web.close()

    def service(self, **spec: object) -> Object:
        """Its APIService."""
        bundle = base64.b64encode((self.folder / "ca.crt").read_bytes()).decode()
        reference = {"namespace": "default", "name": "wardle", "port": self.port}
        given = {"group": GROUP, "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200}
        return {
            "metadata": {"name": f"v1alpha1.{GROUP}"},
            "spec": {**given, "service": reference, "caBundle": bundle, **spec},
        }

    async def handle(self, request: Request) -> Answer:
        """Answer, or misbehave."""
        self.asked.append(request)
        if request.peer.certificate is None:
            return Response(401, [], b"not the front proxy")
        if (spoilt := await self._twisted(request)) is not None:
            return spoilt
        if request.path == "/apis" and self.twist == "aggregated":
            return self._aggregated()
        if request.path == PREFIX:
            return _json({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": PREFIX[6:], "resources": ROWS})
        if request.path in self.openapi:
            return Response(200, JSON, self.openapi[request.path])
        if request.path.startswith((FLUNDERS, f"{PREFIX}/flunders")):
            return self._flunders(request)
        return Response(404, [], b"404 page not found\n")

    def _aggregated(self) -> Response:
        row = {"resource": "flunders", "scope": "Namespaced", "singularResource": "flunder", "verbs": ["get", "list"]}
        other = {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": []}]}
        versions = [{"version": "v1alpha1", "resources": [row], "freshness": "Current"}]
        items = [other, {"metadata": {"name": GROUP}, "versions": versions}]
        body = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items}
        return Response(200, [("content-type", AGGREGATED)], msgspec.json.encode(body))

    async def _twisted(self, request: Request) -> Answer | None:
        discovery = request.path in ("/apis", PREFIX)
        match self.twist, discovery:
            case ("hangs", _) | ("slow objects", False):
                await asyncio.Event().wait()
            case "fails", _:
                return Response(500, [], b"no wind")
            case "redirects", _:
                return Response(302, [("location", "https://elsewhere.example.com/")], b"")
            case "garbage", True:
                return Response(200, [("content-type", AGGREGATED)], b'{"items": [{"versions": 7}]}')
            case "huge", True:
                return Response(200, JSON, b'{"resources": [' + b" " * (33 << 20) + b"]}")
            case "breaks off", False:
                return Stream(200, JSON, _break_off)
            case "stalls", False:
                return Stream(200, JSON, _stall)
        return None

    def _flunders(self, request: Request) -> Answer:
        name = request.path.removeprefix(FLUNDERS).removeprefix(f"{PREFIX}/flunders").strip("/")
        if name.endswith("/exec"):
            return Upgrade([("connection", "Upgrade"), ("upgrade", "shout")], _shout)
        if request.method == "POST":
            obj = msgspec.json.decode(request.body)
            self.objects[obj["metadata"]["name"]] = obj
            for writer in self.watchers:
                writer.write(msgspec.json.encode({"type": "ADDED", "object": obj}) + b"\n")
            return _json(obj, 201)
        if request.method == "DELETE":
            self.deleted.append(name)
            return _json(self.objects.pop(name, {}))
        if Query(request.query).flag("watch"):
            return Stream(200, JSON, self._watch)
        if name:
            return _json(self.objects[name]) if name in self.objects else _json({"kind": "Status", "code": 404}, 404)
        return _json({"kind": "FlunderList", "apiVersion": PREFIX[6:], **self.state()})

    def state(self) -> Object:
        """What a list holds."""
        return {"metadata": {"resourceVersion": "1"}, "items": list(self.objects.values())}

    async def _watch(self, writer: Writer) -> None:
        gone = asyncio.Event()
        writer.on_close(gone.set)
        self.watchers.append(writer)
        try:
            await gone.wait()
        finally:
            self.watchers.remove(writer)


async def _break_off(writer: Writer) -> None:
    writer.write(b'{"kind": "Flun')
    await writer.drain()
    raise ConnectionResetError("as asked")


async def _stall(writer: Writer) -> None:
    writer.write(b'{"kind": "Flun')
    await writer.drain()
    await asyncio.Event().wait()


async def _shout(duplex: Duplex) -> None:
    while data := await duplex.read():
        duplex.write(data.upper())
        await duplex.drain()


def _json(obj: Object, status: int = 200) -> Response:
    return Response(status, JSON, msgspec.json.encode(obj))


class Aggregated:
    """An API server with an aggregator, and the extension server beside it."""

    def __init__(self, cluster: ApiCluster, extension: Extension) -> None:
        self.cluster = cluster
        self.client: Client = cluster.client
        self.extension = extension

    async def register(self, **spec: object) -> None:
        """Tell the API server of the extension server."""
        external = {"type": "ExternalName", "externalName": "localhost"}
        await self.client.create(SERVICES, {"metadata": {"name": "wardle", "namespace": "default"}, "spec": external})
        await self.client.create(APISERVICES, self.extension.service(**spec))

    async def condition(self, reason: str) -> Object:
        """The condition Available, once its reason is this."""
        async with self.patience():
            while True:
                found = await self.client.get(APISERVICES, f"v1alpha1.{GROUP}")
                for each in (found.get("status") or {}).get("conditions") or ():
                    if each["reason"] == reason:
                        return each
                await self.changed()

    async def freshness(self, wanted: str) -> Object:
        """What aggregated discovery says of the extension's version, once it is so fresh."""
        async with self.patience():
            while True:
                document = await self.discovery()
                group = next((each for each in document["items"] if each["metadata"]["name"] == GROUP), None)
                if group is not None and group["versions"][0]["freshness"] == wanted:
                    return group["versions"][0]
                await self.cluster.clock.sleep(0.01)

    async def automanaged(self, name: str) -> Object:
        """An APIService, once it is there."""
        async with self.patience():
            while True:
                for each in (await self.client.list(APISERVICES)).items:
                    if each["metadata"]["name"] == name:
                        return each
                await self.changed()

    async def gone(self, name: str) -> None:
        """Wait until there is no such APIService."""
        async with self.patience():
            while any(each["metadata"]["name"] == name for each in (await self.client.list(APISERVICES)).items):
                await self.changed()

    async def documented(self, path: str, word: str) -> Object:
        """An OpenAPI document, once this is in it."""
        async with self.patience():
            while True:
                _, body = await self.client.raw("GET", path)
                if word.encode() in body:
                    document: Object = msgspec.json.decode(body)
                    return document
                await self.changed()

    async def watched(self, count: int = 1) -> None:
        """Wait until so many watch the extension server."""
        async with self.patience():
            while len(self.extension.watchers) != count:
                await self.changed()

    def patience(self) -> asyncio.Timeout:
        """How long a test waits for anything."""
        return asyncio.timeout(20)

    async def changed(self) -> None:
        """The next write to any object, or a moment."""
        await self.cluster.clock.sleep(0.01)

    async def discovery(self) -> Object:
        """The aggregated document."""
        _, body = await self.client.raw("GET", "/apis", accept=AGGREGATED)
        document: Object = msgspec.json.decode(body)
        return document

    async def ask(self, method: str, path: str, body: Object | None = None) -> tuple[int, bytes]:
        """An answer's status and body."""
        response, answer = await self.client.raw(method, path, msgspec.json.encode(body) if body else b"")
        return response.status, answer


@asynccontextmanager
async def aggregated(folder: Path, patience: Patience) -> AsyncIterator[Aggregated]:
    """The whole thing, started."""
    certs.ensure(folder, identities(), SystemClock().now())
    extension = Extension(folder)
    await extension.start()
    async with ApiCluster() as cluster, Tasks() as tasks:
        proxy = Proxy(folder / "front-proxy-client.crt", folder / "front-proxy-client.key")
        documented = OpenApiPaths(cluster.server.registry)
        cluster.server.paths.append(documented)
        aggregator = Aggregator(cluster.server, tasks, proxy, patience)
        documented.documents.others = aggregator.documents
        await aggregator.start()
        yield Aggregated(cluster, extension)
    await extension.stop()
