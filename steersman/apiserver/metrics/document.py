"""What metrics.k8s.io documents: its part of the OpenAPI v2 document, from which v3 is made.

Owns that part. Taken up by the aggregator's documents. Pure. Source: k8s.io/metrics' pkg/apis/metrics/v1beta1.
"""

from __future__ import annotations

from typing import Any

from steersman.api.openapi_schemas import V2
from steersman.api.resource import Object

_PACKAGE = "io.k8s.metrics.pkg.apis.metrics.v1beta1."
_GROUP, _VERSION = "metrics.k8s.io", "v1beta1"
_META: Object = {"type": "object", "description": "Standard object's metadata."}
_TIMES: Object = {
    "timestamp": {"type": "string", "format": "date-time", "description": "When the interval of the metrics ended."},
    "window": {"type": "string", "description": "How long the interval was, ending at the timestamp."},
}
_USAGE: Object = {
    "type": "object",
    "additionalProperties": {"type": "string"},
    "description": "How much of each resource is used: cpu over the interval, memory as the working set.",
}


def part() -> Object:
    """Paths and definitions, as `api.openapi_merge` takes them."""
    definitions = {
        "ContainerMetrics": _object("What one container uses.", name={"type": "string"}, usage=_USAGE),
        **_kind("NodeMetrics", "What a node uses.", usage=_USAGE),
        **_kind("PodMetrics", "What the containers of a pod use.", containers=_list_of("ContainerMetrics")),
    }
    base = f"/apis/{_GROUP}/{_VERSION}"
    paths = {
        f"{base}/nodes": _path("NodeMetricsList", "list"),
        f"{base}/nodes/{{name}}": _path("NodeMetrics", "get", "name"),
        f"{base}/pods": _path("PodMetricsList", "list"),
        f"{base}/namespaces/{{namespace}}/pods": _path("PodMetricsList", "list", "namespace"),
        f"{base}/namespaces/{{namespace}}/pods/{{name}}": _path("PodMetrics", "get", "namespace", "name"),
    }
    return {"paths": paths, "definitions": {_PACKAGE + name: each for name, each in definitions.items()}}


def _kind(kind: str, text: str, **fields: Object) -> dict[str, Object]:
    single = _object(text, **_type(), metadata=_META, **_TIMES, **fields)
    several = _object(f"A list of {kind}.", **_type(), metadata=_META, items=_list_of(kind))
    for name, made in ((kind, single), (f"{kind}List", several)):
        made["x-kubernetes-group-version-kind"] = [_gvk(name)]
    return {kind: single, f"{kind}List": several}


def _object(text: str, **fields: Object) -> Object:
    return {"type": "object", "description": text, "properties": fields}


def _type() -> dict[str, Object]:
    return {name: {"type": "string"} for name in ("apiVersion", "kind")}


def _list_of(name: str) -> Object:
    return {"type": "array", "items": {"$ref": V2 + _PACKAGE + name}}


def _gvk(kind: str) -> Object:
    return {"group": _GROUP, "kind": kind, "version": _VERSION}


def _path(answer: str, action: str, *names: str) -> Object:
    operation: dict[str, Any] = {
        "description": f"{action} {answer}",
        "produces": ["application/json"],
        "responses": {"200": {"description": "OK", "schema": {"$ref": V2 + _PACKAGE + answer}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(answer.removesuffix("List")),
    }
    parameters = [{"name": name, "in": "path", "type": "string", "required": True} for name in names]
    return {"get": operation, "parameters": parameters} if parameters else {"get": operation}
