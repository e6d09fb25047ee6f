"""A real metrics adapter: custom and external metrics over TLS, for whom the front proxy names.

Answers are those that `values` has for a path; `version` is the custom metrics' version that it serves.
"""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec

from steersman.api.resource import APISERVICES, SERVICES, Object
from steersman.client.client import Client
from steersman.lib.clock import SystemClock, rfc3339
from steersman.lib.http.messages import Request, Response
from steersman.lib.http.server import Server, server_tls

CUSTOM, EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
JSON = [("content-type", "application/json")]


class MetricsServer:
    """Listens on loopback with the extension server's certificate."""

    def __init__(self, folder: Path, version: str = "v1beta2") -> None:
        self._folder = folder
        self._clock = SystemClock()
        tls = server_tls(folder / "wardle.crt", folder / "wardle.key", [folder / "front-proxy-ca.crt"])
        self._web = Server(self.handle, self._clock, tls=tls)
        self._port = 0
        self.version = version
        self.values: dict[str, list[Object]] = {}  # path after the group's version, and its query: the answer's items
        self.asked: list[str] = []

    async def start(self, client: Client) -> None:
        """Listen, and tell the API server of both groups."""
        self._port = await self._web.listen("127.0.0.1", 0)
        spec = {"type": "ExternalName", "externalName": "localhost"}
        await client.create(SERVICES, {"metadata": {"name": "wardle", "namespace": "default"}, "spec": spec})
        for group, version in ((CUSTOM, self.version), (EXTERNAL, "v1beta1")):
            await client.create(APISERVICES, self._service(group, version))

    async def stop(self) -> None:
        """Be gone."""
        await self._web.close()

    def _service(self, group: str, version: str) -> Object:
        bundle = base64.b64encode((self._folder / "ca.crt").read_bytes()).decode()
        reference = {"namespace": "default", "name": "wardle", "port": self._port}
        given = {"group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100}
        return {
            "metadata": {"name": f"{version}.{group}"},
            "spec": {**given, "service": reference, "caBundle": bundle},
        }

    async def handle(self, request: Request) -> Response:
        """Discovery, values, or a Status as adapters answer."""
        if request.peer.certificate is None:
            return Response(401, [], b"not the front proxy")
        _, _, group, version, *rest = [*request.path.split("/"), "", "", ""]
        if version not in ("v1beta1", self.version) or group not in (CUSTOM, EXTERNAL):
            return Response(404, [], b"404 page not found\n")
        where = f"{group}/{version}"
        if not any(rest):
            empty = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": where, "resources": []}
            return Response(200, JSON, msgspec.json.encode(empty))
        asked = "/".join(filter(None, rest)) + (f"?{request.query}" if request.query else "")
        self.asked.append(asked)
        if asked not in self.values:
            words = "the server could not find the metric for the object"
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound"}
            return Response(404, JSON, msgspec.json.encode({**status, "message": words}))
        stamp = {"timestamp": rfc3339(self._clock.now())}
        items = [{**stamp, **each} for each in self.values[asked]]
        return Response(200, JSON, msgspec.json.encode({"apiVersion": where, "metadata": {}, "items": items}))
