"""metrics.k8s.io/v1beta1 as an API: NodeMetrics and PodMetrics, got and listed.

Owns its discovery document and its answers. The aggregator hands requests on to it; who may ask has been decided
before. Source: metrics-server's pkg/api, k8s.io/metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from steersman.api import errors, fields, labels
from steersman.api.priorities import Priority
from steersman.api.resource import Object
from steersman.apiserver.cache import Item
from steersman.apiserver.call import Services, User
from steersman.apiserver.encode import in_medium
from steersman.apiserver.metrics import document
from steersman.apiserver.metrics.collector import Collector
from steersman.apiserver.metrics.usage import Usage, Use
from steersman.apiserver.negotiate import negotiate
from steersman.apiserver.request import Query, RequestInfo
from steersman.lib.clock import rfc3339
from steersman.lib.http.messages import Request, Response, Transport

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
_API_VERSION = f"{GROUP}/{VERSION}"
_KINDS = {"nodes": "NodeMetrics", "pods": "PodMetrics"}
_COLUMNS = ("Name", "CPU", "Memory", "Window")


class Metrics:
    """Implements `app.Remote`, in this process. `kubelet` is the way to a node's kubelet."""

    priority: Priority = (100, 100)

    def __init__(self, services: Services, kubelet: Callable[[Object], Transport]) -> None:
        self._services = services
        self._collector = Collector(kubelet, services.clock)

    def resources(self) -> list[Object]:
        """What it serves, as aggregated discovery writes it."""
        return [
            {
                "resource": plural,
                "responseKind": {"group": "", "version": "", "kind": kind},
                "scope": "Namespaced" if plural == "pods" else "Cluster",
                "singularResource": "",
                "verbs": ["get", "list"],
            }
            for plural, kind in _KINDS.items()
        ]

    def document(self) -> Object:
        """Its part of the OpenAPI v2 document."""
        return document.part()

    async def serve(self, request: Request, user: User, info: RequestInfo) -> Response:
        """The answer. Raises ApiError."""
        if not info.is_resource:
            return _json(200, self._list_of_resources())
        kind = _KINDS.get(info.resource)
        if kind is None or info.subresource or (info.resource == "nodes" and info.namespace):
            raise errors.generic(404, "NotFound", "the server could not find the requested resource")
        if info.verb not in ("get", "list"):
            raise errors.method_not_allowed(GROUP, info.resource, info.verb or request.method.lower())
        found = await (self._nodes if info.resource == "nodes" else self._pods)(info, _chosen(request, info))
        format_ = negotiate(request.header("accept") or "", protobuf=False)
        if info.name and not found:
            name = f"{info.namespace}/{info.name}" if info.namespace else info.name
            raise errors.not_found(GROUP, kind.lower(), name)
        if format_.transform == "Table":
            body: Object = _table(found)
        elif info.name:
            body = found[0]
        else:
            body = {"kind": f"{kind}List", "apiVersion": _API_VERSION, "metadata": {}, "items": found}
        headers = [("cache-control", "no-cache, private"), ("content-type", format_.content_type)]
        return Response(200, headers, in_medium(body, format_))

    def _list_of_resources(self) -> Object:
        rows = [
            {
                "name": each["resource"],
                "singularName": each["singularResource"],
                "namespaced": each["scope"] == "Namespaced",
                "kind": each["responseKind"]["kind"],
                "verbs": each["verbs"],
            }
            for each in self.resources()
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": _API_VERSION, "resources": rows}

    async def _nodes(self, info: RequestInfo, chosen: Callable[[Item], bool]) -> list[Object]:
        everybody = self._objects("nodes")
        wanted = {item.name: item for item in everybody if chosen(item)}
        await self._collector.collect({name: item.obj() for name, item in wanted.items()})
        self._collector.keep_only(frozenset(item.name for item in everybody))
        found = ((item, self._collector.node(name)) for name, item in wanted.items())
        return [
            {**self._head("NodeMetrics", item, usage), "usage": _amounts(usage.total)}
            for item, usage in found
            if usage is not None
        ]

    async def _pods(self, info: RequestInfo, chosen: Callable[[Item], bool]) -> list[Object]:
        wanted = [item for item in self._objects("pods", info.namespace) if chosen(item)]
        if not wanted:
            return []
        await self._collector.collect({item.name: item.obj() for item in self._objects("nodes")})
        usages = self._collector.pods()
        found = ((item, usages.get((item.namespace, item.name))) for item in wanted)
        return [
            {**self._head("PodMetrics", item, usage), "containers": _containers(usage)}
            for item, usage in found
            if usage is not None
        ]

    def _objects(self, plural: str, namespace: str = "") -> list[Item]:
        storage, kind = self._services.storage, self._services.registry.find("", plural)
        assert kind is not None
        return [item for _, item in storage.cache(kind).items(storage.prefix(kind, namespace))]

    def _head(self, kind: str, item: Item, usage: Usage) -> Object:
        meta: Object = {"name": item.name}
        if item.namespace:
            meta["namespace"] = item.namespace
        meta["creationTimestamp"] = rfc3339(self._services.clock.now())
        if item.labels:
            meta["labels"] = dict(item.labels)
        when = {"timestamp": rfc3339(usage.at), "window": _duration(usage.window)}
        return {"kind": kind, "apiVersion": _API_VERSION, "metadata": meta, **when}


def _chosen(request: Request, info: RequestInfo) -> Callable[[Item], bool]:
    """What the name and the selectors leave over. Raises ApiError."""
    query = Query(request.query)
    try:
        selector = labels.parse(query.get("labelSelector"))
        terms = fields.parse(query.get("fieldSelector"))
    except ValueError as error:
        raise errors.bad_request(str(error)) from None
    for term in terms:
        if term.field not in ("metadata.name", "metadata.namespace"):
            raise errors.bad_request(f"field label not supported: {term.field}")

    def keep(item: Item) -> bool:
        if info.name and item.name != info.name:
            return False
        own = {"metadata.name": item.name, "metadata.namespace": item.namespace}
        return selector.matches(item.labels) and all((own[term.field] == term.value) is term.equal for term in terms)

    return keep


def _containers(usage: Usage) -> list[Object]:
    return [{"name": name, "usage": _amounts(use)} for name, use in sorted(usage.containers.items())]


def _amounts(use: Use) -> Object:
    return {"cpu": f"{use.cpu}n" if use.cpu else "0", "memory": f"{use.memory >> 10}Ki"}


def _duration(seconds: float) -> str:
    """As Go writes a time.Duration."""
    minutes, rest = divmod(round(seconds, 3), 60)
    return (f"{int(minutes)}m" if minutes else "") + f"{round(rest, 3):g}s"


def _table(found: Iterable[Object]) -> Object:
    rows = []
    for each in found:
        used = [each["usage"]] if "usage" in each else [one["usage"] for one in each["containers"]]
        cpu = sum(int(one["cpu"].rstrip("n")) for one in used)
        memory = sum(int(one["memory"].removesuffix("Ki")) for one in used)
        cells: list[Any] = [each["metadata"]["name"], f"{cpu}n", f"{memory}Ki", each["window"]]
        part = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": each["metadata"]}
        rows.append({"cells": cells, "object": part})
    columns = [
        {"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": "", "priority": 0}
        for name in _COLUMNS
    ]
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}}
    return {**head, "columnDefinitions": columns, "rows": rows}


def _json(status: int, body: Object) -> Response:
    return Response(status, [("content-type", "application/json")], in_medium(body, negotiate("", protobuf=False)))
